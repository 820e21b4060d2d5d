//! The clock of one run: the only place of this crate that reads one.

use std::time::Duration;

use crate::clock::Instant;

/// Counts from its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    origin: std::time::Instant,
}

impl Ticks {
    /// A clock that starts now.
    pub(crate) fn start() -> Ticks {
        Ticks {
            origin: std::time::Instant::now(),
        }
    }

    /// Time since the start, fine enough for pacing.
    pub(crate) fn elapsed(self) -> Duration {
        self.origin.elapsed()
    }

    /// The present as the state machines count it.
    pub(crate) fn now(self) -> Instant {
        Instant::ZERO.after(self.elapsed())
    }

    /// How long from now until `moment`, at most `limit`; `limit` when there is no moment.
    pub(crate) fn until(self, moment: Option<Instant>, limit: Duration) -> Duration {
        moment.map_or(limit, |moment| moment.since(self.now()).min(limit))
    }
}
