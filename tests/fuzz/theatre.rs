//! A session on a stage: one sender, two machines with their sinks, and the air between them.
//!
//! Whoever holds the script says what happens next: which datagram arrives, when time passes, what a
//! sink decides. The theatre checks after every act that what must never happen has not happened, and
//! [`fair_end`](Theatre::fair_end) lets the rest of the session pass without mischief and demands that
//! it ends, with everything where it belongs.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, Membership, ObjectId, Phase, Rate, ReceiverInfo, ReedSolomon, Sender,
    SenderConfig, SenderEvent, SenderSeal, SessionKey, SigningKey, StartRule, Suite,
};

use crate::machine::{BLOCK_BYTES, Excuses, Machine, layout, preamble, truth};

/// Open blocks and early datagrams of a machine, at most.
const MAX_HELD_BYTES: usize = (24 + 4) << 20;
/// Blocks the sender may have asked for and not been given.
const MAX_ASKED: usize = 8;
/// Machines of the room.
pub const MACHINES: usize = 2;
/// Datagrams the air holds; older ones are lost.
pub const AIR: usize = 256;
const SYMBOL_BYTES: u16 = 512;
/// Header of a data datagram.
const DATA_HEADER: usize = 16;
/// The kind of a datagram, in the lower half of its first byte.
const DATA: u8 = 1;
/// Steps of a fair end: a hundred times what any session took.
const FAIR_STEPS: usize = 20_000;
/// Datagrams that may leave at one moment before somebody must have gone mad.
const MOMENT: usize = 5000;

pub struct Theatre {
    pub now: Instant,
    pub sender: Sender,
    pub machines: Vec<Machine>,
    /// Towards the group.
    pub air: VecDeque<Vec<u8>>,
    /// Towards the sender, with the number of the machine.
    pub reports: VecDeque<(usize, Vec<u8>)>,
    pub excuses: Excuses,
    pub sealed: bool,
    /// The stranger makes checksums right.
    pub forger: bool,
    /// Numbers of the machines that the sender has heard and not given up.
    served: BTreeSet<u64>,
    /// At some time nobody was left to serve: the session may be ending, and who joins then comes too late.
    was_idle: bool,
    asked: Vec<BlockId>,
    next_sequence: u32,
    finished: bool,
}

pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

impl Theatre {
    /// A session before its first word, sealed or not.
    pub fn new(sealed: bool) -> Theatre {
        let key = SessionKey::from_bytes([8; 32]);
        let seal = || {
            let (secret, suite) = (key.report_secret(), Suite::Aes256Gcm);
            SenderSeal::with_salt(SessionKey::from_bytes([8; 32]), secret, suite, [3; 16])
        };
        let config = SenderConfig {
            session: 77,
            object_id: ObjectId(*blake3::hash(&preamble()).as_bytes()),
            signing_key: SigningKey::from_seed(&[5; 32]),
            seal: sealed.then(seal),
            reply_to: None,
            symbol_bytes: SYMBOL_BYTES,
            rate: Rate::Fixed(100_000_000),
            start: StartRule {
                receivers: 1,
                wait: Duration::from_millis(50),
            },
            linger: Duration::from_millis(50),
        };
        let now = Instant::ZERO;
        let sender = Sender::new(now, config, &preamble(), layout(), ReedSolomon::new());
        let wanted = [vec![true; 5], vec![true, false, true, false, true]];
        Theatre {
            now,
            sender: sender.expect("a small session"),
            machines: wanted
                .into_iter()
                .enumerate()
                .map(|(at, wanted)| {
                    let membership = sealed.then(|| Membership::of_key(&key));
                    Machine::new(at, now, wanted, membership)
                })
                .collect(),
            air: VecDeque::new(),
            reports: VecDeque::new(),
            excuses: Excuses::default(),
            sealed,
            forger: false,
            served: BTreeSet::new(),
            was_idle: false,
            asked: Vec::new(),
            next_sequence: 0,
            finished: false,
        }
    }

    /// The sender says up to `count` datagrams; returns how many it had.
    pub fn transmit(&mut self, count: usize) -> usize {
        for sent in 0..count {
            let mut out = Vec::new();
            if self.sender.poll_transmit(self.now, &mut out).is_none() {
                return sent;
            }
            assert!(!self.finished, "a datagram after the last one");
            self.check_data(&out);
            if self.air.len() == AIR {
                self.air.pop_front();
            }
            self.air.push_back(out);
        }
        count
    }

    /// What the sender says of the payload must be the truth, under the next number.
    fn check_data(&mut self, datagram: &[u8]) {
        if datagram[0] & 15 != DATA {
            return;
        }
        let field =
            |at: usize| u32::from_be_bytes(datagram[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(field(6), self.next_sequence);
        self.next_sequence = self.next_sequence.wrapping_add(1);
        if self.sealed {
            let tag = 16;
            assert_eq!(
                datagram.len(),
                DATA_HEADER + usize::from(SYMBOL_BYTES) + tag
            );
            return;
        }
        assert_eq!(datagram.len(), DATA_HEADER + usize::from(SYMBOL_BYTES) + 4);
        let block = BlockId(field(10));
        let symbol = usize::from(u16::from_be_bytes([datagram[14], datagram[15]]));
        let whole = match block.is_preamble() {
            true => preamble(),
            false => truth(block),
        };
        let from = symbol * usize::from(SYMBOL_BYTES);
        if from < whole.len() {
            let part = &whole[from..whole.len().min(from + usize::from(SYMBOL_BYTES))];
            assert_eq!(&datagram[DATA_HEADER..DATA_HEADER + part.len()], part);
        }
    }

    /// A machine says what it has to say.
    pub fn report(&mut self, number: usize) {
        let mut out = Vec::new();
        for said in 0.. {
            assert!(said < MOMENT, "a machine that does not stop talking");
            let machine = &mut self.machines[number];
            if machine.receiver.poll_transmit(self.now, &mut out).is_none() {
                break;
            }
            assert!(!machine.over, "a report after the last event");
            if self.reports.len() == AIR {
                self.reports.pop_front();
            }
            self.reports.push_back((number, std::mem::take(&mut out)));
        }
    }

    /// Time passes; everybody does what is due.
    pub fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.sender.handle_timeout(self.now);
        let heard = self.sender.receivers(self.now);
        let idle = |info: &ReceiverInfo| info.gone || info.phase == Phase::Done;
        self.was_idle |= !heard.is_empty() && heard.iter().all(idle);
        for machine in &mut self.machines {
            machine.receiver.handle_timeout(self.now);
        }
    }

    /// Takes what the sender has to say to its driver.
    pub fn take_sender_events(&mut self) {
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::NeedBlock(block) => {
                    assert!(!self.asked.contains(&block), "{block:?} is asked for twice");
                    self.asked.push(block);
                    assert!(self.asked.len() <= MAX_ASKED);
                }
                SenderEvent::Joined { id, .. } if !self.was_idle => {
                    self.served.insert(id);
                }
                SenderEvent::Lost { id, .. } => drop(self.served.remove(&id)),
                SenderEvent::Finished => self.finished = true,
                _ => {}
            }
        }
    }

    /// Gives the sender a block it asked for, first in a length it does not have.
    pub fn provide(&mut self, which: usize) {
        if self.asked.is_empty() {
            return;
        }
        let block = self.asked.remove(which % self.asked.len());
        let wrong = self
            .sender
            .provide(block, vec![0; BLOCK_BYTES[block.0 as usize] as usize + 1]);
        assert!(wrong.is_err());
        self.sender
            .provide(block, truth(block))
            .expect("the length is right");
    }

    /// What must hold after every act.
    pub fn check(&self) {
        for machine in &self.machines {
            assert!(machine.receiver.held_bytes() <= MAX_HELD_BYTES);
            assert!(machine.receiver.lacking() as usize <= BLOCK_BYTES.len() || !machine.begun);
            if machine.over {
                assert_eq!(machine.receiver.poll_timeout(), None);
            }
        }
    }

    /// Nobody makes mischief any more: the session ends, and every machine has what it wants.
    pub fn fair_end(&mut self) {
        let excuses = self.excuses;
        for machine in &mut self.machines {
            machine.press(0, false, 0);
            while machine.take_event(excuses) {}
            machine.lost_before = machine.over;
        }
        for _ in 0..FAIR_STEPS {
            self.take_sender_events();
            while !self.asked.is_empty() {
                self.provide(0);
            }
            let sent = self.transmit(64);
            let everybody: Vec<Vec<u8>> = self.air.drain(..).collect();
            for number in 0..MACHINES {
                for datagram in &everybody {
                    self.machines[number]
                        .receiver
                        .handle_datagram(self.now, address(1), datagram);
                }
                self.serve_fairly(number, excuses);
                self.report(number);
            }
            for (number, report) in std::mem::take(&mut self.reports) {
                self.sender
                    .handle_datagram(self.now, address(100 + number as u16), &report);
            }
            self.check();
            // Who never heard of the session looks for it for ever.
            let out = |machine: &Machine| machine.over || !machine.joined;
            if self.finished && self.machines.iter().all(out) {
                return self.judge_the_end();
            }
            // All broke down before the sender heard of any: it would wait, until somebody ends it.
            let deserted = self.machines.iter().all(|machine| machine.over);
            if deserted && self.sender.receivers(self.now).is_empty() {
                self.sender.end(self.now);
            }
            let due = self
                .machines
                .iter()
                .filter_map(|machine| machine.receiver.poll_timeout());
            let next = due.chain(self.sender.poll_timeout()).min();
            let idle = next.map_or(Duration::from_millis(1), |next| next.since(self.now));
            self.wait(if sent > 0 {
                Duration::from_micros(500)
            } else {
                idle.max(Duration::from_micros(500))
            });
        }
        let lacking: Vec<u32> = self.machines.iter().map(|m| m.receiver.lacking()).collect();
        panic!(
            "the session does not end: {lacking:?} lacking, {:?}",
            self.sender
        );
    }

    fn serve_fairly(&mut self, number: usize, excuses: Excuses) {
        let now = self.now;
        let machine = &mut self.machines[number];
        for took in 0.. {
            assert!(took < MOMENT, "events do not end");
            machine.press(0, true, 0);
            if !machine.take_event(excuses) {
                break;
            }
            machine.survey(now);
            machine.judge(now, 0, false);
            machine.settle(now, None);
        }
        // What was left from before.
        machine.survey(now);
        machine.judge(now, 0, false);
        machine.settle(now, None);
    }

    fn judge_the_end(&self) {
        for (number, machine) in self.machines.iter().enumerate() {
            // A session ends without those it never heard, or has not heard for long.
            let served = self.served.contains(&(1 + number as u64));
            let excused =
                self.excuses.forged_reports || self.excuses.ended || !served || machine.lost_before;
            assert!(
                machine.complete || excused,
                "machine {number} did not finish"
            );
            assert!(!machine.gave_up || excused);
        }
    }
}
