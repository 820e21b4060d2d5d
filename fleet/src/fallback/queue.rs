//! Who may fetch now, and how fast: the queue in front of the other way. Pure; time comes in as an argument.
//!
//! ```text
//!            asks, no place free        asks again, place free        quiet for LEASE, or it leaves
//!   (nobody) ------------------> waiting -----------------> served -------------------------------> (nobody)
//!      |                           |  ^                       |
//!      |                           |  +-- its turn is over, --+
//!      |                           v      and others wait
//!      |      quiet for WAIT_LEASE: it loses its place
//!      +-- asks, a place is free and nobody waits ----------> served
//! ```
//!
//! First come, first served. A place that falls free is kept for whoever waits longest; whoever had a whole turn
//! makes way for those who wait. What all together fetch is paid from one bucket, so that the session beside it keeps
//! its share of the link.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A machine that is served and does not ask for so long has gone.
const LEASE: Duration = Duration::from_secs(10);
/// A machine that waits and does not ask for so long has gone.
const WAIT_LEASE: Duration = Duration::from_secs(15);
/// Machines that wait at most; more are asked to come back later.
const WAITING_MAX: usize = 4096;
/// Shortest and longest time after which a waiting machine asks again.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// The bucket holds what this long earns: a burst is no longer.
const BURST: Duration = Duration::from_millis(20);

/// How many are served at a time, for how long, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Machines served at a time, at least 1.
    pub places: usize,
    /// How long one is served while others wait.
    pub turn: Duration,
    /// Bits per second of all together.
    pub rate_bits: u64,
}

/// What a machine that asks is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is served.
    Go,
    /// Others come first.
    Wait {
        /// Place in the queue, from 1; 0 when even the queue is full.
        position: u32,
        /// When to ask again.
        again: Duration,
    },
}

/// The queue. Moments are counted from any origin the caller likes.
#[derive(Debug)]
pub struct Queue {
    config: QueueConfig,
    served: BTreeMap<u64, Turn>,
    waiting: VecDeque<Waiting>,
    /// Until when what was granted so far keeps the link busy.
    paid_until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    since: Duration,
    seen: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    machine: u64,
    seen: Duration,
}

impl Queue {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> Queue {
        Queue {
            config,
            served: BTreeMap::new(),
            waiting: VecDeque::new(),
            paid_until: Duration::ZERO,
        }
    }

    /// `machine` wants to fetch something at `now`.
    pub fn ask(&mut self, now: Duration, machine: u64) -> Answer {
        self.forget_absent(now);
        if let Some(turn) = self.served.get_mut(&machine) {
            let over = now.saturating_sub(turn.since) >= self.config.turn;
            if !over || self.waiting.is_empty() {
                turn.seen = now;
                return Answer::Go;
            }
            self.served.remove(&machine);
        }
        let place = self.waiting.iter().position(|one| one.machine == machine);
        let ahead = place.unwrap_or(self.waiting.len());
        if self.served.len() + ahead < self.config.places.max(1) {
            self.waiting.remove(ahead);
            let turn = Turn {
                since: now,
                seen: now,
            };
            self.served.insert(machine, turn);
            return Answer::Go;
        }
        if let Some(waiting) = self.waiting.get_mut(ahead) {
            waiting.seen = now;
        } else if self.waiting.len() < WAITING_MAX {
            let waiting = Waiting { machine, seen: now };
            self.waiting.push_back(waiting);
        } else {
            return Answer::Wait {
                position: 0,
                again: AGAIN_MAX,
            };
        }
        // Those in front look often, those behind seldom: hundreds that wait are no load.
        let rounds = (ahead / self.config.places.max(1)) as u32;
        Answer::Wait {
            position: ahead as u32 + 1,
            again: (AGAIN_MIN * (rounds + 1)).min(AGAIN_MAX),
        }
    }

    /// `machine` has all it wanted.
    pub fn leave(&mut self, machine: u64) {
        self.served.remove(&machine);
        self.waiting.retain(|one| one.machine != machine);
    }

    /// From now on all together get `rate_bits` per second.
    pub fn set_rate(&mut self, rate_bits: u64) {
        self.config.rate_bits = rate_bits;
    }

    /// Bits per second of all together.
    pub fn rate(&self) -> u64 {
        self.config.rate_bits
    }

    /// How long to wait before `bytes` may be sent to `machine`; they count as sent then.
    pub fn pay(&mut self, now: Duration, machine: u64, bytes: usize) -> Duration {
        // Who is being sent to is not absent, however long it takes.
        if let Some(turn) = self.served.get_mut(&machine) {
            turn.seen = now;
        }
        let cost =
            Duration::from_secs_f64(bytes as f64 * 8.0 / self.config.rate_bits.max(1) as f64);
        self.paid_until = self.paid_until.max(now.saturating_sub(BURST)) + cost;
        self.paid_until.saturating_sub(now)
    }

    /// Machines served and machines that wait at `now`.
    pub fn lengths(&mut self, now: Duration) -> (usize, usize) {
        self.forget_absent(now);
        (self.served.len(), self.waiting.len())
    }

    fn forget_absent(&mut self, now: Duration) {
        self.served
            .retain(|_, turn| now.saturating_sub(turn.seen) < LEASE);
        self.waiting
            .retain(|one| now.saturating_sub(one.seen) < WAIT_LEASE);
    }
}

#[cfg(test)]
mod crowd;

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: QueueConfig = QueueConfig {
        places: 2,
        turn: Duration::from_secs(30),
        rate_bits: 80_000_000,
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn position(answer: Answer) -> u32 {
        match answer {
            Answer::Go => panic!("it was admitted"),
            Answer::Wait { position, .. } => position,
        }
    }

    #[test]
    fn the_first_are_served_and_the_others_know_their_place() {
        let mut queue = Queue::new(CONFIG);
        assert_eq!(queue.ask(at(0), 1), Answer::Go);
        assert_eq!(queue.ask(at(0), 2), Answer::Go);
        assert_eq!(position(queue.ask(at(0), 3)), 1);
        assert_eq!(position(queue.ask(at(0), 4)), 2);
        assert_eq!(
            position(queue.ask(at(1), 3)),
            1,
            "asking twice is one place"
        );
        assert_eq!(queue.ask(at(1), 1), Answer::Go);
        assert_eq!(queue.lengths(at(1)), (2, 2));
    }

    #[test]
    fn a_free_place_is_kept_for_who_waits_longest() {
        let mut queue = Queue::new(CONFIG);
        for machine in 1..=4 {
            queue.ask(at(0), machine);
        }
        queue.leave(1);
        assert_eq!(position(queue.ask(at(1), 4)), 2);
        assert_eq!(position(queue.ask(at(1), 5)), 3);
        assert_eq!(queue.ask(at(1), 3), Answer::Go);
    }

    #[test]
    fn a_turn_ends_when_others_wait() {
        let mut queue = Queue::new(CONFIG);
        queue.ask(at(0), 1);
        queue.ask(at(5), 2);
        for second in (0..40).step_by(5) {
            assert_eq!(queue.ask(at(second), 1), Answer::Go, "nobody waits");
            assert_eq!(queue.ask(at(second), 2), Answer::Go, "nobody waits");
        }
        assert_eq!(position(queue.ask(at(36), 3)), 1);
        assert_eq!(position(queue.ask(at(36), 1)), 2, "it goes to the end");
        assert_eq!(queue.ask(at(37), 3), Answer::Go);
    }

    #[test]
    fn a_machine_that_vanishes_frees_its_place() {
        let mut queue = Queue::new(CONFIG);
        for machine in 1..=3 {
            queue.ask(at(0), machine);
        }
        queue.ask(at(9), 2);
        assert_eq!(position(queue.ask(at(9), 3)), 1);
        assert_eq!(queue.ask(at(10), 3), Answer::Go);
        assert_eq!(queue.lengths(at(30)), (0, 0));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = Queue::new(CONFIG);
        for machine in 0..10_000 {
            queue.ask(at(0), machine);
        }
        assert_eq!(queue.lengths(at(0)), (2, WAITING_MAX));
        assert_eq!(position(queue.ask(at(0), 20_000)), 0);
    }

    #[test]
    fn all_together_get_no_more_than_the_rate() {
        let mut queue = Queue::new(CONFIG);
        let (mut now, mut bytes) = (Duration::ZERO, 0_usize);
        while now < at(10) {
            now += queue.pay(now, 1, 65_536);
            bytes += 65_536;
        }
        let rate = bytes as f64 * 8.0 / now.as_secs_f64();
        assert!((0.99..1.01).contains(&(rate / 80e6)), "{rate}");
        // Idle time is not saved up.
        let later = now + at(60);
        let wait: Duration = (0..16).map(|_| queue.pay(later, 1, 65_536)).last().unwrap();
        assert!(wait > Duration::from_millis(80), "{wait:?}");
    }
}
