//! A machine's ladder: the ways it can be switched, tried in order until one has worked.
//!
//! ```text
//!   ssh:HOST ─ fails ─▶ bmc:HOST ─ fails ─▶ pdu:HOST/7 ─ fails ─▶ failed, with the word of each
//!      │                   │                    │
//!      └───────────────────┴────────────────────┴── worked: the state was read back
//! ```
//!
//! A device that accepted an order is not a machine that is on. The state is read back by the rung that acted or,
//! where that one cannot tell, by the next one that can. Where none can, the witness decides: the machine was seen.
//! A cycle that no single way can do is done by two: SSH switches off, Wake-on-LAN on.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::rung::Rung;
use super::{NextBoot, PowerState};

/// Pause before the second look at the state; it doubles with each look.
const LOOK: Duration = Duration::from_millis(100);
/// Longest pause between two looks.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The last look has this much time, less where the deadline is short: a controller keeps the session of a client that
/// was cut off.
const ROOM: Duration = Duration::from_secs(2);
/// A reset that was accepted has begun after this. Whether it has happened, only the machine itself can tell.
const SETTLE: Duration = Duration::from_secs(1);

/// What a ladder is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    Status,
    On,
    /// Off; soft asks the operating system first.
    Off {
        soft: bool,
    },
    Cycle,
    Reset,
    BootNext(NextBoot),
}

/// A way that did not work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// `PROFILE:ADDRESS`.
    pub(crate) power: String,
    /// The word for what went wrong.
    pub(crate) failure: Failure,
    /// The whole of it.
    pub(crate) error: String,
}

/// What worked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reached {
    /// The rung that did it.
    pub(super) by: String,
    /// The state read back, where there is one.
    pub(super) state: Option<PowerState>,
}

/// The ways to switch one machine, best first.
pub(super) struct Ladder<'a> {
    pub(super) rungs: Vec<Rung>,
    /// Whether the machine has shown itself since the order began.
    pub(super) seen: &'a (dyn Fn() -> bool + Sync),
}

impl Ladder<'_> {
    /// Do it by the first rung that can. What did not work before it is added to `failed`.
    pub(super) fn act(&mut self, wanted: Move, failed: &mut Vec<Attempt>) -> Option<Reached> {
        let before = failed.len();
        if let Some(reached) = self.act_by_one(wanted, failed) {
            return Some(reached);
        }
        let unsupported = |attempt: &Attempt| attempt.failure == Failure::Unsupported;
        if wanted != Move::Cycle || !failed[before..].iter().all(unsupported) {
            return None;
        }
        self.cycle_by_two(before, failed)
    }

    /// No way can switch both off and on: one of them switches off, another one on.
    fn cycle_by_two(&mut self, before: usize, failed: &mut Vec<Attempt>) -> Option<Reached> {
        let drivers = || self.rungs.iter().map(|rung| &rung.driver);
        let rest = drivers().map(|driver| driver.rest()).max()?;
        if !drivers().any(|driver| driver.switches_off())
            || !drivers().any(|driver| driver.switches_on())
        {
            return None;
        }
        failed.truncate(before);
        self.act_by_one(Move::Off { soft: true }, failed)?;
        thread::sleep(rest);
        self.act_by_one(Move::On, failed)
    }

    fn act_by_one(&mut self, wanted: Move, failed: &mut Vec<Attempt>) -> Option<Reached> {
        for at in 0..self.rungs.len() {
            match self.act_by(at, wanted) {
                Ok(state) => {
                    let by = self.rungs[at].name.clone();
                    return Some(Reached { by, state });
                }
                Err(error) => failed.push(Attempt {
                    power: self.rungs[at].name.clone(),
                    failure: error.failure,
                    error: error.to_string(),
                }),
            }
        }
        None
    }

    fn act_by(&mut self, at: usize, wanted: Move) -> Result<Option<PowerState>, PowerError> {
        let until = Deadline::after(self.rungs[at].deadline);
        match wanted {
            Move::Status => self.rungs[at].status(until).map(Some),
            Move::On => self.switch_on(at, until),
            Move::Off { soft } => self.switch_off(at, soft, until),
            Move::Cycle => {
                if self.state(at, until)? == Some(PowerState::Off) {
                    return self.switch_on(at, until);
                }
                match self.rungs[at].ask(until, |driver, until| driver.cycle(until)) {
                    Err(error)
                        if error.failure == Failure::Unsupported
                            && self.rungs[at].driver.switches_on() =>
                    {
                        self.switch_off(at, false, until)?;
                        thread::sleep(self.rungs[at].driver.rest().min(until.left()));
                        self.switch_on(at, until)
                    }
                    other => {
                        other?;
                        thread::sleep(SETTLE.min(until.left()));
                        self.confirm(at, PowerState::On, until)
                    }
                }
            }
            Move::Reset => {
                if self.state(at, until)? == Some(PowerState::Off) {
                    return self.switch_on(at, until);
                }
                self.rungs[at].ask(until, |driver, until| driver.reset(until))?;
                thread::sleep(SETTLE.min(until.left()));
                self.confirm(at, PowerState::On, until)
            }
            Move::BootNext(boot) => {
                self.rungs[at].ask(until, |driver, until| driver.boot_next(boot, until))?;
                // Not every device can be asked what it has noted.
                match self.rungs[at].ask(until, |driver, until| driver.next_boot(until)) {
                    Ok(noted) if noted == boot => Ok(None),
                    Ok(noted) => Err(Failure::NotConfirmed.because(format!(
                        "asked for {boot}, but the device has noted {noted}"
                    ))),
                    Err(error) if error.failure == Failure::Unsupported => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }

    fn switch_on(&mut self, at: usize, until: Deadline) -> Result<Option<PowerState>, PowerError> {
        if self.state(at, until)? != Some(PowerState::On) {
            self.rungs[at].ask(until, |driver, until| driver.on(until))?;
        } else if at > 0 && !self.rungs[at].driver.tells_on() {
            // It is here because nothing before it could start the machine, and its current has been there all along.
            let text = "the outlet was on already; cycle takes the current away";
            return Err(Failure::NotConfirmed.because(text));
        }
        self.confirm(at, PowerState::On, until)
    }

    fn switch_off(
        &mut self,
        at: usize,
        soft: bool,
        until: Deadline,
    ) -> Result<Option<PowerState>, PowerError> {
        if self.state(at, until)? == Some(PowerState::Off) {
            return Ok(Some(PowerState::Off));
        }
        if soft {
            let asked = self.rungs[at].ask(until, |driver, until| driver.shut_down(until));
            match asked.and_then(|()| self.confirm(at, PowerState::Off, until)) {
                Ok(state) => return Ok(state),
                Err(error) if error.failure == Failure::WrongPassword => return Err(error),
                // An operating system that does not listen is switched off.
                Err(_) => {}
            }
        }
        let until = Deadline::after(self.rungs[at].deadline);
        self.rungs[at].ask(until, |driver, until| driver.off(until))?;
        self.confirm(at, PowerState::Off, until)
    }

    /// The state as rung `at` sees it, else as another one does; `None` when none can tell.
    fn state(&mut self, at: usize, until: Deadline) -> Result<Option<PowerState>, PowerError> {
        if self.rungs[at].tells_off() {
            return self.rungs[at].status(until).map(Some);
        }
        for rung in self.rungs.iter_mut().filter(|rung| rung.tells_off()) {
            // What that rung lacks is told when its own turn comes.
            match rung.status(until) {
                Ok(PowerState::On) if !rung.driver.tells_on() => {}
                Ok(state) => return Ok(Some(state)),
                Err(_) => {}
            }
        }
        match self.rungs[at].status(until) {
            Err(error) if error.failure == Failure::Unsupported => Ok(None),
            other => other.map(Some),
        }
    }

    fn confirm(
        &mut self,
        at: usize,
        wanted: PowerState,
        until: Deadline,
    ) -> Result<Option<PowerState>, PowerError> {
        let mut pause = LOOK;
        let mut asked = Instant::now();
        loop {
            let last = self.state(at, until);
            match &last {
                Ok(Some(state)) if *state == wanted => return Ok(Some(wanted)),
                // A device that refuses the login is not asked in a loop.
                Err(error) if error.failure == Failure::WrongPassword => return Err(error.clone()),
                Ok(None) if wanted == PowerState::On && (self.seen)() => return Ok(Some(wanted)),
                _ => {}
            }
            if until.left() <= pause + until.share(ROOM) {
                last?;
                let text = format!("not {wanted} within {} s", until.seconds());
                return Err(Failure::NotConfirmed.because(text));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LOOK_MAX);
            if let Some(again) = self.rungs[at].driver.repeats()
                && wanted == PowerState::On
                && asked.elapsed() >= again
            {
                self.rungs[at].ask(until, |driver, until| driver.on(until))?;
                asked = Instant::now();
            }
        }
    }
}

#[cfg(test)]
mod tests;
