//! Pacing in user space: when the next batch may leave.
//!
//! `SO_MAX_PACING_RATE` does nothing without the fq queueing discipline and does not say so, hence a clock of our
//! own. It remembers one moment, the end of what was sent if it had left at exactly the rate; a batch may
//! leave when that moment has come.

use std::time::Duration;

/// Ethernet, IPv4 and UDP headers of a datagram, in bytes: the rate is that of the wire.
pub(crate) const HEADER_BYTES: u64 = 14 + 20 + 8;

/// Lost time that may be made up for by sending back to back. A sleep ends late by tens of microseconds, on a
/// busy machine by milliseconds; what is beyond this is gone, or switches would get it as one burst: at
/// 900 Mbit/s it is 450 kB.
const CATCH_UP: Duration = Duration::from_millis(4);

/// Decides when to send so that the wire carries at most a given rate.
#[derive(Debug)]
pub(crate) struct Pacer {
    bits_per_second: u64,
    paid_until: Duration,
}

impl Pacer {
    /// The slowest rate, in bits per second: below it a batch would block the line for many seconds.
    pub(crate) const RATE_MIN: u64 = 100_000;

    /// A pacer for `bits_per_second` on the wire, raised to [`Pacer::RATE_MIN`] when lower.
    pub(crate) fn new(bits_per_second: u64) -> Pacer {
        Pacer {
            bits_per_second: bits_per_second.max(Pacer::RATE_MIN),
            paid_until: Duration::ZERO,
        }
    }

    /// How long to wait at `now` before the next batch; zero: it may leave.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.paid_until.saturating_sub(now)
    }

    /// Notes `datagrams` carrying `payload_bytes` together that left at `now`.
    pub(crate) fn spend(&mut self, now: Duration, datagrams: u64, payload_bytes: u64) {
        let bits = (payload_bytes + datagrams * HEADER_BYTES).saturating_mul(8);
        let nanos = u128::from(bits) * 1_000_000_000 / u128::from(self.bits_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let start = self.paid_until.max(now.saturating_sub(CATCH_UP));
        self.paid_until = start.saturating_add(cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes sent in `span` by a sender that wakes `late` after each wait.
    fn bytes_in(span: Duration, late: Duration) -> u64 {
        let mut pacer = Pacer::new(100_000_000);
        let (mut now, mut sent) = (Duration::from_secs(1), 0);
        let end = now + span;
        while now < end {
            let wait = pacer.wait(now);
            if wait.is_zero() {
                pacer.spend(now, 16, 16 * 1472);
                sent += 16 * (1472 + HEADER_BYTES);
            } else {
                now += wait + late;
            }
        }
        sent
    }

    #[test]
    fn the_wire_carries_the_rate_headers_included() {
        let sent = bytes_in(Duration::from_secs(2), Duration::ZERO);
        assert!((24_900_000..=25_100_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_late_sleeper_keeps_the_rate() {
        let sent = bytes_in(Duration::from_secs(2), Duration::from_micros(1_800));
        assert!((24_900_000..=25_100_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pacer = Pacer::new(100_000_000);
        pacer.spend(Duration::from_secs(1), 16, 16 * 1472);
        let now = Duration::from_secs(9);
        let mut burst = 0;
        while pacer.wait(now).is_zero() {
            pacer.spend(now, 16, 16 * 1472);
            burst += 1;
        }
        // Four milliseconds at 100 Mbit/s are two batches, and the next may always leave.
        assert_eq!(burst, 3);
    }
}
