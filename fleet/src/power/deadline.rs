//! The end of an action's patience.

use std::time::{Duration, Instant};

use super::failure::{Failure, PowerError};

/// When an action must be over, and how long it was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    end: Instant,
    given: Duration,
}

impl Deadline {
    /// A deadline `given` from now.
    pub(crate) fn after(given: Duration) -> Deadline {
        Deadline {
            end: Instant::now() + given,
            given,
        }
    }

    /// What is left; zero when it is over.
    pub(crate) fn left(self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// `wanted`, but no more than a twentieth of what was given.
    pub(crate) fn share(self, wanted: Duration) -> Duration {
        wanted.min(self.given / 20)
    }

    /// What was given, in seconds.
    pub(crate) fn seconds(self) -> u64 {
        self.given.as_secs()
    }

    /// The failure of what did not end in time.
    pub(crate) fn passed(self, what: &str) -> PowerError {
        Failure::TimedOut.because(format!("{what} after {} s", self.seconds()))
    }
}
