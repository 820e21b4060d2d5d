//! What programs hold in memory, while it goes on.

use std::{
    fs,
    time::{Duration, Instant},
};

/// The part of a run that is left for buffers to fill and threads to come. The machines that hardly anything reaches
/// take a quarter of an hour to fill the 24 MiB of blocks they may keep open.
const WARM_UP: f64 = 0.5;
/// The part of a run at either end of what is judged over which the middle value is taken.
const WINDOW: f64 = 0.1;
/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// The resident memory of one process over time.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) name: String,
    pid: u32,
    looked: Option<Instant>,
    /// KiB, one for each look.
    samples: Vec<u64>,
}

/// How much it was after the warm-up, how much in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Growth {
    pub(crate) warm_kib: u64,
    pub(crate) last_kib: u64,
    pub(crate) most_kib: u64,
}

impl Watch {
    pub(crate) fn new(name: impl Into<String>, pid: u32) -> Watch {
        Watch {
            name: name.into(),
            pid,
            looked: None,
            samples: Vec::new(),
        }
    }

    /// Looks, when it is time to.
    pub(crate) fn look(&mut self) {
        if self.looked.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        self.looked = Some(Instant::now());
        // A process that has ended holds nothing, and is not a sample.
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: Option<u64> =
            resident.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        self.samples.extend(kib);
    }

    pub(crate) fn growth(&self) -> Option<Growth> {
        growth_of(&self.samples)
    }
}

impl Growth {
    /// Of what was held after the warm-up, in per cent; negative when less is held.
    pub(crate) fn percent(&self) -> f64 {
        100.0 * (self.last_kib as f64 / self.warm_kib.max(1) as f64 - 1.0)
    }
}

fn growth_of(samples: &[u64]) -> Option<Growth> {
    let count = samples.len();
    let window = ((count as f64 * WINDOW) as usize).max(1);
    let from = (count as f64 * WARM_UP) as usize;
    Some(Growth {
        warm_kib: middle(samples.get(from..from + window)?)?,
        last_kib: middle(&samples[count - window..])?,
        most_kib: *samples.iter().max()?,
    })
}

fn middle(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::growth_of;

    #[test]
    fn filling_up_is_no_growth_and_leaking_is() {
        let full: Vec<u64> = (0..1000).map(|second| 100 * second.min(200)).collect();
        assert_eq!(growth_of(&full).map(|growth| growth.percent()), Some(0.0));
        let leak: Vec<u64> = (0..1000).map(|second| 10_000 + 10 * second).collect();
        assert!(growth_of(&leak).is_some_and(|growth| growth.percent() > 25.0));
        assert_eq!(growth_of(&[]), None);
    }
}
