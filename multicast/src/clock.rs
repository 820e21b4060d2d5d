//! Time as the protocol sees it: microseconds since an origin of the caller's choosing.
//!
//! The cores never read a clock. The driver counts from its own start, the simulator from zero, and
//! a run can be replayed because nothing else tells the cores how late it is.

use std::time::Duration;

/// A moment, in microseconds since the origin its owner chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Instant = Instant(0);

    /// The moment `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Instant {
        Instant(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This moment, `wait` later; the far end of time when it would overflow.
    pub fn after(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(micros(wait)))
    }

    /// How long ago `earlier` was; zero when it has not come yet.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

fn micros(wait: Duration) -> u64 {
    u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Instant::ZERO.since(Instant::from_micros(5)), Duration::ZERO);
        assert_eq!(
            Instant::from_micros(9).after(Duration::MAX).as_micros(),
            u64::MAX
        );
    }
}
