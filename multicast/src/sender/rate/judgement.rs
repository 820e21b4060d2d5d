//! What an epoch makes of the rate.
//!
//! ```text
//!            more arrives                              as before
//!          +--------------+                         +-------------+
//!          v              |   at the top            |             v
//!       climb ------------+------------------> cruise ---------> probe
//!        ^ ^  loss rises                        |   ^  ^          |  |
//!        | |     +------------------------------+   |  +----------+  | more arrives
//!        | |     v  loss rises                      |    loss rises  |
//!        | |  confirm ----> as before, where it was |                |
//!        | |     | it is so: slower                 |                |
//!        | |     v                                  |                |
//!        | +-- check -------------------------------+                |
//!        |  loss stayed     loss fell: just below what arrived       |
//!        +-----------------------------------------------------------+
//! ```
//!
//! A queue that stands on the way although we are below the limit is filled by somebody else (a TCP stream fills any
//! queue it finds): then more is left to others. Disks that do not keep up slow the rate to theirs.

use std::time::Duration;

use crate::clock::Instant;

use super::gauge::Reading;
use super::reason::RateReason;
use super::{PROBE_FIRST, Pace};

/// The part of what the room was found to take: alone, and with others beside.
const ALONE_SHARE: f64 = 0.98;
const BESIDE_SHARE: f64 = 0.85;
/// Steps upwards: after the first limit was met, and to see whether the limit is still there.
const STEP: f64 = 1.12;
const PROBE_STEP: f64 = 1.06;
/// How far below what arrived one goes to see whether loss falls with the rate.
const CHECK_SHARE: f64 = 0.9;
/// When less than this part of what once arrived arrives, the machines are overrun.
const OVERRUN: f64 = 0.9;
/// Longest time between two probes: after many in vain.
const PROBE_LAST: Duration = Duration::from_secs(30);
/// Loss that is noise: absolute, and as a part of the loss that is always there.
const NOISE: f64 = 0.01;
const NOISE_PART: f64 = 0.1;
/// Age of what is being read above which a queue stands on the way.
const QUEUE_LAG: Duration = Duration::from_millis(6);
/// What may wait without being a queue, at any rate: eight datagrams.
const QUEUE_BITS: f64 = 8.0 * 1514.0 * 8.0;
/// Epochs in a row that make a queue, its end, or a slow disk a fact.
const PATIENCE: u32 = 2;
/// A queue of our own is gone after so long at the lower rate.
const DRAIN: Duration = Duration::from_secs(2);
/// Bytes waiting for a disk above which it does not keep up, and below which it does.
const BACKLOG_HIGH: u64 = 12 << 20;
const BACKLOG_LOW: u64 = 4 << 20;
/// How long disks are watched before their speed is believed, and the cut until then.
const WATCH: Duration = Duration::from_secs(1);
const DISK_CUT: f64 = 0.7;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// Faster from epoch to epoch.
    Climb { step: f64 },
    /// Loss rose to `loss`. While a buffer on the way is being filled it looks better than it is: one more epoch, or
    /// as long as it rises on.
    Confirm { from: Box<Phase>, loss: f64 },
    /// Slower, to see whether the loss falls.
    Check { before: Reading },
    /// What the room takes.
    Cruise { probe_at: Instant },
    /// A little faster than that.
    Probe { back_bits: f64 },
    /// A queue stands on the way: one that a limit met has left, or one that others fill.
    Yield { since: Instant, left: bool },
    /// As fast as the disks, which have taken up to `best` blocks a second.
    Disks { watched: Instant, best: f64 },
}

impl Pace {
    pub(super) fn judge(&mut self, now: Instant, reading: Reading) {
        let count = |row: u32, holds: bool| if holds { row + 1 } else { 0 };
        let patience = QUEUE_LAG + Duration::from_secs_f64(QUEUE_BITS / self.bits);
        let queue = reading.lag.is_some_and(|lag| lag >= patience);
        self.queued = count(self.queued, queue);
        self.unqueued = count(self.unqueued, !queue);
        self.full = count(self.full, reading.backlog_bytes >= BACKLOG_HIGH);
        let risen = self.has_risen(&reading);
        if !risen {
            let weight = if reading.loss < self.floor { 0.3 } else { 0.02 };
            self.floor += (reading.loss - self.floor) * weight;
            if !queue {
                let best = self.clean.unwrap_or(0.0).max(reading.delivered_bits());
                self.clean = Some(best);
            }
        }
        if self.full >= PATIENCE && !matches!(self.phase, Phase::Disks { .. }) {
            self.gauges.watch_disks(now);
            let (watched, best) = (now, 0.0);
            self.phase = Phase::Disks { watched, best };
            let bytes = reading.backlog_bytes;
            return self.change(self.bits * DISK_CUT, RateReason::Backlog { bytes });
        }
        match self.phase.clone() {
            Phase::Disks { watched, best } => self.follow_disks(now, watched, best, &reading),
            Phase::Confirm { from, loss } if reading.loss > loss + self.noise(&reading) => {
                let loss = reading.loss;
                self.phase = Phase::Confirm { from, loss };
            }
            Phase::Confirm { from, .. } if risen => self.slow_down(reading, *from),
            Phase::Confirm { from, .. } => self.phase = *from,
            Phase::Check { before } => self.learn(now, &before, &reading),
            Phase::Probe { back_bits } if risen || (queue && self.queued == 1) => {
                self.bits = back_bits;
                self.probe_pause = (self.probe_pause * 2).min(PROBE_LAST);
                self.settle(now);
            }
            phase if risen => {
                let (from, loss) = (Box::new(phase), reading.loss);
                self.phase = Phase::Confirm { from, loss };
            }
            Phase::Climb { .. } if queue && self.ceiling.is_some() => self.settle(now),
            Phase::Climb { step } => self.climb(now, step, &reading),
            Phase::Probe { .. } => {
                self.probe_pause = PROBE_FIRST;
                self.phase = Phase::Climb { step: STEP };
            }
            Phase::Cruise { probe_at } => self.cruise_on(now, probe_at, &reading),
            Phase::Yield { since, left } => self.yield_on(now, since, left),
        }
    }

    /// Whether loss is above what is always there.
    fn has_risen(&self, reading: &Reading) -> bool {
        reading.loss > self.floor + self.noise(reading)
    }

    /// What two losses may differ by without meaning anything.
    fn noise(&self, reading: &Reading) -> f64 {
        let spread = (reading.loss * (1.0 - reading.loss) / reading.sample).sqrt();
        NOISE + NOISE_PART * self.floor + 2.0 * spread
    }

    /// Whether the rate was made use of. If not, a higher one would not be either.
    fn is_used(&self, reading: &Reading) -> bool {
        reading.sent_bits >= self.bits * 0.85
    }

    fn climb(&mut self, now: Instant, step: f64, reading: &Reading) {
        let arrived = reading.delivered_bits() / (1.0 - self.floor).max(0.05);
        self.ceiling = self.ceiling.map(|ceiling| ceiling.max(arrived));
        if self.bits >= self.top {
            self.cruise(now);
        } else if self.is_used(reading) {
            self.change(self.bits * step, RateReason::TakesMore);
        }
    }

    /// Too much was sent, and it was not chance.
    fn slow_down(&mut self, reading: Reading, from: Phase) {
        if let Phase::Probe { .. } = from {
            self.probe_pause = (self.probe_pause * 2).min(PROBE_LAST);
        }
        let arrived = reading.delivered_bits() / (1.0 - self.floor).max(0.05);
        let reason = match &reading.overflow {
            Some(name) => RateReason::Overflow { name: name.clone() },
            None => RateReason::Loss {
                from: self.floor,
                to: reading.loss,
                at_bits: reading.sent_bits as u64,
            },
        };
        self.phase = Phase::Check { before: reading };
        self.change(arrived * CHECK_SHARE, reason);
    }

    /// The rate was lowered: what became of the loss?
    fn learn(&mut self, now: Instant, before: &Reading, reading: &Reading) {
        let fell = before.loss - reading.loss;
        let excess = before.loss - self.floor;
        if fell < excess / 4.0 {
            let loss = before.loss.max(reading.loss);
            self.floor = loss;
            self.phase = Phase::Climb { step: STEP };
            return self.change(before.sent_bits, RateReason::Steady { loss });
        }
        self.floor = reading.loss;
        // Too much can be less than enough: machines that are overrun take less than they could.
        let arrived = before.delivered_bits();
        let clean = self.clean.take().filter(|&clean| arrived < clean * OVERRUN);
        let arrived = clean.unwrap_or(arrived);
        let ceiling = arrived / (1.0 - self.floor).max(0.05);
        self.ceiling = Some(ceiling.min(self.top / ALONE_SHARE));
        self.settle(now);
    }

    /// At the limit from now on, once the queue that was left there is gone.
    fn settle(&mut self, now: Instant) {
        if self.queued == 0 {
            return self.cruise(now);
        }
        let (since, left) = (now, true);
        self.phase = Phase::Yield { since, left };
        self.change(self.limit() * BESIDE_SHARE, self.reason.clone());
    }

    fn cruise(&mut self, now: Instant) {
        let probe_at = now.after(self.probe_pause);
        self.phase = Phase::Cruise { probe_at };
        self.queued = 0;
        self.change(self.limit() * ALONE_SHARE, self.reason.clone());
    }

    /// What the room takes, as far as is known.
    fn limit(&self) -> f64 {
        self.ceiling.unwrap_or(self.top / ALONE_SHARE)
    }

    fn cruise_on(&mut self, now: Instant, probe_at: Instant, reading: &Reading) {
        if self.queued >= PATIENCE {
            let (since, left) = (now, false);
            self.phase = Phase::Yield { since, left };
            return self.change(self.limit() * BESIDE_SHARE, RateReason::Shared);
        }
        if now >= probe_at && self.bits < self.top && self.is_used(reading) {
            let back_bits = self.bits;
            self.phase = Phase::Probe { back_bits };
            self.change(self.bits * PROBE_STEP, RateReason::TakesMore);
        }
    }

    fn yield_on(&mut self, now: Instant, since: Instant, left: bool) {
        if self.unqueued < PATIENCE {
            if left && now.since(since) >= DRAIN {
                // Ours would be gone by now.
                self.phase = Phase::Yield { since, left: false };
                self.reason = RateReason::Shared;
            }
            return;
        }
        // Gone soon: it was our own queue, and the limit is a little lower than thought.
        if !left && now.since(since) < DRAIN {
            self.ceiling = self.ceiling.map(|ceiling| ceiling * ALONE_SHARE);
        }
        self.reason = RateReason::Alone;
        self.cruise(now);
    }

    fn follow_disks(&mut self, now: Instant, watched: Instant, best: f64, reading: &Reading) {
        if now.since(watched) < WATCH {
            return;
        }
        let best = best.max(self.gauges.disk_blocks(now).unwrap_or(0.0));
        let disk_bits = best * self.block_bits / (1.0 - self.floor).max(0.05);
        let bytes = reading.backlog_bytes;
        if bytes > BACKLOG_LOW {
            self.gauges.watch_disks(now);
            self.phase = Phase::Disks { watched: now, best };
            // A disk that stood still for a while says nothing about its speed.
            let slower = if best > 0.0 {
                disk_bits * CHECK_SHARE
            } else {
                self.bits * DISK_CUT
            };
            return self.change(slower, RateReason::Backlog { bytes });
        }
        self.ceiling = Some(self.bits.max(disk_bits) / ALONE_SHARE);
        self.probe_pause = PROBE_FIRST;
        self.cruise(now);
    }
}
