//! How fast a session is sent: at a given rate, or as fast as the room takes it.
//!
//! The automatic rate compares stretches of time, *epochs*, at different rates. What counts is what arrives at the
//! machine of the 90th percentile: sending more is right as long as more arrives. Loss that is there at any rate is
//! answered by repair; only loss that comes with the rate slows it.
//!
//! What an epoch makes of the rate is in `judgement.rs`. A given rate is kept exactly, unless the room does not keep up
//! with it: see `brake.rs`.

use std::time::Duration;

use crate::clock::Instant;
use crate::wire::Report;

mod brake;
mod gauge;
mod judgement;
mod reason;
#[cfg(test)]
mod tests;
mod trail;

use brake::Brake;
use gauge::Gauges;
use judgement::Phase;
use trail::Trail;

pub use reason::RateReason;

/// How fast a session is sent, in bits per second on the wire, Ethernet headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// At this rate, or slower while most machines do not keep up with it.
    Fixed(u64),
    /// As fast as the room takes it.
    Auto {
        /// Speed of the link the sender is on: it is not filled to the brim.
        link_bits: u64,
    },
}

/// The slowest automatic rate.
const BITS_MIN: f64 = 1e6;
/// The part of the link that is taken at most.
const LINK_SHARE: f64 = 0.97;
/// The part of the link to begin with, and the most of it: a server's link is often faster than its room.
const START_SHARE: f64 = 0.5;
const START_MAX: f64 = 500e6;
/// An epoch is to last so many report intervals, within these bounds, and so many times as long when few report.
const EPOCH_INTERVALS: u32 = 4;
const EPOCH_MIN: Duration = Duration::from_millis(100);
const EPOCH_MAX: Duration = Duration::from_secs(1);
const EPOCH_EXTRA: u32 = 4;
/// Machines that must have told of an epoch: so many per cent, and not more than this.
const QUORUM_PERCENT: usize = 75;
const QUORUM_MAX: usize = 256;
/// Steps upwards before the first limit is met.
const FIRST_STEP: f64 = 1.5;
/// Time between two probes, after one that was right.
const PROBE_FIRST: Duration = Duration::from_secs(2);
/// Nobody heard for so long, or so many intervals: slower, by `SILENCE_CUT`.
const SILENCE: Duration = Duration::from_secs(2);
const SILENCE_INTERVALS: u32 = 10;
const SILENCE_CUT: f64 = 0.7;
/// Changes are told when they are as large as this part, and at most this often.
const TELL_PART: f64 = 0.05;
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The rate of one session, and what it is judged by.
#[derive(Debug)]
pub(super) struct Pace {
    automatic: bool,
    brake: Brake,
    bits: f64,
    top: f64,
    phase: Phase,
    /// Loss that is there at lower rates too.
    floor: f64,
    /// What the room was found to take.
    ceiling: Option<f64>,
    /// What arrived in the best epoch without a sign of trouble, since the last limit was met.
    clean: Option<f64>,
    probe_pause: Duration,
    /// Epochs in a row with a standing queue, without one, and with a full disk queue.
    queued: u32,
    unqueued: u32,
    full: u32,
    block_bits: f64,
    gauges: Gauges,
    trail: Trail,
    since: Instant,
    sent_bytes: u64,
    heard: Instant,
    flowing: bool,
    reason: RateReason,
    told_bits: f64,
    told_at: Option<Instant>,
}

impl Pace {
    /// The pace of a session whose blocks are `block_bytes` long on average.
    pub(super) fn new(now: Instant, rate: Rate, block_bytes: u64) -> Pace {
        let (automatic, bits, top) = match rate {
            Rate::Fixed(bits) => (false, bits as f64, bits as f64),
            Rate::Auto { link_bits } => {
                let link = (link_bits as f64).max(BITS_MIN);
                let start = (link * START_SHARE).clamp(BITS_MIN, START_MAX);
                (true, start, link * LINK_SHARE)
            }
        };
        Pace {
            automatic,
            brake: Brake::default(),
            bits,
            top,
            phase: Phase::Climb { step: FIRST_STEP },
            floor: 0.0,
            ceiling: None,
            clean: None,
            probe_pause: PROBE_FIRST,
            queued: 0,
            unqueued: 0,
            full: 0,
            block_bits: block_bytes as f64 * 8.0,
            gauges: Gauges::default(),
            trail: Trail::default(),
            since: now,
            sent_bytes: 0,
            heard: now,
            flowing: false,
            reason: RateReason::Start,
            // What was given is known.
            told_bits: if automatic { 0.0 } else { bits },
            told_at: None,
        }
    }

    /// Bits per second on the wire.
    pub(super) fn bits(&self) -> u64 {
        self.bits as u64
    }

    /// `bytes` leave, headers included; `sequence` is that of the next data datagram.
    pub(super) fn sent(&mut self, now: Instant, sequence: u32, bytes: u64) {
        self.sent_bytes += bytes;
        if self.automatic {
            self.trail.mark(now, sequence);
        }
    }

    /// Takes a report; `next` is the next sequence number.
    pub(super) fn hear(&mut self, now: Instant, report: &Report, next: u32) {
        self.heard = now;
        let lag = self.trail.age(now, report.as_of, next);
        self.gauges.hear(now, report, lag);
    }

    /// The machine is gone.
    pub(super) fn forget(&mut self, id: u64) {
        self.gauges.forget(id);
    }

    /// Looks whether the rate has to change, the payload `flowing` and machines reporting every `interval`. A change
    /// worth telling is returned; not each one is.
    pub(super) fn tend(
        &mut self,
        now: Instant,
        next: u32,
        interval: Duration,
        flowing: bool,
    ) -> Option<(u64, RateReason)> {
        if !flowing || !self.flowing {
            // What was before the payload says nothing about it.
            self.flowing = flowing;
            self.heard = now;
            self.turn(now, next);
        }
        let length = now.since(self.since);
        let least = (interval * EPOCH_INTERVALS).clamp(EPOCH_MIN, EPOCH_MAX);
        let quorum = (self.gauges.len() * QUORUM_PERCENT).div_ceil(100);
        let quorum = quorum.clamp(1, QUORUM_MAX);
        // Behind a long queue, reports are about an earlier epoch for a while.
        let known = match self.gauges.fresh() {
            0 => length >= EPOCH_MAX * EPOCH_EXTRA,
            fresh => fresh >= quorum || length >= least * EPOCH_EXTRA,
        };
        if flowing && length >= least && known {
            self.close_epoch(now, length, interval);
            self.turn(now, next);
        }
        self.news(now)
    }

    fn turn(&mut self, now: Instant, next: u32) {
        self.since = now;
        self.sent_bytes = 0;
        self.gauges.turn(next);
    }

    fn close_epoch(&mut self, now: Instant, length: Duration, interval: Duration) {
        let patience = SILENCE.max(interval * SILENCE_INTERVALS);
        self.gauges.prune(now, patience * 4);
        if self.automatic && self.gauges.len() > 0 && now.since(self.heard) >= patience {
            return self.change(self.bits * SILENCE_CUT, RateReason::Silence);
        }
        if self.gauges.fresh() == 0 {
            return;
        }
        let sent_bits = self.sent_bytes as f64 * 8.0 / length.as_secs_f64();
        let reading = self.gauges.read(sent_bits);
        if self.automatic {
            return self.judge(now, reading);
        }
        let drain = self.gauges.drained_blocks();
        let drain = drain.map(|blocks| blocks * self.block_bits);
        let (bits, reason) = self.brake.judge(self.top, &reading, drain);
        // No slowest rate here: even less may have been given.
        if bits != self.bits {
            (self.bits, self.reason) = (bits, reason);
        }
    }

    fn change(&mut self, bits: f64, reason: RateReason) {
        let bits = bits.clamp(BITS_MIN, self.top.max(BITS_MIN));
        if bits != self.bits {
            self.bits = bits;
            self.reason = reason;
        }
    }

    /// The rate and its reason, if that is worth a word.
    fn news(&mut self, now: Instant) -> Option<(u64, RateReason)> {
        let soon = self
            .told_at
            .is_some_and(|told| now.since(told) < TELL_EVERY);
        let little = (self.bits - self.told_bits).abs() < self.told_bits * TELL_PART;
        // A step that is only tried is not news until it has proved right.
        if soon || little || !self.flowing || matches!(self.phase, Phase::Probe { .. }) {
            return None;
        }
        self.told_at = Some(now);
        self.told_bits = self.bits;
        Some((self.bits(), self.reason.clone()))
    }
}
