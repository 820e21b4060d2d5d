//! One sender and one receiver, joined by hand: for promises that need a particular moment.
//!
//! Datagrams are made here byte by byte after `docs/PROTOCOL.md`, not by the code under test.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use netflash_multicast::{
    Instant, Layout, Membership, ObjectId, Rate, Receiver, ReceiverConfig, ReceiverEvent,
    ReedSolomon, Sender, SenderConfig, SenderEvent, SenderSeal, SessionKey, SigningKey, Start,
    StartRule, Suite, VerifyKey,
};

/// Bytes of a symbol in these rooms.
pub(super) const SYMBOL: u16 = 512;
/// The session of [`sender`].
pub(super) const SESSION: u32 = 0x5e55_0001;
const PREAMBLE: &[u8] = b"what every machine must know";

/// Where the sender is, where the machine is.
pub(super) fn addresses() -> (SocketAddr, SocketAddr) {
    let host = |host| SocketAddr::from((Ipv4Addr::new(10, 77, 0, host), 4077));
    (host(1), host(2))
}

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn object(preamble: &[u8]) -> ObjectId {
    ObjectId(*blake3::hash(preamble).as_bytes())
}

/// A sender of `blocks` that waits for one machine.
pub(super) fn sender(session: u32, seed: u8, blocks: &[u32]) -> Sender<ReedSolomon> {
    sender_with(session, seed, blocks, None)
}

/// The key of sealed rooms.
pub(super) fn session_key() -> SessionKey {
    SessionKey::of_secret(b"what the whole room knows")
}

/// A seal of such a room.
pub(super) fn seal() -> SenderSeal {
    let report_secret = session_key().report_secret();
    SenderSeal::with_salt(session_key(), report_secret, Suite::default(), [6; 16])
}

/// The same, sealed if there is a seal.
pub(super) fn sender_with(
    session: u32,
    seed: u8,
    blocks: &[u32],
    seal: Option<SenderSeal>,
) -> Sender<ReedSolomon> {
    let config = SenderConfig {
        session,
        object_id: object(PREAMBLE),
        signing_key: key(seed),
        seal,
        reply_to: Some(addresses().0),
        symbol_bytes: SYMBOL,
        rate: Rate::Fixed(100_000_000),
        start: StartRule {
            receivers: 1,
            wait: Duration::from_secs(60),
        },
        linger: Duration::from_secs(60),
    };
    let layout = Layout::new(blocks.to_vec()).expect("sane blocks");
    Sender::new(Instant::ZERO, config, PREAMBLE, layout, ReedSolomon::new()).expect("sane")
}

/// Lets a sender announce until `now`.
pub(super) fn announce_until(now: Instant, sender: &mut Sender<ReedSolomon>) {
    let mut then = Instant::ZERO;
    while then < now {
        then = then.after(Duration::from_millis(10));
        sender.poll_transmit(then, &mut Vec::new());
    }
}

/// What a machine may be told to look for.
#[derive(Default)]
pub(super) struct Expect {
    pub(super) session: Option<u32>,
    pub(super) verify_key: Option<VerifyKey>,
    pub(super) object_id: Option<ObjectId>,
    pub(super) membership: Option<Membership>,
    /// Starts of the machine before this one: each draws a number of its own.
    pub(super) starts: u64,
}

impl Expect {
    /// The same, of a machine to which a server gave a number.
    pub(super) fn numbered(machine: u32) -> Expect {
        let report_key = session_key().report_secret().key_of(machine);
        let membership = Membership {
            machine,
            session_key: session_key(),
            report_key,
        };
        Expect {
            membership: Some(membership),
            ..Expect::default()
        }
    }

    /// A session sealed with [`session_key`].
    pub(super) fn sealed() -> Expect {
        Expect {
            membership: Some(Membership::of_key(&session_key())),
            ..Expect::default()
        }
    }

    /// What [`sender`] sends, whoever sends it.
    pub(super) fn another_object() -> Expect {
        Expect {
            object_id: Some(object(b"something else")),
            ..Expect::default()
        }
    }
}

pub(super) fn receiver(expect: Expect) -> Receiver<ReedSolomon> {
    let mut drawn = 7;
    let config = ReceiverConfig {
        id: 42 + expect.starts,
        name: "machine".to_owned(),
        session: expect.session,
        verify_key: expect.verify_key,
        membership: expect.membership,
        object_id: expect.object_id,
        silence: Duration::from_secs(60),
        chance: Box::new(move || {
            drawn = u32::wrapping_mul(drawn, 1_103_515_245).wrapping_add(12345);
            drawn
        }),
    };
    Receiver::new(Instant::ZERO, config, ReedSolomon::new())
}

/// A sender and a machine in one session, and all that was said.
pub(super) struct Pair {
    pub(super) sender: Sender<ReedSolomon>,
    pub(super) receiver: Receiver<ReedSolomon>,
    pub(super) now: Instant,
    pub(super) blocks: Vec<u32>,
    /// Every datagram of the sender, in order.
    pub(super) heard: Vec<Vec<u8>>,
    /// Every report of the machine, in order.
    pub(super) reports: Vec<Vec<u8>>,
    /// What the machine told its driver.
    pub(super) events: Vec<ReceiverEvent>,
}

impl Pair {
    pub(super) fn new(blocks: &[u32], expect: Expect) -> Pair {
        Pair::with(blocks, expect, None)
    }

    /// Both have the key.
    pub(super) fn sealed(blocks: &[u32], seal: SenderSeal) -> Pair {
        Pair::with(blocks, Expect::sealed(), Some(seal))
    }

    /// The same machine, started once more.
    pub(super) fn sealed_again(blocks: &[u32], seal: SenderSeal) -> Pair {
        let expect = Expect {
            starts: 1,
            ..Expect::sealed()
        };
        Pair::with(blocks, expect, Some(seal))
    }

    fn with(blocks: &[u32], expect: Expect, seal: Option<SenderSeal>) -> Pair {
        Pair {
            sender: sender_with(SESSION, 1, blocks, seal),
            receiver: receiver(expect),
            now: Instant::ZERO,
            blocks: blocks.to_vec(),
            heard: Vec::new(),
            reports: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Lets `millis` pass, a fifth of a millisecond at a time, until `stop` says so.
    pub(super) fn play(&mut self, millis: u64, stop: impl Fn(&Pair) -> bool) {
        let (from_sender, from_machine) = addresses();
        for _ in 0..millis * 5 {
            if stop(self) {
                return;
            }
            self.now = self.now.after(Duration::from_micros(200));
            if self
                .sender
                .poll_timeout()
                .is_some_and(|due| due <= self.now)
            {
                self.sender.handle_timeout(self.now);
            }
            while let Some(event) = self.sender.poll_event() {
                if let SenderEvent::NeedBlock(block) = event {
                    let bytes = self.blocks[block.index() as usize] as usize;
                    self.sender
                        .provide(block, vec![block.index() as u8; bytes])
                        .expect("fits");
                }
            }
            let mut datagram = Vec::new();
            if self.sender.poll_transmit(self.now, &mut datagram).is_some() {
                self.receiver
                    .handle_datagram(self.now, from_sender, &datagram);
                self.heard.push(datagram);
            }
            if self
                .receiver
                .poll_timeout()
                .is_some_and(|due| due <= self.now)
            {
                self.receiver.handle_timeout(self.now);
            }
            self.listen();
            let mut report = Vec::new();
            while self.receiver.poll_transmit(self.now, &mut report).is_some() {
                let report = std::mem::take(&mut report);
                self.sender.handle_datagram(self.now, from_machine, &report);
                self.reports.push(report);
            }
        }
    }

    /// Takes what the machine has to tell; answers for a disk that likes everything.
    pub(super) fn listen(&mut self) {
        use netflash_multicast::Verdict;
        self.receiver.set_pressure(0, true, 0);
        while let Some(event) = self.receiver.poll_event() {
            match &event {
                ReceiverEvent::Preamble(_) => {
                    let layout = Layout::new(self.blocks.clone()).expect("sane blocks");
                    let wanted = vec![true; self.blocks.len()];
                    self.receiver.begin(self.now, Start { layout, wanted });
                }
                ReceiverEvent::Block { block, .. } => {
                    self.receiver
                        .handle_verdict(self.now, Verdict::Accepted(*block));
                }
                ReceiverEvent::Settle => {
                    self.receiver.handle_verdict(self.now, Verdict::Settled);
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    /// A datagram of somebody else arrives at the machine.
    pub(super) fn inject(&mut self, datagram: &[u8]) {
        let (from_sender, _) = addresses();
        self.receiver
            .handle_datagram(self.now, from_sender, datagram);
        self.listen();
    }

    /// Whether the machine knows how the payload is cut.
    pub(super) fn has_begun(&self) -> bool {
        self.events
            .iter()
            .any(|event| matches!(event, ReceiverEvent::Preamble(_)))
    }
}

/// A data datagram with a right checksum.
pub(super) fn data(session: u32, sequence: u32, block: u32, symbol: u16, bytes: &[u8]) -> Vec<u8> {
    sealed(data_body(0, session, sequence, block, symbol, bytes))
}

/// The same without an end.
pub(super) fn data_body(
    flags: u8,
    session: u32,
    sequence: u32,
    block: u32,
    symbol: u16,
    bytes: &[u8],
) -> Vec<u8> {
    let mut out = vec![0x11, flags];
    out.extend_from_slice(&session.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&block.to_be_bytes());
    out.extend_from_slice(&symbol.to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

/// The datagram with its checksum behind it.
pub(super) fn sealed(mut datagram: Vec<u8>) -> Vec<u8> {
    let crc = tests::sim::crc32(&datagram);
    datagram.extend_from_slice(&crc.to_be_bytes());
    datagram
}
