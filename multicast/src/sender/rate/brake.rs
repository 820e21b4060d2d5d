//! What a given rate is lowered to while the room does not keep up with it.
//!
//! Datagrams that a machine has no room for are sent again later, and cost it and everybody time twice. So a given
//! rate is kept exactly as long as the machine at the percentile keeps up, and is a ceiling when its disk or its
//! processor does not. Loss on the way does not count: whoever gives a rate has judged the network.

use super::gauge::Reading;
use super::reason::RateReason;

/// Bytes waiting for a disk at which the rate begins to follow it, which are also to wait then: the disk is never
/// idle, and what a late report hides still fits, for a receiver holds some 40 MiB.
const TARGET: f64 = 12.0 * 1048576.0;
/// When no more than this waits, the disk takes more than it gets.
const LOW: f64 = TARGET / 3.0;
/// How strongly the rate leans towards the target, and the least part of what disks take that is sent meanwhile.
const LEANING: f64 = 0.7;
const SHARE_MIN: f64 = 0.25;
/// The part of what arrived that is sent when sockets overflow.
const OVERFLOW_CUT: f64 = 0.85;
/// From one epoch to the next the rate changes by these factors, at most: one epoch may say little.
const CUT: f64 = 0.4;
const GROWTH: f64 = 1.25;
const GROWTH_LOW: f64 = 1.5;
/// The slowest, as a part of the given rate: who stands still is found out by whoever goes on.
const SLOWEST: f64 = 0.05;

#[derive(Debug, Default)]
pub(super) struct Brake {
    /// Bits per second that the room takes, while that is less than the given rate.
    limit: Option<f64>,
    /// Bits per second that went to disks lately.
    drain: Option<f64>,
}

impl Brake {
    /// The rate after an epoch like this at `bits` per second, at most `ceiling`; `drain` went to the disk of the
    /// machine at the percentile meanwhile.
    pub(super) fn judge(
        &mut self,
        ceiling: f64,
        reading: &Reading,
        drain: Option<f64>,
    ) -> (f64, RateReason) {
        let mean = |drain: f64| self.drain.map_or(drain, |before| (before + drain) / 2.0);
        self.drain = drain.map(mean).or(self.drain);
        let backlog = reading.backlog_bytes as f64;
        let bits = self.limit.unwrap_or(ceiling);
        let (limit, reason) = if let Some(name) = &reading.overflow {
            let arrived = reading.delivered_bits().min(bits);
            let name = name.clone();
            (arrived * OVERFLOW_CUT, RateReason::Overflow { name })
        } else if self.limit.is_none() && backlog < TARGET {
            return (ceiling, RateReason::TakesMore);
        } else if backlog < LOW {
            (bits * GROWTH_LOW, RateReason::TakesMore)
        } else {
            let share = (1.0 + LEANING * (1.0 - backlog / TARGET)).max(SHARE_MIN);
            let follows = self.drain.map_or(0.0, |drain| drain * share);
            let bytes = reading.backlog_bytes;
            let reason = if follows < bits {
                RateReason::Backlog { bytes }
            } else {
                RateReason::TakesMore
            };
            (follows.clamp(bits * CUT, bits * GROWTH), reason)
        };
        let limit = limit.max(ceiling * SLOWEST);
        self.limit = Some(limit).filter(|&limit| limit < ceiling);
        (limit.min(ceiling), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: f64 = 1e9;
    /// Time between two judgements, in seconds.
    const EPOCH: f64 = 0.12;

    /// Runs a room whose disks take `disk` bits per second, heard of an epoch late; backlogs in MiB.
    fn run(disk: f64, seconds: f64) -> (Vec<f64>, f64) {
        let (mut brake, mut bits, mut backlog) = (Brake::default(), CEILING, 0.0_f64);
        let (mut late, mut waiting) = ((0.0, 0.0), Vec::new());
        let mut passed = 0.0;
        for _ in 0..(seconds / EPOCH) as u32 {
            let came = backlog + bits * EPOCH / 8.0;
            let written = came.min(disk * EPOCH / 8.0);
            backlog = came - written;
            passed += written * 8.0;
            waiting.push(backlog / 1048576.0);
            let reading = Reading {
                sent_bits: bits,
                backlog_bytes: late.0 as u64,
                ..Reading::default()
            };
            bits = brake.judge(CEILING, &reading, Some(late.1)).0;
            late = (backlog, written * 8.0 / EPOCH);
        }
        (waiting, passed / seconds)
    }

    #[test]
    fn a_room_that_keeps_up_gets_exactly_what_was_given() {
        let (waiting, bits) = run(2e9, 3.0);
        assert!(waiting.iter().all(|&mebibytes| mebibytes == 0.0));
        assert!((bits / CEILING - 1.0).abs() < 0.02, "{bits}");
    }

    #[test]
    fn slow_disks_are_kept_busy_and_nothing_is_sent_in_vain() {
        for disk in [0.1, 0.2, 0.4, 0.6, 0.8, 0.95] {
            let (waiting, bits) = run(disk * CEILING, 12.0);
            // A receiver holds about 40 MiB.
            let most = waiting.iter().fold(0.0_f64, |most, &now| most.max(now));
            assert!(most < 40.0, "{disk}: {most:.0} MiB");
            let share = bits / (disk * CEILING);
            assert!(share > 0.93, "{disk}: {share:.2} of what the disks take");
        }
    }

    #[test]
    fn sockets_that_overflow_slow_it_and_are_tried_again() {
        let mut brake = Brake::default();
        let mut reading = Reading {
            sent_bits: CEILING,
            loss: 0.3,
            overflow: Some("lab1".to_owned()),
            ..Reading::default()
        };
        let (slow, reason) = brake.judge(CEILING, &reading, Some(0.6e9));
        assert!((0.5e9..0.65e9).contains(&slow), "{slow}");
        assert!(matches!(reason, RateReason::Overflow { .. }));
        reading.overflow = None;
        let next = brake.judge(CEILING, &reading, Some(slow)).0;
        assert!(next > slow && next <= slow * GROWTH_LOW);
        for _ in 0..10 {
            brake.judge(CEILING, &reading, Some(CEILING));
        }
        assert_eq!(brake.judge(CEILING, &reading, None).0, CEILING);
    }
}
