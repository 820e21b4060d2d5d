//! The narrowest place on the way: a link with a buffer, behind which everybody sits.

use std::collections::VecDeque;

use super::member::Slot;
use super::plan::Bottleneck;

/// What is on its way through it.
pub(super) struct Pipe {
    narrow: Bottleneck,
    /// When what waits will have passed, in nanoseconds.
    free: u64,
    /// Datagrams with the microsecond in which each arrives.
    line: VecDeque<(u64, Vec<u8>)>,
}

impl Pipe {
    pub(super) fn new(narrow: Bottleneck) -> Pipe {
        Pipe {
            narrow,
            free: 0,
            line: VecDeque::new(),
        }
    }

    /// A datagram of `wire_bytes` comes to it at `now` and, unless the buffer is full, arrives `delay` after it has
    /// passed; both in microseconds.
    pub(super) fn push(&mut self, now: u64, delay: u64, wire_bytes: u64, datagram: &[u8]) {
        let begins = self.free.max(now * 1000);
        let nanos = |bytes: u64| bytes * 8 * 1_000_000_000 / self.narrow.bits;
        if begins - now * 1000 + nanos(wire_bytes) > nanos(self.narrow.buffer_bytes) {
            return;
        }
        self.free = begins + nanos(wire_bytes);
        self.line
            .push_back((self.free / 1000 + delay, datagram.to_vec()));
    }

    /// What arrives before `until`.
    pub(super) fn pull(&mut self, until: u64) -> Slot {
        let mut slot = Slot::default();
        while self.line.front().is_some_and(|(at, _)| *at < until) {
            let (at, datagram) = self.line.pop_front().expect("it was looked at");
            let from = slot.bytes.len() as u32;
            slot.bytes.extend_from_slice(&datagram);
            slot.datagrams.push((from, slot.bytes.len() as u32, at));
        }
        slot
    }
}
