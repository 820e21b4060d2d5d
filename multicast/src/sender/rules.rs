//! When a session starts, what it may send, how often machines speak, and when it is over.

use std::time::Duration;

use crate::clock::Instant;
use crate::fec::Fec;

use super::demand::Gate;
use super::seats::Seats;
use super::{Sender, Stage};

/// Bounds of the time between two reports of one machine.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
const INTERVAL_MAX: Duration = Duration::from_millis(2000);
/// What a report costs on the wire, about.
const REPORT_BYTES: u64 = 200;
/// Reports may cost one in so many bytes of the session's rate.
const REPORT_SHARE: u64 = 100;
/// A machine is given up after so many intervals of silence, but not before `SILENCE_MIN`.
const SILENCE_INTERVALS: u32 = 16;
const SILENCE_MIN: Duration = Duration::from_secs(10);

impl<F: Fec> Sender<F> {
    pub(super) fn may_start(&self, now: Instant) -> bool {
        let rule = self.config.start;
        let ready = self.machines.ready();
        let waited = self
            .machines
            .first_heard()
            .is_some_and(|first| now.since(first) >= rule.wait);
        let complete = match &self.seats {
            Some(seats) => seats.all_ready(),
            None => ready >= rule.receivers as usize,
        };
        complete || (waited && ready > 0)
    }

    /// Everybody who was waited for has come and gone without being ready.
    pub(super) fn is_deserted(&self, now: Instant) -> bool {
        let came = self.machines.known() >= self.config.start.receivers as usize;
        came && self.machines.active() == 0 && now.since(self.last_heard) >= self.config.linger
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        let named = self.seats.as_ref().and_then(Seats::all_done_at);
        if named.is_some_and(|done| now.since(done) >= self.config.linger) {
            return true;
        }
        let idle = !self.is_blind() || self.demand.blocks_left(self.gate()) == 0;
        idle && self.machines.active() == 0 && now.since(self.last_heard) >= self.config.linger
    }

    /// Nobody was asked for: the payload goes out once even if nobody is heard.
    pub(super) fn is_blind(&self) -> bool {
        self.config.start.receivers == 0
    }

    pub(super) fn gate(&self) -> Gate {
        let somebody = self.is_blind() || self.machines.active() > 0;
        match self.stage {
            Stage::Flowing if self.everything && somebody => Gate::Everything,
            Stage::Flowing if !self.everything => Gate::Wanted,
            _ => Gate::Preamble,
        }
    }

    /// How often a machine is to report: the whole room costs less than a hundredth of the rate.
    pub(super) fn interval(&self) -> Duration {
        let room = self.machines.active() as u64 * REPORT_BYTES * REPORT_SHARE * 8;
        let micros = room.saturating_mul(1_000_000) / self.rate_bits().max(1);
        Duration::from_micros(micros).clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    pub(super) fn silence(&self) -> Duration {
        (self.interval() * SILENCE_INTERVALS).max(SILENCE_MIN)
    }
}
