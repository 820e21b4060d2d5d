//! A session on a stage: one sender, two machines with their sinks, and the air between them.
//!
//! Whoever holds the script says what happens next: which datagram arrives, when time passes, what a
//! sink decides. The theatre checks after every act that what must never happen has not happened, and
//! [`fair_end`](Theatre::fair_end) lets the rest of the session pass without mischief and demands that
//! it ends, with everything where it belongs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, Layout, ObjectId, Rate, Receiver, ReceiverConfig, ReceiverEvent, ReedSolomon,
    Sender, SenderConfig, SenderEvent, SigningKey, Start, StartRule, Verdict,
};

/// Open blocks and early datagrams of a machine, at most.
const MAX_HELD_BYTES: usize = (24 + 4) << 20;
/// Blocks the sender may have asked for and not been given.
const MAX_ASKED: usize = 8;
/// Machines of the room.
pub const MACHINES: usize = 2;
/// Datagrams the air holds; older ones are lost.
pub const AIR: usize = 256;
/// Bytes of each block of the payload.
const BLOCK_BYTES: [u32; 5] = [700, 1, 512, 5000, 9000];
const SYMBOL_BYTES: u16 = 512;
/// Header of a data datagram.
const DATA_HEADER: usize = 16;
/// The kind of a datagram, in the lower half of its first byte.
const DATA: u8 = 1;
/// Steps of a fair end: a hundred times what any session took.
const FAIR_STEPS: usize = 20_000;
/// Datagrams that may leave at one moment before somebody must have gone mad.
const MOMENT: usize = 5000;

/// What mischief has made impossible to demand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excuses {
    /// Symbols with a right checksum were forged: a sink may be handed wrong bytes, and must notice.
    pub forged_data: bool,
    /// Reports with a right checksum were forged: the sender may believe them.
    pub forged_reports: bool,
    /// Somebody ended it before its time.
    pub ended: bool,
}

/// One machine: the receiver, and a sink that knows the truth.
pub struct Machine {
    pub receiver: Receiver,
    wanted: Vec<bool>,
    has: Vec<bool>,
    pending: Vec<(BlockId, bool)>,
    room: bool,
    surveying: bool,
    begun: bool,
    settling: bool,
    joined: bool,
    pub complete: bool,
    pub over: bool,
    gave_up: bool,
}

pub struct Theatre {
    pub now: Instant,
    pub sender: Sender,
    pub machines: Vec<Machine>,
    /// Towards the group.
    pub air: VecDeque<Vec<u8>>,
    /// Towards the sender, with the number of the machine.
    pub reports: VecDeque<(usize, Vec<u8>)>,
    pub excuses: Excuses,
    asked: Vec<BlockId>,
    next_sequence: u32,
    finished: bool,
}

fn truth(block: BlockId) -> Vec<u8> {
    let bytes = BLOCK_BYTES[block.0 as usize];
    (0..bytes)
        .map(|at| (at * 7 + at / 251 + block.0) as u8)
        .collect()
}

fn preamble() -> Vec<u8> {
    (0..1300_u32).map(|at| (at * 3) as u8).collect()
}

fn layout() -> Layout {
    Layout::new(BLOCK_BYTES.to_vec()).expect("a small layout is one")
}

pub fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

impl Machine {
    fn new(number: usize, now: Instant, wanted: Vec<bool>) -> Machine {
        let mut draws = number as u32;
        let config = ReceiverConfig {
            id: 1 + number as u64,
            name: format!("machine{number}"),
            session: Some(77),
            verify_key: None,
            object_id: None,
            silence: Duration::from_secs(30),
            chance: Box::new(move || {
                draws = draws.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                draws
            }),
        };
        Machine {
            receiver: Receiver::new(now, config, ReedSolomon::new()),
            has: vec![false; wanted.len()],
            wanted,
            pending: Vec::new(),
            room: false,
            surveying: false,
            begun: false,
            settling: false,
            joined: false,
            complete: false,
            over: false,
            gave_up: false,
        }
    }

    /// Takes one event, and checks that it may come now.
    pub fn take_event(&mut self, excuses: Excuses) -> bool {
        let Some(event) = self.receiver.poll_event() else {
            return false;
        };
        assert!(!self.over, "an event after the last one: {event:?}");
        match event {
            ReceiverEvent::Joined { session, .. } => {
                assert_eq!(session, 77);
                self.joined = true;
            }
            ReceiverEvent::Preamble(bytes) => {
                assert_eq!(bytes, preamble());
                assert!(!self.surveying && !self.begun, "the preamble comes once");
                self.surveying = true;
            }
            ReceiverEvent::Block { block, payload } => {
                let at = block.0 as usize;
                assert!(self.room, "a sink without room is handed {block:?}");
                assert!(
                    self.begun && self.wanted[at] && !self.has[at],
                    "{block:?} is not wanted"
                );
                assert!(
                    self.pending.iter().all(|(other, _)| *other != block),
                    "{block:?} twice"
                );
                let right = payload == truth(block);
                assert!(right || excuses.forged_data, "{block:?} is wrong");
                self.room = false;
                self.pending.push((block, right));
            }
            ReceiverEvent::Settle => {
                assert!(self.lacks_nothing() && !self.settling);
                self.settling = true;
            }
            ReceiverEvent::Complete => {
                assert!(self.lacks_nothing());
                self.complete = true;
            }
            ReceiverEvent::Finished => {
                assert!(self.complete);
                self.over = true;
            }
            ReceiverEvent::Failed(_) => (self.over, self.gave_up) = (true, true),
        }
        true
    }

    fn lacks_nothing(&self) -> bool {
        self.begun
            && self.pending.is_empty()
            && (0..self.wanted.len()).all(|at| self.has[at] || !self.wanted[at])
    }

    /// The sink has looked at its disk.
    pub fn survey(&mut self, now: Instant) {
        if std::mem::take(&mut self.surveying) {
            self.begun = true;
            let (layout, wanted) = (layout(), self.wanted.clone());
            self.receiver.begin(now, Start { layout, wanted });
        }
    }

    /// The sink judges a block it was handed; it may refuse a right one, but never takes a wrong one.
    pub fn judge(&mut self, now: Instant, which: usize, refuse: bool) {
        if self.pending.is_empty() {
            return;
        }
        let (block, right) = self.pending.remove(which % self.pending.len());
        let accepted = right && !refuse;
        self.has[block.0 as usize] = accepted;
        self.receiver.handle_verdict(
            now,
            match accepted {
                true => Verdict::Accepted(block),
                false => Verdict::Rejected(block),
            },
        );
    }

    /// The sink has read back: perhaps a block was written wrong.
    pub fn settle(&mut self, now: Instant, spoiled: Option<usize>) {
        if !std::mem::take(&mut self.settling) {
            return;
        }
        let owned: Vec<usize> = (0..self.has.len()).filter(|&at| self.has[at]).collect();
        if let Some(which) = spoiled.filter(|_| !owned.is_empty()) {
            let at = owned[which % owned.len()];
            self.has[at] = false;
            self.receiver
                .handle_verdict(now, Verdict::Rejected(BlockId(at as u32)));
        }
        self.receiver.handle_verdict(now, Verdict::Settled);
    }

    pub fn press(&mut self, backlog_bytes: u64, room: bool, overflow: u32) {
        self.room = room;
        self.receiver.set_pressure(backlog_bytes, room, overflow);
    }
}

impl Theatre {
    pub fn new() -> Theatre {
        let config = SenderConfig {
            session: 77,
            object_id: ObjectId(*blake3::hash(&preamble()).as_bytes()),
            signing_key: SigningKey::from_seed(&[5; 32]),
            seal: None,
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
                .map(|(at, wanted)| Machine::new(at, now, wanted))
                .collect(),
            air: VecDeque::new(),
            reports: VecDeque::new(),
            excuses: Excuses::default(),
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
        panic!("the session does not end");
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
            let excused = self.excuses.forged_reports || self.excuses.ended;
            assert!(
                machine.complete || excused,
                "machine {number} did not finish"
            );
            assert!(!machine.gave_up || excused);
        }
    }
}
