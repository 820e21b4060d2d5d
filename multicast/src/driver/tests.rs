//! Whole transfers over the loopback interface: real sockets, threads and time.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::{
    Rate,
    block::{BlockId, BlockSink, BlockSource, Layout, ObjectId, SinkError, Start, Verdict},
    interface::InterfaceChoice,
    keys::SigningKey,
    seal::{Membership, SenderSeal, SessionKey, Suite},
    sender::ReceiverInfo,
    wire::Phase,
};

mod detour;

static GO: AtomicBool = AtomicBool::new(false);
/// A transfer that takes longer hangs: it is stopped, and its test fails instead of waiting for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// A payload in memory; the preamble is the list of block sizes.
#[derive(Clone)]
struct Payload {
    preamble: Vec<u8>,
    layout: Layout,
    blocks: Vec<Vec<u8>>,
}

impl Payload {
    fn of(sizes: &[u32]) -> Payload {
        let mut state = 1_u64;
        let mut byte = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        let block = |&bytes: &u32| (0..bytes).map(|_| byte()).collect();
        Payload {
            blocks: sizes.iter().map(block).collect(),
            preamble: sizes.iter().flat_map(|bytes| bytes.to_le_bytes()).collect(),
            layout: Layout::new(sizes.to_vec()).expect("sizes fit"),
        }
    }
}

impl BlockSource for Payload {
    fn preamble(&self) -> &[u8] {
        &self.preamble
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read_block(&mut self, block: BlockId, payload: &mut Vec<u8>) -> io::Result<()> {
        let bytes = self
            .blocks
            .get(block.0 as usize)
            .ok_or(io::ErrorKind::NotFound)?;
        payload.extend_from_slice(bytes);
        Ok(())
    }
}

/// Keeps what it is given; refuses each block `refusals` times first.
#[derive(Clone, Default)]
struct Shelf {
    blocks: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    verdicts: Vec<Verdict>,
    refusals: usize,
    broken: bool,
}

impl BlockSink for Shelf {
    fn begin(&mut self, preamble: &[u8], object: &ObjectId) -> Result<Start, SinkError> {
        if self.broken {
            return Err(SinkError("the shelf is broken".to_owned()));
        }
        assert_eq!(*object, object_of(preamble));
        let size = |word: &[u8]| u32::from_le_bytes(word.try_into().expect("four bytes"));
        let sizes: Vec<u32> = preamble.chunks(4).map(size).collect();
        let mut blocks = self.blocks.lock().expect("no panic");
        blocks.resize(sizes.len(), None);
        let wanted = blocks.iter().map(Option::is_none).collect();
        let layout = Layout::new(sizes).map_err(|error| SinkError(error.to_string()))?;
        Ok(Start { layout, wanted })
    }

    fn deliver(&mut self, block: BlockId, payload: Vec<u8>) {
        if self.refusals > 0 {
            self.refusals -= 1;
            return self.verdicts.push(Verdict::Rejected(block));
        }
        self.blocks.lock().expect("no panic")[block.0 as usize] = Some(payload);
        self.verdicts.push(Verdict::Accepted(block));
    }

    fn settle(&mut self) {
        self.verdicts.push(Verdict::Settled);
    }

    fn poll_verdict(&mut self) -> Option<Verdict> {
        (!self.verdicts.is_empty()).then(|| self.verdicts.remove(0))
    }

    fn poll_failure(&mut self) -> Option<String> {
        None
    }

    fn backlog_bytes(&self) -> u64 {
        0
    }

    fn has_room(&self) -> bool {
        true
    }
}

fn object_of(preamble: &[u8]) -> ObjectId {
    ObjectId(*blake3::hash(preamble).as_bytes())
}

fn sending(port: u16, receivers: u32, payload: &Payload) -> SendConfig {
    SendConfig {
        interface: InterfaceChoice::Named("lo".to_owned()),
        group: group(port),
        ttl: 1,
        loopback: true,
        rate: Rate::Fixed(400_000_000),
        budget: None,
        symbol_bytes: Some(1452),
        session: random_session().expect("random"),
        object_id: object_of(&payload.preamble),
        signing_key: SigningKey::generate().expect("random"),
        seal: None,
        audience: Audience::of(receivers),
        wait: Duration::from_secs(20),
        linger: Duration::from_millis(500),
    }
}

fn receiving(port: u16) -> ReceiveConfig {
    ReceiveConfig {
        interface: InterfaceChoice::Named("lo".to_owned()),
        group: group(port),
        name: "shelf".to_owned(),
        session: None,
        verify_key: None,
        membership: None,
        object_id: None,
        search: Some(Duration::from_secs(10)),
        silence: Duration::from_secs(5),
        merging: true,
        remind: None,
    }
}

fn group(port: u16) -> SocketAddr {
    SocketAddr::from(([239, 255, 78, 1], port))
}

/// Sends `payload` to `shelves`; what sender and receivers say in the end.
fn transfer(
    port: u16,
    payload: &Payload,
    shelves: &[Shelf],
) -> (
    Result<SendReport, SendError>,
    Vec<Result<ReceiveReport, ReceiveError>>,
) {
    let stop = Arc::new(AtomicBool::new(false));
    let watchdog = Arc::clone(&stop);
    thread::spawn(move || {
        thread::sleep(PATIENCE);
        watchdog.store(true, Ordering::Relaxed);
    });
    let stop = &*stop;
    thread::scope(|scope| {
        let receivers: Vec<_> = shelves
            .iter()
            .map(|shelf| {
                let shelf = shelf.clone();
                scope.spawn(move || receive(receiving(port), shelf, |_| {}, stop))
            })
            .collect();
        let sent = send(
            sending(port, shelves.len() as u32, payload),
            payload.clone(),
            |_| {},
            stop,
        );
        let received = receivers
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        (sent, received.collect())
    })
}

fn assert_full(shelf: &Shelf, payload: &Payload) {
    let blocks = shelf.blocks.lock().expect("no panic");
    assert_eq!(blocks.len(), payload.blocks.len());
    for (have, sent) in blocks.iter().zip(&payload.blocks) {
        assert!(have.as_ref() == Some(sent));
    }
}

#[test]
fn three_receivers_get_every_byte() {
    let payload = Payload::of(&[1_400_000, 1_300_001, 77, 1_452, 900_000]);
    let shelves = [Shelf::default(), Shelf::default(), Shelf::default()];
    let (sent, received) = transfer(47_101, &payload, &shelves);
    let sent = sent.expect("sent");
    assert!(received.iter().all(Result::is_ok), "{received:?}");
    shelves
        .iter()
        .for_each(|shelf| assert_full(shelf, &payload));
    assert_eq!(sent.receivers.len(), 3);
    let bytes = payload.layout.total_bytes();
    assert!(
        sent.wire_bytes > bytes && sent.wire_bytes < bytes * 2,
        "{}",
        sent.wire_bytes
    );
}

/// A sealed session of one shelf, and somebody without a key who listens.
#[test]
fn a_sealed_session_is_for_those_with_its_key() {
    let payload = Payload::of(&[700_000, 60_001]);
    let key = SessionKey::generate().expect("random");
    let seal = SenderSeal::new(key.clone(), key.report_secret(), Suite::fastest_here());
    let config = SendConfig {
        seal: Some(seal.expect("random")),
        symbol_bytes: Some(1440),
        ..sending(47_113, 1, &payload)
    };
    let stop = AtomicBool::new(false);
    let (shelf, stranger) = (Shelf::default(), Shelf::default());
    thread::scope(|scope| {
        let with_key = ReceiveConfig {
            membership: Some(Membership::of_key(&key)),
            ..receiving(47_113)
        };
        let without = ReceiveConfig {
            search: Some(Duration::from_secs(5)),
            ..receiving(47_113)
        };
        let source = payload.clone();
        let stop = &stop;
        let sent = scope.spawn(move || send(config, source, |_| {}, stop));
        let refused = scope.spawn(move || receive(without, stranger, |_| {}, stop));
        let refused = refused.join().expect("no panic").expect_err("no key");
        assert!(refused.to_string().contains("give --key-file"), "{refused}");
        receive(with_key, shelf.clone(), |_| {}, stop).expect("received");
        sent.join().expect("no panic").expect("sent");
    });
    assert_full(&shelf, &payload);
}

#[test]
fn a_refused_block_comes_again() {
    let payload = Payload::of(&[500_000, 400_000]);
    let shelf = Shelf {
        refusals: 3,
        ..Shelf::default()
    };
    let (sent, received) = transfer(47_102, &payload, std::slice::from_ref(&shelf));
    sent.expect("sent");
    assert_eq!(received[0].as_ref().expect("received").stats.rejected, 3);
    assert_full(&shelf, &payload);
}

#[test]
fn a_broken_sink_ends_its_receiver_alone_and_with_its_reason() {
    let payload = Payload::of(&[500_000]);
    let broken = Shelf {
        broken: true,
        ..Shelf::default()
    };
    let shelves = [broken, Shelf::default()];
    let (sent, received) = transfer(47_103, &payload, &shelves);
    let error = received[0].as_ref().expect_err("broken");
    assert_eq!(error.to_string(), "the shelf is broken");
    assert!(received[1].is_ok(), "{received:?}");
    assert_full(&shelves[1], &payload);
    let done = |receiver: &&ReceiverInfo| receiver.phase == Phase::Done;
    assert_eq!(sent.expect("sent").receivers.iter().filter(done).count(), 1);
}

#[test]
fn nobody_sending_is_said_after_the_search() {
    let config = ReceiveConfig {
        search: Some(Duration::from_millis(200)),
        ..receiving(47_104)
    };
    let error = receive(config, Shelf::default(), |_| {}, &GO).expect_err("nobody");
    assert!(
        error
            .to_string()
            .contains("no session heard on 239.255.78.1:47104"),
        "{error}"
    );
}

#[test]
fn a_stop_ends_both_ends() {
    let stop = AtomicBool::new(false);
    let payload = Payload::of(&[1_400_000]);
    thread::scope(|scope| {
        let config = SendConfig {
            audience: Audience::of(2),
            wait: Duration::from_secs(60),
            ..sending(47_105, 2, &payload)
        };
        let sender = scope.spawn(|| send(config, payload, |_| {}, &stop));
        let receiver = scope.spawn(|| receive(receiving(47_105), Shelf::default(), |_| {}, &stop));
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(
            sender.join().expect("no panic"),
            Err(SendError::Interrupted)
        ));
        assert!(matches!(
            receiver.join().expect("no panic"),
            Err(ReceiveError::Interrupted)
        ));
    });
}

#[test]
fn a_unicast_group_is_refused() {
    let group = SocketAddr::from(([10, 0, 0, 1], 9000));
    let config = ReceiveConfig {
        group,
        ..receiving(0)
    };
    assert!(matches!(
        receive(config, Shelf::default(), |_| {}, &GO),
        Err(ReceiveError::Group(_))
    ));
}
