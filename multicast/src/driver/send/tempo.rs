//! The rate a run keeps: what its session takes, no more than its part of the cap, in user space and in the kernel.

use std::time::Duration;

use super::budget::RateShare;
use crate::{driver::pace::Pacer, udp::Endpoint};

/// A session that has sent no data for so long has none, and wants only its announces.
const IDLE: Duration = Duration::from_millis(100);
/// What announces need, in bits per second.
const IDLE_BITS: u64 = 500_000;
/// How much faster than we the kernel may let go: it smooths our bursts, and we keep the rate.
const KERNEL_PERCENT: u64 = 105;

/// The pacer of a run, and who has a say in its rate.
#[derive(Debug)]
pub(super) struct Tempo {
    pub(super) pacer: Pacer,
    share: Option<RateShare>,
    bits: u64,
    /// Data datagrams sent, and when the last of them has left.
    data: (u64, Duration),
}

impl Tempo {
    pub(super) fn new(share: Option<RateShare>) -> Tempo {
        Tempo {
            pacer: Pacer::new(0),
            share,
            bits: 0,
            data: (0, Duration::ZERO),
        }
    }

    /// From `now` on at most `bits` per second; `data` datagrams with data were sent so far.
    pub(super) fn keep(&mut self, now: Duration, bits: u64, data: u64, endpoint: &Endpoint) {
        if self.follow(now, bits, data) {
            endpoint.limit_pace(self.bits / 8 * KERNEL_PERCENT / 100);
        }
    }

    /// Whether that is another rate than before.
    fn follow(&mut self, now: Duration, bits: u64, data: u64) -> bool {
        if data != self.data.0 {
            // It is on the line until then: at the rate of an idle session, a large datagram longer than `IDLE`.
            self.data = (data, now + self.pacer.wait(now));
        }
        let idle = now.saturating_sub(self.data.1) >= IDLE;
        let granted = match &mut self.share {
            Some(share) if idle => share.ask(now, bits.min(IDLE_BITS)),
            Some(share) => share.ask(now, bits),
            None => bits,
        };
        let other = granted != self.bits;
        if other {
            self.bits = granted;
            self.pacer.set_rate(granted);
        }
        other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::send::budget::RateBudget;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn an_idle_session_with_large_datagrams_gets_its_rate_back_at_once() {
        const LARGE: u64 = 9014;
        let budget = RateBudget::new(100_000_000);
        let mut tempo = Tempo::new(Some(budget.share()));
        let (mut now, mut data) = (Duration::from_secs(1), 0);
        tempo.follow(now, 90_000_000, data);
        assert_eq!(tempo.bits, IDLE_BITS);
        let end = now + Duration::from_secs(1);
        while now < end {
            tempo.follow(now, 90_000_000, data);
            if tempo.pacer.wait(now).is_zero() {
                tempo.pacer.spend(now, LARGE);
                data += 1;
            } else {
                now += tempo.pacer.wait(now).min(MILLISECOND);
            }
        }
        assert!(
            data * LARGE * 8 > 70_000_000,
            "{data} datagrams in a second"
        );
        let later = now + IDLE * 2;
        tempo.follow(later, 90_000_000, data);
        assert_eq!(tempo.bits, IDLE_BITS, "it has nothing to send");
    }
}
