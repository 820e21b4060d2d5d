//! When the next announce is due, and whose DONE it acknowledges.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::wire::MAX_ACKED;

/// Time between announces.
const EVERY: Duration = Duration::from_millis(100);
/// Time between the announces that say the session is over.
const FAREWELL_EVERY: Duration = Duration::from_millis(50);
/// An acknowledgement does not wait longer than this.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(5);
/// A report that has heard no announce of the last so many seconds, up to twice that, is an old one sent again.
const FRESH: Duration = Duration::from_secs(8);
/// What was promised because of a report is told within this time, before others ask for the same.
const PROMISE_WITHIN: Duration = Duration::from_millis(3);
/// The end of a block is told when the last announce is so old.
const BLOCK_END_EVERY: Duration = Duration::from_millis(10);
/// Acknowledgements that wait for an announce, at most: the rest asks again.
const MAX_ACK_QUEUE: usize = 1024;

#[derive(Debug)]
pub(super) struct Herald {
    due: Instant,
    /// When the last announce went out, and the sequence number it gave.
    last: Instant,
    sequence: u32,
    number: u32,
    /// Numbers of announces of some time ago, the older first, and when the younger was taken.
    marks: (u32, u32),
    marked: Instant,
    acks: VecDeque<u64>,
}

impl Herald {
    /// The first announce is due at `now`.
    pub(super) fn new(now: Instant) -> Herald {
        Herald {
            due: now,
            last: now,
            sequence: 0,
            number: 0,
            marks: (0, 0),
            marked: now,
            acks: VecDeque::new(),
        }
    }

    /// When the next announce is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The next announce is due at `now`, whatever was planned.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// A report has led to a promise.
    pub(super) fn promise(&mut self, now: Instant) {
        self.due = self.due.min(now.after(PROMISE_WITHIN));
    }

    /// All that is owed of a block was sent: whoever lacks some of it after the next announce may ask.
    pub(super) fn block_sent(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.last.after(BLOCK_END_EVERY)));
    }

    /// Nothing is left to be sent after `sequence`.
    pub(super) fn run_dry(&mut self, now: Instant, sequence: u32) {
        if sequence != self.sequence {
            self.due = self.due.min(now.max(self.last.after(PROMISE_WITHIN)));
        }
    }

    /// Number of the last announce.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Whether a report that echoes this announce may be of now.
    pub(super) fn is_fresh(&self, echo: u32) -> bool {
        (self.marks.0..=self.number).contains(&echo)
    }

    /// A report of machine `id` has arrived that is to be acknowledged.
    pub(super) fn acknowledge(&mut self, now: Instant, id: u64) {
        if self.acks.len() < MAX_ACK_QUEUE && !self.acks.contains(&id) {
            self.acks.push_back(id);
        }
        self.due = self.due.min(now.after(ACKNOWLEDGE_WITHIN));
    }

    /// An announce goes out at `now`: its number, and the machines it acknowledges.
    pub(super) fn announce(
        &mut self,
        now: Instant,
        sequence: u32,
        farewell: bool,
    ) -> (u32, Vec<u64>) {
        (self.last, self.sequence) = (now, sequence);
        // At two hundred a second they last for eight months.
        self.number = self.number.saturating_add(1);
        if now.since(self.marked) >= FRESH {
            self.marks = (self.marks.1, self.number);
            self.marked = now;
        }
        let acked = self.acks.drain(..self.acks.len().min(MAX_ACKED)).collect();
        self.due = now.after(match (self.acks.is_empty(), farewell) {
            (false, _) => ACKNOWLEDGE_WITHIN,
            (true, true) => FAREWELL_EVERY,
            (true, false) => EVERY,
        });
        (self.number, acked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_long_ago_is_not_fresh() {
        let mut herald = Herald::new(Instant::ZERO);
        for tenth in 0..=200 {
            herald.announce(Instant::from_micros(tenth * 100_000), 0, false);
        }
        assert!(herald.is_fresh(201) && herald.is_fresh(201 - 80));
        assert!(!herald.is_fresh(202), "nobody heard it yet");
        assert!(!herald.is_fresh(201 - 160));
    }

    #[test]
    fn a_room_that_is_done_at_once_is_acknowledged_within_moments() {
        let mut herald = Herald::new(Instant::ZERO);
        herald.announce(Instant::ZERO, 0, false);
        let now = Instant::from_micros(50_000);
        (0..40).for_each(|id| herald.acknowledge(now, id));
        herald.acknowledge(now, 3);
        assert_eq!(herald.due(), now.after(ACKNOWLEDGE_WITHIN));
        let (number, acked) = herald.announce(herald.due(), 0, false);
        assert_eq!((number, acked), (2, (0..32).collect()));
        let (_, acked) = herald.announce(herald.due(), 0, false);
        assert_eq!(acked, (32..40).collect::<Vec<u64>>());
    }

    #[test]
    fn the_end_of_the_flow_is_told_at_once_and_only_once() {
        let mut herald = Herald::new(Instant::ZERO);
        herald.announce(Instant::ZERO, 0, false);
        let now = Instant::from_micros(50_000);
        herald.run_dry(now, 7);
        assert_eq!(herald.due(), now);
        herald.announce(now, 7, false);
        herald.run_dry(now, 7);
        assert_eq!(herald.due(), now.after(EVERY));
    }

    #[test]
    fn blocks_that_end_in_a_row_are_told_together() {
        let mut herald = Herald::new(Instant::ZERO);
        herald.announce(Instant::ZERO, 0, false);
        herald.block_sent(Instant::from_micros(1000));
        herald.block_sent(Instant::from_micros(2000));
        assert_eq!(herald.due(), Instant::ZERO.after(BLOCK_END_EVERY));
    }
}
