//! Pacing in user space: when the next batch may leave.
//!
//! `SO_MAX_PACING_RATE` does nothing without the fq queueing discipline and does not say so, hence a clock of our
//! own. It remembers one moment, the end of what was sent if it had left at exactly the rate; a batch may
//! leave when that moment has come.

use std::time::Duration;

/// Lost time that may be made up for by sending back to back. A sleep ends late by tens of microseconds, on a
/// busy machine by a time slice or two of others; what is beyond this is gone.
const CATCH_UP: Duration = Duration::from_millis(20);
/// Bytes that may leave back to back, whatever the rate, or a switch with 512 KiB of buffer drops them.
const BURST_BYTES: u64 = 384 << 10;
/// A batch is to take at most this long on the wire: what is sent at once waits in a queue, and looks like one.
const BATCH_TIME: Duration = Duration::from_millis(1);
/// Bits of a usual datagram on the wire.
const DATAGRAM_BITS: u64 = 1514 * 8;

/// Decides when to send so that the wire carries at most a given rate.
#[derive(Debug)]
pub(crate) struct Pacer {
    bits_per_second: u64,
    catch_up: Duration,
    paid_until: Duration,
}

impl Pacer {
    /// The slowest rate, in bits per second: below it a batch would block the line for many seconds.
    pub(crate) const RATE_MIN: u64 = 100_000;

    /// A pacer for `bits_per_second` on the wire, raised to [`Pacer::RATE_MIN`] when lower.
    pub(crate) fn new(bits_per_second: u64) -> Pacer {
        let mut pacer = Pacer {
            bits_per_second: 0,
            catch_up: Duration::ZERO,
            paid_until: Duration::ZERO,
        };
        pacer.set_rate(bits_per_second);
        pacer
    }

    /// From now on `bits_per_second`; what is under way is paid for already.
    pub(crate) fn set_rate(&mut self, bits_per_second: u64) {
        self.bits_per_second = bits_per_second.max(Pacer::RATE_MIN);
        self.catch_up = self.time_of(BURST_BYTES).min(CATCH_UP);
    }

    /// Datagrams that may leave back to back without being a burst at this rate; a call of the driver takes fewer
    /// when it cannot take so many.
    pub(crate) fn batch(&self) -> usize {
        let bits = u128::from(self.bits_per_second) * BATCH_TIME.as_micros() / 1_000_000;
        usize::try_from(bits / u128::from(DATAGRAM_BITS)).unwrap_or(usize::MAX)
    }

    /// How long to wait at `now` before the next batch; zero: it may leave.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        self.paid_until.saturating_sub(now)
    }

    /// Notes that `wire_bytes` left at `now`, headers included.
    pub(crate) fn spend(&mut self, now: Duration, wire_bytes: u64) {
        let cost = self.time_of(wire_bytes);
        let start = self.paid_until.max(now.saturating_sub(self.catch_up));
        self.paid_until = start.saturating_add(cost);
    }

    /// How long so many bytes take on the wire at the rate.
    fn time_of(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(self.bits_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen usual datagrams on the wire.
    const BATCH: u64 = 16 * 1514;

    /// Sends until nothing is left to be made up for.
    fn use_up(pacer: &mut Pacer, now: Duration) {
        while pacer.wait(now).is_zero() {
            pacer.spend(now, BATCH);
        }
    }

    /// Bytes sent in `span` by a sender that wakes `late` after each wait.
    fn bytes_in(span: Duration, late: Duration) -> u64 {
        let mut pacer = Pacer::new(100_000_000);
        let (mut now, mut sent) = (Duration::from_secs(1), 0);
        use_up(&mut pacer, now);
        let end = now + span;
        while now < end {
            let wait = pacer.wait(now);
            if wait.is_zero() {
                pacer.spend(now, BATCH);
                sent += BATCH;
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
        let sent = bytes_in(Duration::from_secs(2), Duration::from_millis(18));
        assert!((24_900_000..=25_100_000).contains(&sent), "{sent}");
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pacer = Pacer::new(100_000_000);
        pacer.spend(Duration::from_secs(1), BATCH);
        let now = Duration::from_secs(9);
        let mut burst = 0;
        while pacer.wait(now).is_zero() {
            pacer.spend(now, BATCH);
            burst += 1;
        }
        // Twenty milliseconds at 100 Mbit/s are ten batches, and the next may always leave.
        assert_eq!(burst, 11);
    }

    #[test]
    fn no_rate_overruns_the_buffer_of_a_switch() {
        for gigabits in [1, 2, 10, 100] {
            let mut pacer = Pacer::new(gigabits * 1_000_000_000);
            let now = Duration::from_secs(9);
            let mut burst = 0;
            while pacer.wait(now).is_zero() {
                pacer.spend(now, BATCH);
                burst += BATCH;
            }
            assert!(burst < 512 << 10, "{burst} bytes at {gigabits} Gbit/s");
        }
    }

    #[test]
    fn a_new_rate_holds_from_the_next_batch_on() {
        let mut pacer = Pacer::new(100_000_000);
        let now = Duration::from_secs(1);
        use_up(&mut pacer, now);
        pacer.set_rate(1_000_000_000);
        let before = pacer.paid_until;
        pacer.spend(now, BATCH);
        let bits = BATCH * 8;
        assert_eq!(pacer.paid_until - before, Duration::from_nanos(bits));
    }
}
