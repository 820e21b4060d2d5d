//! One machine of a crowd: a real receiver, and a disk that is a row of flags and a speed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, Layout, Receiver, ReceiverConfig, ReceiverEvent, Start, Verdict,
};

use super::super::chance::Chance;
use super::counting::Counting;
use super::losses::Losses;
use super::plan::Seat;

/// Blocks its disk takes before it has no room: 16 MB of real ones.
const DISK_QUEUE: usize = 11;
/// First byte of an announce.
const ANNOUNCE: u8 = 0x12;
/// A moment that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// What every machine knows of the session.
pub(super) struct Briefing {
    pub(super) layout: Layout,
    /// Bytes of a block on a real disk.
    pub(super) block_bytes: u64,
    pub(super) sender: SocketAddr,
}

/// The datagrams of one slot, as they arrive.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) bytes: Vec<u8>,
    /// Where each begins and ends, and when it arrives in microseconds.
    pub(super) datagrams: Vec<(u32, u32, u64)>,
}

impl Slot {
    /// Which of them are announces.
    pub(super) fn announces(&self) -> u64 {
        let datagrams = self.datagrams.iter().enumerate();
        let announces = datagrams.filter(|(_, (from, ..))| self.bytes[*from as usize] == ANNOUNCE);
        announces.fold(0, |set, (at, _)| set | 1 << at)
    }
}

/// A report on its way.
pub(super) struct Sent {
    pub(super) at: u64,
    pub(super) member: u32,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Member {
    pub(super) seat: Seat,
    pub(super) losses: Losses,
    /// When it wants to be looked at again, in microseconds.
    pub(super) wake: u64,
    pub(super) complete: bool,
    number: u32,
    chance: Chance,
    receiver: Option<Receiver<Counting>>,
    lacks: Vec<bool>,
    /// Blocks its disk is writing, and when each will be written.
    writing: VecDeque<(BlockId, u64)>,
    clock: Clock,
}

impl Member {
    pub(super) fn new(number: u32, seat: Seat, blocks: u32, chance: Chance) -> Member {
        let mut dice = chance.fork(1);
        Member {
            losses: Losses::new(seat.loss, seat.bursts, chance.fork(2)),
            wake: micros(seat.on_at),
            complete: false,
            number,
            receiver: None,
            lacks: vec![true; blocks as usize],
            writing: VecDeque::new(),
            clock: Clock {
                origin: dice.range(0, 1_000_000_000),
                ppm: i64::from(seat.skew_ppm),
            },
            chance,
            seat,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.receiver.is_some()
    }

    /// On at `now`, as anew; what its disk has stays.
    pub(super) fn power_on(&mut self, now: u64) {
        let mut dice = self.chance.fork(3 + now);
        let config = ReceiverConfig {
            id: dice.draw(),
            name: format!("m{:05}", self.number),
            session: None,
            verify_key: None,
            membership: None,
            object_id: None,
            silence: Duration::from_secs(60),
            chance: Box::new(move || dice.draw() as u32),
        };
        self.receiver = Some(Receiver::new(self.clock.local(now), config, Counting));
        self.wake = NEVER;
    }

    /// Off at `now`; what its disk was writing is lost.
    pub(super) fn power_off(&mut self, back_at: u64) {
        self.receiver = None;
        self.writing.clear();
        self.wake = back_at;
    }

    /// Plays the slot that ends at `until`: takes those datagrams of `slot` that `lost` does not name, and does what
    /// is due. Reports go to `out`.
    pub(super) fn play(
        &mut self,
        until: u64,
        slot: &Slot,
        lost: u64,
        briefing: &Briefing,
        out: &mut Vec<Sent>,
    ) {
        let Some(receiver) = &mut self.receiver else {
            return;
        };
        for (at, &(from, to, arrives)) in slot.datagrams.iter().enumerate() {
            if lost >> at & 1 == 0 {
                let datagram = &slot.bytes[from as usize..to as usize];
                receiver.handle_datagram(self.clock.local(arrives), briefing.sender, datagram);
            }
        }
        self.listen(until, briefing);
        loop {
            let Some(receiver) = &mut self.receiver else {
                return;
            };
            let due = receiver.poll_timeout();
            let due = due.map_or(NEVER, |due| self.clock.global(due));
            if due >= until {
                let written = self.writing.front().map_or(NEVER, |&(_, at)| at);
                self.wake = due.min(written);
                return;
            }
            // What was due in a slot long over is done in this one.
            let now = due.max(self.wake.min(until - 1));
            let local = self.clock.local(now);
            receiver.handle_timeout(local);
            let mut bytes = Vec::new();
            while receiver.poll_transmit(local, &mut bytes).is_some() {
                let (member, bytes) = (self.number, std::mem::take(&mut bytes));
                out.push(Sent {
                    at: now,
                    member,
                    bytes,
                });
            }
            self.listen(until, briefing);
        }
    }

    /// Takes what the receiver has to tell, and gives it the verdicts of the disk.
    fn listen(&mut self, now: u64, briefing: &Briefing) {
        let local = self.clock.local(now);
        while let Some(receiver) = &mut self.receiver {
            while self.writing.front().is_some_and(|&(_, at)| at <= now) {
                let written = self.writing.pop_front();
                let block = written.expect("it was looked at").0;
                self.lacks[block.index() as usize] = false;
                receiver.handle_verdict(local, Verdict::Accepted(block));
            }
            let backlog = self.writing.len() as u64 * briefing.block_bytes;
            receiver.set_pressure(backlog, self.writing.len() < DISK_QUEUE, 0);
            match receiver.poll_event() {
                None => return,
                Some(ReceiverEvent::Preamble(_)) => {
                    let start = Start {
                        layout: briefing.layout.clone(),
                        wanted: self.lacks.clone(),
                    };
                    receiver.begin(local, start);
                }
                Some(ReceiverEvent::Block { block, .. }) => {
                    let begins = self.writing.back().map_or(now, |&(_, at)| at);
                    let takes = self.seat.disk.map_or(0, |disk| {
                        briefing.block_bytes.saturating_mul(1_000_000) / disk.max(1)
                    });
                    self.writing.push_back((block, begins + takes));
                }
                Some(ReceiverEvent::Settle) => receiver.handle_verdict(local, Verdict::Settled),
                Some(ReceiverEvent::Complete) => self.complete = true,
                Some(ReceiverEvent::Finished | ReceiverEvent::Failed(_)) => {
                    self.receiver = None;
                    self.wake = NEVER;
                }
                Some(_) => {}
            }
        }
    }
}

/// A clock that began at some time of its own and goes wrong.
#[derive(Clone, Copy, Debug)]
struct Clock {
    origin: u64,
    ppm: i64,
}

impl Clock {
    /// What it shows at the moment `at`.
    fn local(&self, at: u64) -> Instant {
        let drift = at as i64 * self.ppm / 1_000_000;
        Instant::from_micros(self.origin + at.saturating_add_signed(drift))
    }

    /// The first moment at which it shows `local`.
    fn global(&self, local: Instant) -> u64 {
        let gone = local.as_micros().saturating_sub(self.origin);
        if gone > 1 << 50 {
            return NEVER;
        }
        let mut at = (i128::from(gone) * 1_000_000 / i128::from(1_000_000 + self.ppm)) as u64;
        // A clock that is slow shows some moments twice.
        while at > 0 && self.local(at - 1) >= local {
            at -= 1;
        }
        while self.local(at) < local {
            at += 1;
        }
        at
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_moment_first_when_it_comes() {
        for ppm in [-5000, -3, 0, 7, 5000] {
            let clock = Clock { origin: 77, ppm };
            for at in [0, 1, 999_999, 123_456_789] {
                let shown = clock.local(at);
                let found = clock.global(shown);
                assert!(found <= at && clock.local(found) == shown, "{ppm} {at}");
            }
        }
    }
}
