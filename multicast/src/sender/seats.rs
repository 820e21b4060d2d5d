//! The machines a session is for, when they were named: who of them is ready, and who is done.
//!
//! A name is what a machine calls itself. Machines nobody named are served like all others, but
//! neither begin the session nor keep it from ending.

use std::collections::BTreeMap;

use super::machines::Heard;
use crate::clock::Instant;

/// Where the machine of one name stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seat {
    /// Number of the machine that sits here.
    id: Option<u64>,
    ready: bool,
    done: bool,
}

/// One seat for each name.
#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: BTreeMap<String, Seat>,
    /// When the last of them was done.
    done_at: Option<Instant>,
}

impl Seats {
    pub(super) fn of(names: impl IntoIterator<Item = String>) -> Seats {
        let seats = names.into_iter().map(|name| (name, Seat::default()));
        Seats {
            seats: seats.collect(),
            done_at: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// What a report made of the machine `id` called `name`.
    pub(super) fn hear(&mut self, now: Instant, name: &str, id: u64, heard: Heard) {
        let Some(seat) = self.seats.get_mut(name) else {
            return;
        };
        // Who returns after a reboot has a new number and lacks again what it lacked.
        if heard.joined {
            (seat.id, seat.ready) = (Some(id), false);
        }
        if seat.id != Some(id) {
            return;
        }
        seat.ready |= heard.ready || heard.done;
        if heard.done && !seat.done {
            seat.done = true;
            self.done_at = Some(now);
        }
        if heard.left {
            seat.ready = false;
        }
    }

    /// The machine `id` fell silent.
    pub(super) fn lose(&mut self, id: u64) {
        let taken = self.seats.values_mut().filter(|seat| seat.id == Some(id));
        taken.for_each(|seat| seat.ready = false);
    }

    /// Whether every machine named knows what it lacks, or lacks nothing any more.
    pub(super) fn all_ready(&self) -> bool {
        self.seats.values().all(|seat| seat.ready || seat.done)
    }

    /// When the last of all was done; `None` as long as one is not.
    pub(super) fn all_done_at(&self) -> Option<Instant> {
        let all = self.seats.values().all(|seat| seat.done);
        self.done_at.filter(|_| all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOINED: Heard = Heard {
        joined: true,
        ready: false,
        done: false,
        left: false,
    };
    const READY: Heard = Heard {
        joined: false,
        ready: true,
        ..JOINED
    };
    const DONE: Heard = Heard {
        joined: false,
        done: true,
        ..JOINED
    };

    fn two() -> Seats {
        Seats::of(["a", "b"].map(String::from))
    }

    #[test]
    fn all_are_ready_when_each_is() {
        let mut seats = two();
        seats.hear(Instant::ZERO, "a", 1, JOINED);
        seats.hear(Instant::ZERO, "a", 1, READY);
        seats.hear(Instant::ZERO, "stranger", 3, READY);
        assert!(!seats.all_ready());
        seats.hear(Instant::ZERO, "b", 2, JOINED);
        seats.hear(Instant::ZERO, "b", 2, READY);
        assert!(seats.all_ready());
        seats.lose(2);
        assert!(!seats.all_ready());
    }

    #[test]
    fn a_machine_that_returns_under_its_name_sits_on_its_seat() {
        let mut seats = two();
        seats.hear(Instant::ZERO, "a", 1, JOINED);
        seats.hear(Instant::ZERO, "a", 1, READY);
        seats.hear(Instant::ZERO, "a", 7, JOINED);
        // What the dead one said last does not count.
        seats.hear(Instant::ZERO, "a", 1, DONE);
        assert_eq!(seats.seats["a"].id, Some(7));
        assert!(!seats.seats["a"].ready && !seats.seats["a"].done);
    }

    #[test]
    fn done_stays_done_whoever_comes_again() {
        let mut seats = two();
        for (name, id) in [("a", 1), ("b", 2)] {
            seats.hear(Instant::ZERO, name, id, JOINED);
            assert_eq!(seats.all_done_at(), None);
            seats.hear(Instant::ZERO, name, id, DONE);
        }
        seats.hear(Instant::ZERO, "a", 9, JOINED);
        assert!(seats.all_ready());
        assert_eq!(seats.all_done_at(), Some(Instant::ZERO));
    }
}
