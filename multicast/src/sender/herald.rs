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
/// Acknowledgements that wait for an announce, at most: the rest asks again.
const MAX_ACK_QUEUE: usize = 1024;

#[derive(Debug)]
pub(super) struct Herald {
    due: Instant,
    number: u32,
    acks: VecDeque<u64>,
}

impl Herald {
    /// The first announce is due at `now`.
    pub(super) fn new(now: Instant) -> Herald {
        Herald {
            due: now,
            number: 0,
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

    /// The DONE of machine `id` has arrived.
    pub(super) fn acknowledge(&mut self, now: Instant, id: u64) {
        if self.acks.len() < MAX_ACK_QUEUE && !self.acks.contains(&id) {
            self.acks.push_back(id);
        }
        self.due = self.due.min(now.after(ACKNOWLEDGE_WITHIN));
    }

    /// An announce goes out at `now`: its number, and the machines it acknowledges.
    pub(super) fn announce(&mut self, now: Instant, farewell: bool) -> (u32, Vec<u64>) {
        self.number += 1;
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
    fn a_room_that_is_done_at_once_is_acknowledged_within_moments() {
        let mut herald = Herald::new(Instant::ZERO);
        herald.announce(Instant::ZERO, false);
        let now = Instant::from_micros(50_000);
        (0..40).for_each(|id| herald.acknowledge(now, id));
        herald.acknowledge(now, 3);
        assert_eq!(herald.due(), now.after(ACKNOWLEDGE_WITHIN));
        let (number, acked) = herald.announce(herald.due(), false);
        assert_eq!((number, acked), (2, (0..32).collect()));
        let (_, acked) = herald.announce(herald.due(), false);
        assert_eq!(acked, (32..40).collect::<Vec<u64>>());
    }
}
