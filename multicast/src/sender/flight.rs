//! What is still in flight: which sequence numbers carried symbols of which block.
//!
//! A report counts what came before a sequence number S. The symbols sent from S on are on their way
//! and must not be sent again because of it.

use std::collections::{BTreeMap, VecDeque};

use crate::wire::ahead;

/// Datagrams back to which the flight is known: some seconds at 1 Gbit/s.
const HISTORY: i32 = 1 << 18;
/// Spans kept for one block; the oldest are then taken together.
const MAX_SPANS: usize = 32;

/// Symbols of one block with sequence numbers one after the other.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    count: u32,
}

#[derive(Debug, Default)]
pub(super) struct Flight {
    spans: BTreeMap<u32, VecDeque<Span>>,
}

impl Flight {
    /// A symbol of the block at `place` was sent as `sequence`.
    pub(super) fn record(&mut self, place: u32, sequence: u32) {
        let spans = self.spans.entry(place).or_default();
        if let Some(last) = spans.back_mut()
            && last.first.wrapping_add(last.count) == sequence
        {
            last.count += 1;
            return;
        }
        spans.push_back(Span {
            first: sequence,
            count: 1,
        });
        if spans.len() > MAX_SPANS
            && let Some(oldest) = spans.pop_front()
            && let Some(next) = spans.front_mut()
        {
            // Taken together at the younger place: rather send a symbol again than never.
            next.first = next.first.wrapping_sub(oldest.count);
            next.count += oldest.count;
        }
    }

    /// Symbols of the block at `place` sent from `as_of` on.
    pub(super) fn sent_since(&self, place: u32, as_of: u32) -> u32 {
        let Some(spans) = self.spans.get(&place) else {
            return 0;
        };
        let after = |span: &Span| {
            let end = span.first.wrapping_add(span.count);
            u32::try_from(ahead(end, as_of))
                .unwrap_or(0)
                .min(span.count)
        };
        spans.iter().rev().map(after).sum()
    }

    /// Whether a report as of `as_of` can still be judged when `next` is the next sequence number.
    pub(super) fn reaches(next: u32, as_of: u32) -> bool {
        (0..=HISTORY).contains(&ahead(next, as_of))
    }

    /// Forgets what no report may ask for any more.
    pub(super) fn prune(&mut self, next: u32) {
        let young = |span: &Span| ahead(next, span.first.wrapping_add(span.count)) <= HISTORY;
        self.spans
            .retain(|_, spans| spans.back().is_some_and(young));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_from_the_moment_of_the_report_on_is_in_flight() {
        let mut flight = Flight::default();
        let start = u32::MAX - 4;
        (0..10).for_each(|at| flight.record(3, start.wrapping_add(at)));
        (10..20).for_each(|at| flight.record(4, start.wrapping_add(at)));
        (20..25).for_each(|at| flight.record(3, start.wrapping_add(at)));
        let since = |at| flight.sent_since(3, start.wrapping_add(at));
        assert_eq!(
            [since(0), since(4), since(10), since(22), since(25)],
            [15, 11, 5, 3, 0]
        );
        assert_eq!(flight.sent_since(9, start), 0);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut flight = Flight::default();
        flight.record(3, 0);
        flight.prune(HISTORY as u32);
        assert_eq!(flight.sent_since(3, 0), 1);
        flight.prune(HISTORY as u32 + 2);
        assert!(flight.spans.is_empty());
        assert!(!Flight::reaches(5, 6) && !Flight::reaches(HISTORY as u32 + 1, 0));
    }
}
