//! What the machines' reports say about one epoch, a stretch of time at one rate.
//!
//! A report tells sums. The difference of two of them is counted for the epoch in which what it is about was
//! sent; sequence numbers say which. Of a difference without loss the part that lies in the epoch counts too.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Instant;
use crate::sender::room::{bearable, place};
use crate::wire::{Phase, Report, ahead};

/// Machines gauged, at most; the rest of a larger room is like them.
const MAX_GAUGES: usize = 16_384;
/// Datagrams a loss is told from, at least.
const MIN_SAMPLE: u32 = 32;

/// What one machine said.
#[derive(Debug)]
struct Gauge {
    name: String,
    heard: Instant,
    /// Sums of its last report.
    as_of: u32,
    expected: u32,
    received: u32,
    overflow: u32,
    backlog_bytes: u64,
    /// Blocks it has, and those it had when the disks began to be watched.
    done_blocks: u32,
    watched: Option<(Instant, u32)>,
    /// The same when `drained_blocks` was asked last.
    drained: (Instant, u32),
    /// Sums of the present epoch.
    epoch: u32,
    sent: u32,
    lost: u32,
    dropped: u32,
    lag: Duration,
}

/// What an epoch was like for the machine that stands for the room.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    /// Bits per second that were sent.
    pub(super) sent_bits: f64,
    /// Loss, 0 to 1.
    pub(super) loss: f64,
    /// Datagrams this is told from.
    pub(super) sample: f64,
    /// Time from leaving to being read, at the median machine; `None` when nobody told.
    pub(super) lag: Option<Duration>,
    /// A machine whose socket dropped most of what it lost, when more do than are left alone.
    pub(super) overflow: Option<String>,
    /// Bytes that wait for the disk.
    pub(super) backlog_bytes: u64,
}

impl Reading {
    /// Bits per second that arrived.
    pub(super) fn delivered_bits(&self) -> f64 {
        self.sent_bits * (1.0 - self.loss)
    }
}

#[derive(Debug, Default)]
pub(super) struct Gauges {
    known: BTreeMap<u64, Gauge>,
    epoch: u32,
    /// Sequence number the present epoch began with.
    first: u32,
    /// Machines that told something of it.
    fresh: usize,
}

impl Gauges {
    /// A new epoch begins with the datagram `first`.
    pub(super) fn turn(&mut self, first: u32) {
        self.epoch = self.epoch.wrapping_add(1);
        self.first = first;
        self.fresh = 0;
    }

    /// Takes a report; `lag` is the age of the datagram it was waiting for.
    pub(super) fn hear(&mut self, now: Instant, report: &Report, lag: Duration) {
        let id = report.receiver;
        if report.phase != Phase::Receiving {
            self.known.remove(&id);
            return;
        }
        let room = self.known.len() < MAX_GAUGES;
        let Some(gauge) = self.known.get_mut(&id) else {
            if room {
                self.known.insert(id, Gauge::new(now, report, self.epoch));
            }
            return;
        };
        gauge.heard = now;
        gauge.backlog_bytes = u64::from(report.backlog_kib) << 10;
        gauge.done_blocks = report.done_blocks;
        if gauge.take(report, lag, (self.epoch, self.first)) {
            self.fresh += 1;
        }
    }

    /// The machine is not here any more.
    pub(super) fn forget(&mut self, id: u64) {
        self.known.remove(&id);
    }

    /// Machines that receive.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Machines that told something of the present epoch.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    /// Machines that were not heard for `patience` do not count any more.
    pub(super) fn prune(&mut self, now: Instant, patience: Duration) {
        self.known
            .retain(|_, gauge| now.since(gauge.heard) < patience);
    }

    /// What the epoch was like, `sent_bits` a second having been sent.
    pub(super) fn read(&mut self, sent_bits: f64) -> Reading {
        let epoch = self.epoch;
        let mut losses = Vec::with_capacity(self.fresh);
        let (mut lags, mut backlogs, mut dropping) = (Vec::new(), Vec::new(), Vec::new());
        for gauge in self.known.values() {
            let fresh = gauge.epoch == epoch && gauge.sent >= MIN_SAMPLE;
            if fresh {
                let loss = f64::from(gauge.lost) / f64::from(gauge.sent);
                losses.push((loss, gauge.sent));
                lags.push(gauge.lag);
                if gauge.dropped > 0 && gauge.dropped >= gauge.lost / 2 {
                    dropping.push((gauge.dropped, gauge.name.as_str()));
                }
            }
            backlogs.push(gauge.backlog_bytes);
        }
        losses.sort_by(|a, b| a.0.total_cmp(&b.0));
        lags.sort();
        backlogs.sort();
        dropping.sort();
        let middle = losses.len().saturating_sub(1) / 2;
        let borne = bearable(losses.get(middle).map_or(0.0, |usual| usual.0 as f32));
        let borne = losses.partition_point(|&(loss, _)| loss as f32 <= borne);
        let decisive = place(losses.len()).min(borne.saturating_sub(1)).max(middle);
        let (loss, sample) = losses.get(decisive).copied().unwrap_or_default();
        let many = dropping.len() + decisive >= losses.len();
        Reading {
            sent_bits,
            loss,
            sample: f64::from(sample.max(MIN_SAMPLE)),
            lag: lags.get(lags.len() / 2).copied(),
            overflow: dropping
                .last()
                .filter(|_| many)
                .map(|&(_, name)| name.to_owned()),
            backlog_bytes: backlogs
                .get(place(backlogs.len()))
                .copied()
                .unwrap_or_default(),
        }
    }

    /// From `now` on the disks are watched.
    pub(super) fn watch_disks(&mut self, now: Instant) {
        for gauge in self.known.values_mut() {
            gauge.watched = Some((now, gauge.done_blocks));
        }
    }

    /// Blocks a second that the disk at the percentile took since it is watched.
    pub(super) fn disk_blocks(&self, now: Instant) -> Option<f64> {
        let speed = |gauge: &Gauge| {
            let (since, done) = gauge.watched?;
            let seconds = now.since(since).as_secs_f64();
            Some(f64::from(gauge.done_blocks.saturating_sub(done)) / seconds.max(1e-3))
        };
        let mut speeds: Vec<f64> = self.known.values().filter_map(speed).collect();
        speeds.sort_by(|a, b| b.total_cmp(a));
        speeds.get(place(speeds.len())).copied()
    }

    /// Blocks a second that the disk at the percentile took since this was asked last; `None` when nobody has told.
    pub(super) fn drained_blocks(&mut self) -> Option<f64> {
        let mut speeds = Vec::with_capacity(self.known.len());
        for gauge in self.known.values_mut() {
            let (since, done) = gauge.drained;
            let seconds = gauge.heard.since(since).as_secs_f64();
            if seconds > 0.0 {
                speeds.push(f64::from(gauge.done_blocks.saturating_sub(done)) / seconds);
                gauge.drained = (gauge.heard, gauge.done_blocks);
            }
        }
        speeds.sort_by(|a, b| b.total_cmp(a));
        speeds.get(place(speeds.len())).copied()
    }
}

impl Gauge {
    fn new(now: Instant, report: &Report, epoch: u32) -> Gauge {
        Gauge {
            name: report.name.clone(),
            heard: now,
            as_of: report.as_of,
            expected: report.expected,
            received: report.received,
            overflow: report.overflow,
            backlog_bytes: u64::from(report.backlog_kib) << 10,
            done_blocks: report.done_blocks,
            watched: None,
            drained: (now, report.done_blocks),
            epoch,
            sent: 0,
            lost: 0,
            dropped: 0,
            lag: Duration::MAX,
        }
    }

    /// Counts what is new since the last report; whether enough of this epoch is known only now.
    fn take(&mut self, report: &Report, lag: Duration, (epoch, first): (u32, u32)) -> bool {
        let sent = report.expected.wrapping_sub(self.expected);
        let came = report.received.wrapping_sub(self.received);
        let dropped = report.overflow.wrapping_sub(self.overflow);
        let whole = ahead(report.as_of, self.as_of);
        let inside = whole.min(ahead(report.as_of, first));
        self.as_of = report.as_of;
        self.expected = report.expected;
        self.received = report.received;
        self.overflow = report.overflow;
        // What was overtaken on the way came late, not twice: more may come than was expected.
        let lost = sent.saturating_sub(came);
        if whole <= 0 || inside <= 0 || (lost > 0 && inside < whole) {
            return false;
        }
        let known = self.epoch == epoch && self.sent >= MIN_SAMPLE;
        if self.epoch != epoch {
            (self.epoch, self.sent, self.lost, self.dropped) = (epoch, 0, 0, 0);
            self.lag = Duration::MAX;
        }
        let part = f64::from(inside) / f64::from(whole);
        let within = |count: u32| (f64::from(count) * part).round() as u32;
        self.sent = self.sent.saturating_add(within(sent).max(1));
        self.lost = self.lost.saturating_add(within(lost));
        self.dropped = self.dropped.saturating_add(within(dropped));
        self.lag = self.lag.min(lag);
        !known && self.sent >= MIN_SAMPLE
    }
}
