//! When each sequence number left, roughly: a report says how far it had come, and so how late it is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Instant;
use crate::wire::ahead;

/// Time between two marks.
const EVERY: Duration = Duration::from_micros(500);
/// Marks kept: two seconds of them. What is older counts as that old.
const MAX_MARKS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Trail {
    marks: VecDeque<(u32, Instant)>,
}

impl Trail {
    /// The datagram with this sequence number leaves at `now`.
    pub(super) fn mark(&mut self, now: Instant, sequence: u32) {
        let fresh = |&(_, at): &(u32, Instant)| now.since(at) >= EVERY;
        if !self.marks.back().is_none_or(fresh) {
            return;
        }
        if self.marks.len() == MAX_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((sequence, now));
    }

    /// How long before `now` the datagram `sequence`, or one shortly before it, left; zero when it has not left.
    pub(super) fn age(&self, now: Instant, sequence: u32, next: u32) -> Duration {
        if ahead(next, sequence) <= 0 {
            return Duration::ZERO;
        }
        let before = self
            .marks
            .partition_point(|&(marked, _)| ahead(marked, sequence) <= 0);
        let mark = before.checked_sub(1).and_then(|at| self.marks.get(at));
        let mark = mark.or(self.marks.front());
        mark.map_or(Duration::ZERO, |&(_, at)| now.since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_datagram_across_the_wrap() {
        let mut trail = Trail::default();
        let start = u32::MAX - 10;
        for step in 0..100_u32 {
            let now = Instant::from_micros(u64::from(step) * 1000);
            trail.mark(now, start.wrapping_add(step));
        }
        let (now, next) = (Instant::from_micros(120_000), start.wrapping_add(100));
        let age = |step: u32| trail.age(now, start.wrapping_add(step), next);
        assert_eq!(age(0), Duration::from_millis(120));
        assert_eq!(age(50), Duration::from_millis(70));
        assert_eq!(age(100), Duration::ZERO);
    }

    #[test]
    fn only_so_many_marks_are_kept() {
        let mut trail = Trail::default();
        (0..3 * MAX_MARKS as u32)
            .for_each(|step| trail.mark(Instant::from_micros(u64::from(step) * 1000), step));
        assert_eq!(trail.marks.len(), MAX_MARKS);
    }
}
