//! The desk: one queue for everybody who fetches from this process, and what a session shows there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netflash_multicast::RateShare;
use serde::{Deserialize, Serialize};

use super::queue::{Answer, Queue, QueueConfig};

/// How long one machine is served while others wait.
const TURN: Duration = Duration::from_secs(30);
/// Who has sent nothing for so long needs no part of the server's cap: a machine writes a block, then it asks for the
/// next.
const LULL: Duration = Duration::from_secs(1);

/// How the other way fares, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeskStatus {
    /// Machines being served.
    pub(crate) served: usize,
    /// Machines that wait.
    pub(crate) waiting: usize,
    /// Bytes sent since the start.
    pub(crate) sent_bytes: u64,
    /// Bits per second that all of them together get: less than was allowed when sessions need the link.
    #[serde(default)]
    pub(crate) rate_bits: u64,
}

/// Who fetches, in which order, how fast.
#[derive(Debug)]
pub(crate) struct Desk {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    sent_bytes: u64,
    /// What the queue may send when nobody else wants the link, in bits per second.
    rate_bits: u64,
    /// Its part of the cap that it keeps together with the sessions, if there is one.
    share: Option<RateShare>,
    /// When something was sent last.
    paid_at: Duration,
}

impl Desk {
    /// A desk with room for `places` machines at a time, which get `rate_bits` per second together; none when there
    /// is no place.
    pub(crate) fn open(places: usize, rate_bits: u64) -> Option<Arc<Desk>> {
        let config = QueueConfig {
            places,
            turn: TURN,
            rate_bits,
        };
        let state = State {
            queue: Queue::new(config),
            sent_bytes: 0,
            rate_bits,
            share: None,
            paid_at: Duration::ZERO,
        };
        (places > 0).then(|| {
            Arc::new(Desk {
                origin: Instant::now(),
                state: Mutex::new(state),
            })
        })
    }

    /// From now on what is sent counts in a cap; `tend` must be called from time to time.
    pub(crate) fn keep_within(&self, share: RateShare) {
        self.state().share = Some(share);
    }

    /// Gives its part of the cap back when nobody fetches.
    pub(crate) fn tend(&self) {
        let now = self.origin.elapsed();
        self.state().tend(now);
    }

    /// `machine` wants to fetch something.
    pub(crate) fn ask(&self, machine: u64) -> Answer {
        let now = self.origin.elapsed();
        self.state().queue.ask(now, machine)
    }

    /// `machine` wants nothing any more.
    pub(crate) fn leave(&self, machine: u64) {
        self.state().queue.leave(machine);
    }

    /// How long to wait before `bytes` may be sent to `machine`.
    pub(crate) fn pay(&self, machine: u64, bytes: usize) -> Duration {
        let now = self.origin.elapsed();
        let mut state = self.state();
        state.pay(now, machine, bytes)
    }

    /// How it fares.
    pub(crate) fn status(&self) -> DeskStatus {
        let now = self.origin.elapsed();
        let mut state = self.state();
        let (served, waiting) = state.queue.lengths(now);
        DeskStatus {
            served,
            waiting,
            sent_bytes: state.sent_bytes,
            rate_bits: state.queue.rate(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts and a queue: valid whenever a thread died.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pay(&mut self, now: Duration, machine: u64, bytes: usize) -> Duration {
        self.sent_bytes += bytes as u64;
        self.paid_at = now;
        if let Some(share) = &mut self.share {
            self.queue.set_rate(share.ask(now, self.rate_bits));
        }
        self.queue.pay(now, machine, bytes)
    }

    fn tend(&mut self, now: Duration) {
        let share = self.share.as_mut();
        if let Some(share) = share.filter(|_| now.saturating_sub(self.paid_at) >= LULL) {
            share.ask(now, 0);
        }
    }
}

/// Where a session pins its last announce, and where it was sent from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Pinned>>);

#[derive(Debug, Default)]
struct Pinned {
    sender: Option<SocketAddr>,
    announce: Option<Vec<u8>>,
}

impl Board {
    /// A session opened its socket; what an earlier one pinned is void.
    pub(crate) fn open(&self, sender: SocketAddr) {
        *self.pinned() = Pinned {
            sender: Some(sender),
            announce: None,
        };
    }

    /// The session announced itself.
    pub(crate) fn pin(&self, announce: Vec<u8>) {
        self.pinned().announce = Some(announce);
    }

    /// The last announce and its sender, once there is one.
    pub(crate) fn last(&self) -> Option<(SocketAddr, Vec<u8>)> {
        let pinned = self.pinned();
        pinned.sender.zip(pinned.announce.clone())
    }

    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use netflash_multicast::RateBudget;

    use super::*;

    const MEGABIT: u64 = 1_000_000;
    const SECOND: Duration = Duration::from_secs(1);

    /// Bits that one machine gets in the second after `from`, in pieces of 64 KiB.
    fn fetched(desk: &Desk, from: Duration) -> u64 {
        let (mut now, mut bits) = (from, 0);
        while now < from + SECOND {
            now += desk.state().pay(now, 1, 65_536);
            bits += 65_536 * 8;
        }
        bits
    }

    #[test]
    fn what_is_fetched_counts_in_the_cap_and_only_while_it_is() {
        let budget = RateBudget::new(100 * MEGABIT);
        let desk = Desk::open(4, 80 * MEGABIT).unwrap();
        assert!(fetched(&desk, SECOND) > 78 * MEGABIT, "without a cap");
        desk.keep_within(budget.share());
        let mut session = budget.share();
        assert_eq!(session.ask(3 * SECOND, 90 * MEGABIT), 90 * MEGABIT);
        let bits = fetched(&desk, 3 * SECOND);
        assert!((48..=54).contains(&(bits / MEGABIT)), "{bits}");
        assert_eq!(session.ask(4 * SECOND, 90 * MEGABIT), 50 * MEGABIT);
        desk.state().tend(4 * SECOND + LULL / 2);
        assert_eq!(session.ask(5 * SECOND, 90 * MEGABIT), 50 * MEGABIT);
        desk.state().tend(6 * SECOND);
        assert_eq!(session.ask(6 * SECOND, 90 * MEGABIT), 90 * MEGABIT);
    }

    #[test]
    fn without_a_place_there_is_no_desk() {
        assert!(Desk::open(0, 1_000_000).is_none());
    }

    #[test]
    fn a_new_session_takes_down_what_the_old_one_pinned() {
        let board = Board::default();
        assert_eq!(board.last(), None);
        let sender = SocketAddr::from(([10, 0, 0, 1], 5000));
        board.open(sender);
        board.pin(vec![1]);
        assert_eq!(board.last(), Some((sender, vec![1])));
        board.open(sender);
        assert_eq!(board.last(), None);
    }
}
