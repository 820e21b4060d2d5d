//! One cap for several sessions: each gets a fair share, and lends what it does not use.
//!
//! Shares are max-min fair: who wants less than an equal part gets what it wants, the others divide the rest. A
//! session that has nothing to send wants next to nothing. Sessions ask anew every few milliseconds; nobody waits
//! for anybody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How often a session asks anew.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// A rate that all sessions with a clone of this, and whatever else sends beside them, keep together.
#[derive(Clone, Debug)]
pub struct RateBudget {
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug)]
struct Ledger {
    total_bits: u64,
    /// What each session wants, in bits per second.
    wants: BTreeMap<u64, u64>,
    next: u64,
}

/// The part of one session, or of something else on the same link. Dropping it gives it back.
#[derive(Debug)]
pub struct RateShare {
    budget: RateBudget,
    id: u64,
    asked: Option<Duration>,
    wanted_bits: u64,
    granted_bits: u64,
}

impl RateBudget {
    /// `total_bits` per second on the wire for all together.
    pub fn new(total_bits: u64) -> RateBudget {
        let ledger = Ledger {
            total_bits,
            wants: BTreeMap::new(),
            next: 0,
        };
        RateBudget {
            ledger: Arc::new(Mutex::new(ledger)),
        }
    }

    /// The part of one more, who wants nothing yet.
    pub fn share(&self) -> RateShare {
        let mut ledger = self.lock();
        let id = ledger.next;
        ledger.next += 1;
        ledger.wants.insert(id, 0);
        RateShare {
            budget: self.clone(),
            id,
            asked: None,
            wanted_bits: 0,
            granted_bits: 0,
        }
    }

    /// Another session that panicked leaves numbers behind, and any numbers will do.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateShare {
    /// What one that wants to send `bits` per second may send from `now` on, counted from any origin that stays the
    /// same. The wish holds until the next: ask for 0 when there is nothing to send.
    pub fn ask(&mut self, now: Duration, bits: u64) -> u64 {
        let fresh = self.asked.is_some_and(|at| now < at + ASK_EVERY);
        if !fresh || bits != self.wanted_bits {
            let mut ledger = self.budget.lock();
            ledger.wants.insert(self.id, bits);
            self.granted_bits = ledger.fair(bits);
            (self.asked, self.wanted_bits) = (Some(now), bits);
        }
        self.granted_bits
    }
}

impl Drop for RateShare {
    fn drop(&mut self) {
        self.budget.lock().wants.remove(&self.id);
    }
}

impl Ledger {
    /// The fair part of a session that wants `bits`.
    fn fair(&self, bits: u64) -> u64 {
        let mut wants: Vec<u64> = self.wants.values().copied().collect();
        wants.sort_unstable();
        let (mut left, mut sharers) = (self.total_bits, wants.len() as u64);
        for want in wants {
            let equal = left / sharers.max(1);
            if want > equal {
                return bits.min(equal);
            }
            left -= want;
            sharers -= 1;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::pace::Pacer;

    /// A session on a clock of the test's own.
    struct Session {
        share: RateShare,
        pacer: Pacer,
        sent_bytes: u64,
    }

    impl Session {
        fn new(budget: &RateBudget) -> Session {
            let (share, pacer) = (budget.share(), Pacer::new(0));
            Session {
                share,
                pacer,
                sent_bytes: 0,
            }
        }

        fn step(&mut self, now: Duration, wants: u64) {
            self.pacer.set_rate(self.share.ask(now, wants));
            while wants > 0 && self.pacer.wait(now).is_zero() {
                self.pacer.spend(now, 15_140);
                self.sent_bytes += 15_140;
            }
        }

        fn megabits(&mut self, seconds: u64) -> f64 {
            std::mem::take(&mut self.sent_bytes) as f64 * 8e-6 / seconds as f64
        }
    }

    #[test]
    fn two_sessions_keep_the_cap_and_an_idle_one_lends_its_share() {
        let budget = RateBudget::new(400_000_000);
        let mut sessions = [Session::new(&budget), Session::new(&budget)];
        let mut seconds_with = |second: bool, from: u64| {
            for step in 0..20_000 {
                let now = Duration::from_micros(from * 1_000_000 + step * 100);
                sessions[0].step(now, 900_000_000);
                sessions[1].step(now, if second { 900_000_000 } else { 0 });
            }
            [0, 1].map(|at: usize| sessions[at].megabits(2))
        };
        let [one, other] = seconds_with(true, 1);
        assert!((392.0..408.0).contains(&(one + other)), "{one} + {other}");
        assert!((190.0..210.0).contains(&one), "{one} + {other}");
        let [one, other] = seconds_with(false, 3);
        assert!(
            (392.0..408.0).contains(&one) && other == 0.0,
            "{one} + {other}"
        );
        let [one, other] = seconds_with(true, 5);
        assert!((392.0..408.0).contains(&(one + other)), "{one} + {other}");
        assert!(other > 190.0, "{one} + {other}");
    }

    #[test]
    fn who_wants_little_gets_it_and_the_others_divide_the_rest() {
        let budget = RateBudget::new(900);
        let mut shares = [budget.share(), budget.share(), budget.share()];
        let now = Duration::ZERO;
        let grant = |shares: &mut [RateShare; 3], at: usize, wants| shares[at].ask(now, wants);
        for (at, wants) in [100, 500, 800].into_iter().enumerate() {
            grant(&mut shares, at, wants);
        }
        let later = ASK_EVERY;
        let granted = [0, 1, 2].map(|at: usize| shares[at].ask(later, [100, 500, 800][at]));
        assert_eq!(granted, [100, 400, 400]);
        let [first, second, third] = shares;
        drop((second, third));
        let mut first = first;
        assert_eq!(first.ask(later * 2, 2000), 900);
    }
}
