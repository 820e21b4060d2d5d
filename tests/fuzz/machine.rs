//! One machine of the theatre: a receiver, and a sink that knows the truth and checks what it is handed.

use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, Layout, Membership, Receiver, ReceiverConfig, ReceiverEvent, ReedSolomon,
    Start, Verdict,
};

/// Bytes of each block of the payload.
pub const BLOCK_BYTES: [u32; 5] = [700, 1, 512, 5000, 9000];

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
    pub begun: bool,
    settling: bool,
    pub joined: bool,
    pub complete: bool,
    pub over: bool,
    pub gave_up: bool,
    /// It heard nothing for so long that it gave up, before the weather became fair.
    pub lost_before: bool,
}

/// The payload of a block.
pub fn truth(block: BlockId) -> Vec<u8> {
    let bytes = BLOCK_BYTES[block.0 as usize];
    (0..bytes)
        .map(|at| (at * 7 + at / 251 + block.0) as u8)
        .collect()
}

/// What comes before the payload.
pub fn preamble() -> Vec<u8> {
    (0..1300_u32).map(|at| (at * 3) as u8).collect()
}

pub fn layout() -> Layout {
    Layout::new(BLOCK_BYTES.to_vec()).expect("a small layout is one")
}

impl Machine {
    pub fn new(
        number: usize,
        now: Instant,
        wanted: Vec<bool>,
        membership: Option<Membership>,
    ) -> Machine {
        let mut draws = number as u32;
        let config = ReceiverConfig {
            id: 1 + number as u64,
            name: format!("machine{number}"),
            // Who has a key need not be told the session: an old one does not get far.
            session: Some(77).filter(|_| membership.is_none() || number > 0),
            verify_key: None,
            membership,
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
            lost_before: false,
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
