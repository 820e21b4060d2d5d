//! A session small enough to be fuzzed: one sender, one receiver, and steps read from bytes.

use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{
    Announce, BlockId, Data, Instant, Kind, Layout, ObjectId, Receiver, ReceiverConfig,
    ReceiverEvent, Rate, ReedSolomon, Report, Sender, SenderConfig, SenderEvent, SigningKey, Start,
    StartRule, Verdict,
};

/// What the receiver holds at most: open blocks and early datagrams.
const MAX_HELD_BYTES: usize = (24 + 4) << 20;
/// Blocks a receiver lacks at most: those of the longest preamble that the sender's key could sign.
const MAX_LACKING: u32 = 128;
/// Machines a sender knows at most.
const MAX_MACHINES: usize = 4096;
/// Rounds of a recorded session: it is done long before.
#[allow(dead_code)]
const ROUNDS: usize = 60;
const BLOCK_BYTES: [u32; 6] = [700, 1, 512, 513, 5000, 2000];

/// What a step does with its bytes.
#[derive(Clone, Copy)]
pub enum Step {
    /// A datagram to the receiver.
    ToReceiver,
    /// A datagram to the sender.
    ToSender,
    /// To the receiver, with checksum or signature made right.
    MendedToReceiver,
    /// To the sender, with the checksum made right.
    MendedToSender,
    /// Time passes: as many milliseconds as the first byte says, times 16.
    Wait,
    /// The sink has a word on the block of the first byte; the second says which.
    Verdict,
}

impl Step {
    /// The same step, with checksum or signature made right.
    #[allow(dead_code)]
    pub fn mended(self) -> Step {
        match self {
            Step::ToReceiver => Step::MendedToReceiver,
            Step::ToSender => Step::MendedToSender,
            other => other,
        }
    }
}

const STEPS: [Step; 6] = [
    Step::ToReceiver,
    Step::ToSender,
    Step::MendedToReceiver,
    Step::MendedToSender,
    Step::Wait,
    Step::Verdict,
];

/// Appends a step to an input.
#[allow(dead_code)]
pub fn write_step(step: Step, bytes: &[u8], input: &mut Vec<u8>) {
    input.push(step as u8);
    input.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    input.extend_from_slice(bytes);
}

/// What parses is written again as the same bytes.
#[allow(dead_code)]
pub fn round_trip(datagram: &[u8]) {
    let mut again = Vec::new();
    match Kind::of(datagram) {
        Ok(Kind::Data) => match Data::parse(datagram) {
            Ok(data) => data.pack(&mut again),
            Err(_) => return,
        },
        Ok(Kind::Announce) => match Announce::parse(datagram) {
            Ok(announce) => announce.pack(&key(), &mut again),
            Err(_) => return,
        },
        // Names are stripped of what may steer a terminal, so only their absence comes back alike.
        Ok(Kind::Report) => match Report::parse(datagram) {
            Ok(report) if report.name.is_empty() && datagram[70] == 0 => report.pack(&mut again),
            _ => return,
        },
        Err(_) => return,
    }
    let signature = if matches!(Kind::of(datagram), Ok(Kind::Announce)) {
        64
    } else {
        0
    };
    assert_eq!(again.len(), datagram.len());
    assert_eq!(
        again[..again.len() - signature],
        datagram[..datagram.len() - signature]
    );
}

pub struct Stage {
    now: Instant,
    sender: Sender,
    receiver: Receiver,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32])
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn layout() -> Layout {
    Layout::new(BLOCK_BYTES.to_vec()).expect("a small layout is one")
}

impl Stage {
    pub fn new() -> Stage {
        let config = SenderConfig {
            session: 77,
            object_id: ObjectId(*blake3::hash(&[9; 1300]).as_bytes()),
            signing_key: key(),
            seal: None,
            reply_to: None,
            symbol_bytes: 512,
            rate: Rate::Fixed(100_000_000),
            start: StartRule {
                receivers: 1,
                wait: Duration::from_secs(1),
            },
            linger: Duration::from_secs(1),
        };
        let sender = Sender::new(
            Instant::ZERO,
            config,
            &[9; 1300],
            layout(),
            ReedSolomon::new(),
        );
        let mut draws = 0;
        let config = ReceiverConfig {
            id: 7,
            name: String::from("stage"),
            session: Some(77),
            verify_key: Some(key().verify_key()),
            membership: None,
            object_id: None,
            silence: Duration::from_secs(60),
            chance: Box::new(move || {
                draws += 1;
                draws
            }),
        };
        let receiver = Receiver::new(Instant::ZERO, config, ReedSolomon::new());
        Stage {
            now: Instant::ZERO,
            sender: sender.expect("a small session"),
            receiver,
        }
    }

    /// Does every step of `input`; what is cut off at its end is left out.
    #[allow(dead_code)]
    pub fn play(&mut self, mut input: &[u8]) {
        while let Some(([kind, high, low], rest)) = input.split_first_chunk::<3>() {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (bytes, rest) = rest.split_at(length);
            self.step(STEPS[usize::from(*kind) % STEPS.len()], bytes);
            self.settle();
            input = rest;
        }
    }

    /// Plays an undisturbed session and returns every step of it.
    #[allow(dead_code)]
    pub fn record(&mut self) -> Vec<(Step, Vec<u8>)> {
        let mut record = Vec::new();
        for _ in 0..ROUNDS {
            let mut steps = Vec::new();
            let mut out = Vec::new();
            while self.sender.poll_transmit(self.now, &mut out).is_some() {
                steps.push((Step::ToReceiver, std::mem::take(&mut out)));
            }
            while self.receiver.poll_transmit(self.now, &mut out).is_some() {
                steps.push((Step::ToSender, std::mem::take(&mut out)));
            }
            steps.extend((0..BLOCK_BYTES.len()).map(|at| (Step::Verdict, vec![at as u8, 0])));
            steps.push((Step::Verdict, vec![0, 2]));
            for (step, bytes) in &steps {
                self.step(*step, bytes);
                self.settle();
            }
            record.append(&mut steps);
            // Time passes without a step here: one would swallow what the sender says.
            self.now = self.now.after(Duration::from_millis(16));
            self.sender.handle_timeout(self.now);
            self.receiver.handle_timeout(self.now);
            record.push((Step::Wait, vec![1]));
        }
        record
    }

    fn step(&mut self, step: Step, bytes: &[u8]) {
        let at = |index: usize| bytes.get(index).copied().unwrap_or(0);
        match step {
            Step::ToReceiver => self.receiver.handle_datagram(self.now, address(1), bytes),
            Step::ToSender => self.sender.handle_datagram(self.now, address(2), bytes),
            Step::MendedToReceiver => {
                self.receiver
                    .handle_datagram(self.now, address(1), &mended(bytes));
            }
            Step::MendedToSender => {
                self.sender
                    .handle_datagram(self.now, address(2), &mended(bytes));
            }
            Step::Wait => {
                self.now = self.now.after(Duration::from_millis(u64::from(at(0)) * 16));
                self.sender.handle_timeout(self.now);
                self.receiver.handle_timeout(self.now);
                let mut out = Vec::new();
                for _ in 0..32 {
                    self.sender.poll_transmit(self.now, &mut out);
                }
                self.receiver.poll_transmit(self.now, &mut out);
            }
            Step::Verdict => {
                let block = BlockId(u32::from(at(0)));
                let verdict = match at(1) % 3 {
                    0 => Verdict::Accepted(block),
                    1 => Verdict::Rejected(block),
                    _ => Verdict::Settled,
                };
                self.receiver.handle_verdict(self.now, verdict);
            }
        }
    }

    /// Does what the two ask for, and checks their bounds.
    fn settle(&mut self) {
        self.receiver.set_pressure(0, true, 0);
        while let Some(event) = self.receiver.poll_event() {
            match event {
                ReceiverEvent::Preamble(_) => {
                    let wanted = vec![true, true, true, false, true, true];
                    self.receiver.begin(
                        self.now,
                        Start {
                            layout: layout(),
                            wanted,
                        },
                    );
                }
                ReceiverEvent::Block { block, payload } => {
                    assert_eq!(payload.len() as u32, BLOCK_BYTES[block.0 as usize]);
                    self.receiver.set_pressure(0, true, 0);
                }
                _ => {}
            }
        }
        while let Some(event) = self.sender.poll_event() {
            if let SenderEvent::NeedBlock(block) = event {
                let payload = vec![3; BLOCK_BYTES[block.0 as usize] as usize];
                self.sender
                    .provide(block, payload)
                    .expect("the length is right");
            }
        }
        assert!(self.receiver.held_bytes() <= MAX_HELD_BYTES);
        assert!(self.receiver.lacking() <= MAX_LACKING);
        assert!(self.sender.receivers(self.now).len() <= MAX_MACHINES);
    }
}

/// The datagram with a right signature, if it looks like an announce, or else a right checksum.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut mended = Vec::new();
    if let Ok(Kind::Announce) = Kind::of(bytes)
        && let Ok(announce) = Announce::peek(bytes)
    {
        let key = key();
        Announce {
            verify_key: key.verify_key(),
            ..announce
        }
        .pack(&key, &mut mended);
        return mended;
    }
    mended.extend_from_slice(&bytes[..bytes.len().saturating_sub(4)]);
    let checksum = crc32fast::hash(&mended);
    mended.extend_from_slice(&checksum.to_be_bytes());
    mended
}
