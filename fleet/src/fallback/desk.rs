//! The desk: one queue for everybody who fetches from this process, and what a session shows there.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::queue::{Answer, Queue, QueueConfig};

/// How long one machine is served while others wait.
const TURN: Duration = Duration::from_secs(30);

/// How the other way fares, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeskStatus {
    /// Machines being served.
    pub(crate) served: usize,
    /// Machines that wait.
    pub(crate) waiting: usize,
    /// Bytes sent since the start.
    pub(crate) sent_bytes: u64,
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
        };
        (places > 0).then(|| {
            Arc::new(Desk {
                origin: Instant::now(),
                state: Mutex::new(state),
            })
        })
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
        state.sent_bytes += bytes as u64;
        state.queue.pay(now, machine, bytes)
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
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Counts and a queue: valid whenever a thread died.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a session pins its last announce, and where it was sent from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Pinned>>);

#[derive(Debug, Default)]
struct Pinned {
    sender: Option<SocketAddrV4>,
    announce: Option<Vec<u8>>,
}

impl Board {
    /// A session opened its socket; what an earlier one pinned is void.
    pub(crate) fn open(&self, sender: SocketAddrV4) {
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
    pub(crate) fn last(&self) -> Option<(SocketAddrV4, Vec<u8>)> {
        let pinned = self.pinned();
        pinned.sender.zip(pinned.announce.clone())
    }

    fn pinned(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_place_there_is_no_desk() {
        assert!(Desk::open(0, 1_000_000).is_none());
    }

    #[test]
    fn a_new_session_takes_down_what_the_old_one_pinned() {
        let board = Board::default();
        assert_eq!(board.last(), None);
        let sender = SocketAddrV4::new([10, 0, 0, 1].into(), 5000);
        board.open(sender);
        board.pin(vec![1]);
        assert_eq!(board.last(), Some((sender, vec![1])));
        board.open(sender);
        assert_eq!(board.last(), None);
    }
}
