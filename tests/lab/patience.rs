//! Time limits that know how busy the desk is.
//!
//! A limit is meant for an idle machine. On one with more runnable tasks than
//! cores, waiting costs proportionally less of it, so that a test fails because
//! something hangs and not because somebody else compiles.

use std::{fs, thread, time::Duration, time::Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(200);

/// The load is averaged over the last minute; more often than this it does not move.
const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Even on a hopeless desk a limit grows no further than this factor.
const STRETCH_MAX: f64 = 12.0;

/// What is left of a limit.
#[derive(Debug)]
pub struct Patience {
    what: String,
    limit: Duration,
    spent: Duration,
    ticked: Instant,
    looked: Instant,
    stretch: f64,
}

impl Patience {
    /// A limit for an idle machine, waiting for `what`.
    pub fn new(what: impl Into<String>, limit: Duration) -> Patience {
        let now = Instant::now();
        Patience {
            what: what.into(),
            limit,
            spent: Duration::ZERO,
            ticked: now,
            looked: now,
            stretch: stretch(),
        }
    }

    /// Waits one tick; fails when the limit is used up.
    pub fn tick(&mut self) -> Result<()> {
        thread::sleep(TICK);
        self.look()
    }

    /// Books the time since the last look; fails when the limit is used up.
    pub fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        if now - self.looked >= LOAD_INTERVAL {
            self.stretch = stretch();
            self.looked = now;
        }
        self.spent += (now - self.ticked).div_f64(self.stretch);
        self.ticked = now;
        if self.spent > self.limit {
            bail!(
                "waited in vain for {} (limit {} s on an idle machine)",
                self.what,
                self.limit.as_secs()
            );
        }
        Ok(())
    }
}

/// Looks at the condition until it holds; an error of the condition ends it.
pub fn wait_until(
    what: impl Into<String>,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut patience = Patience::new(what, limit);
    while !condition()? {
        patience.tick()?;
    }
    Ok(())
}

/// How much slower than an idle machine this one is now: 1 when it is idle.
pub(super) fn stretch() -> f64 {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let load = fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    // Emulation shares memory and caches too, so a busy core gives less than its fair part.
    (1.5 * load / cores as f64).clamp(1.0, STRETCH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_costs_nothing() {
        let mut asked = 0;
        wait_until("the obvious", Duration::ZERO, || {
            asked += 1;
            Ok(true)
        })
        .unwrap();
        assert_eq!(asked, 1);
    }

    #[test]
    fn an_exhausted_limit_names_what_was_missed() {
        let error = wait_until("the train", Duration::ZERO, || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the train"), "{error}");
    }
}
