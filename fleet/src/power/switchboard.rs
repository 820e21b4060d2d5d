//! Where orders meet machines: one order a machine at a time, and who has been seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::driver::{self, FindLogin};
use super::failure::Failure;
use super::ladder::{Attempt, Ladder, Move, Reached};
use super::line::Lines;
use super::order::{Orders, Plan};
use super::profile::PowerProfile;
use super::{PowerAction, PowerState};

/// Pause between two looks whether a machine was seen.
const LOOK: Duration = Duration::from_millis(250);

/// A machine to be switched.
#[derive(Debug, Clone)]
pub(crate) struct PowerTarget {
    /// The server's number for it.
    pub(crate) id: i64,
    /// Its name.
    pub(crate) name: String,
    /// Its first MAC address.
    pub(crate) mac: String,
    /// Its power settings, best first.
    pub(crate) power: Vec<String>,
}

/// What became of one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PowerOutcome {
    /// The machine's name.
    pub(crate) machine: String,
    /// The state it was last seen in.
    pub(crate) state: Option<PowerState>,
    /// The power setting that worked.
    pub(crate) by: Option<String>,
    /// Why it did not work: the word, of the last way that was tried.
    pub(crate) failure: Option<Failure>,
    /// Why it did not work, in full.
    pub(crate) error: Option<String>,
    /// The ways that did not work, also when another one did.
    pub(crate) attempts: Vec<Attempt>,
    /// Seconds from switching on to its question what to boot, where that was waited for.
    pub(crate) seen_seconds: Option<f64>,
    /// Seconds all of it took.
    pub(crate) seconds: f64,
}

/// The lines to all devices, the orders under way, and when machines were seen last.
#[derive(Default)]
pub(crate) struct Switchboard {
    lines: Lines,
    pub(super) orders: Orders,
    /// Machines with an order under way.
    taken: Mutex<BTreeSet<i64>>,
    /// When a machine last asked what to boot.
    seen: Mutex<BTreeMap<i64, Instant>>,
}

impl Switchboard {
    /// Note that a machine asks what to boot.
    pub(crate) fn machine_seen(&self, machine: i64) {
        locked(&self.seen).insert(machine, Instant::now());
    }

    /// Forget a machine.
    pub(crate) fn machine_gone(&self, machine: i64) {
        locked(&self.seen).remove(&machine);
    }

    /// Carry out a plan on one machine.
    pub(super) fn perform(
        &self,
        profiles: &BTreeMap<String, PowerProfile>,
        login: &FindLogin<'_>,
        target: &PowerTarget,
        plan: &Plan,
    ) -> PowerOutcome {
        let begun = Instant::now();
        let mut outcome = PowerOutcome {
            machine: target.name.clone(),
            state: None,
            by: None,
            failure: None,
            error: None,
            attempts: Vec::new(),
            seen_seconds: None,
            seconds: 0.0,
        };
        let changes = plan.action != PowerAction::Status;
        if changes && !locked(&self.taken).insert(target.id) {
            outcome.fail(Failure::Busy, "busy: another order for it is under way");
            return outcome;
        }
        self.perform_alone(profiles, login, target, plan, &mut outcome);
        if changes {
            locked(&self.taken).remove(&target.id);
        }
        outcome.seconds = begun.elapsed().as_secs_f64();
        outcome
    }

    fn perform_alone(
        &self,
        profiles: &BTreeMap<String, PowerProfile>,
        login: &FindLogin<'_>,
        target: &PowerTarget,
        plan: &Plan,
        outcome: &mut PowerOutcome,
    ) {
        let begun = Instant::now();
        let seen_since = |moment: Instant| {
            let seen = locked(&self.seen);
            seen.get(&target.id).is_some_and(|at| *at >= moment)
        };
        let seen = || seen_since(begun);
        let mut ladder = Ladder {
            rungs: Vec::new(),
            seen: &seen,
        };
        for power in &target.power {
            match driver::rung(profiles, &self.lines, login, target, power) {
                Ok(rung) => ladder.rungs.push(rung),
                Err(error) => outcome.attempts.push(Attempt {
                    power: power.clone(),
                    failure: error.failure,
                    error: error.to_string(),
                }),
            }
        }
        if target.power.is_empty() {
            outcome.fail(Failure::Setting, "setting: it has no power setting");
            return;
        }
        if plan.netboot && !choose_network(&mut ladder, plan, outcome) {
            return;
        }
        let switched = Instant::now();
        let Some(Reached { by, state }) = ladder.act(moved(plan), &mut outcome.attempts) else {
            outcome.fail_as_attempted();
            return;
        };
        outcome.by = Some(by);
        outcome.state = state;
        if plan.netboot {
            let within = Duration::from_secs(plan.within_seconds);
            while !seen_since(switched) {
                if switched.elapsed() >= within {
                    let text = format!(
                        "not seen at the server within {} s; see that its firmware may boot from the network",
                        plan.within_seconds
                    );
                    outcome.fail(Failure::NotSeen, &text);
                    return;
                }
                thread::sleep(LOOK);
            }
            outcome.seen_seconds = Some(switched.elapsed().as_secs_f64());
        }
    }
}

/// Have the network booted next. Where no way can choose that, the firmware's own order may do it: the machine's
/// question what to boot is the proof in any case.
fn choose_network(ladder: &mut Ladder<'_>, plan: &Plan, outcome: &mut PowerOutcome) -> bool {
    let mut failed = Vec::new();
    if ladder.act(Move::BootNext(plan.boot), &mut failed).is_some()
        || failed
            .iter()
            .all(|attempt| attempt.failure == Failure::Unsupported)
    {
        return true;
    }
    outcome.attempts.extend(failed);
    outcome.fail_as_attempted();
    false
}

fn moved(plan: &Plan) -> Move {
    match plan.action {
        PowerAction::Status => Move::Status,
        PowerAction::On => Move::On,
        PowerAction::Off => Move::Off { soft: plan.soft },
        PowerAction::Cycle => Move::Cycle,
        PowerAction::Reset => Move::Reset,
        PowerAction::Bootdev => Move::BootNext(plan.boot),
    }
}

impl PowerOutcome {
    fn fail(&mut self, failure: Failure, error: &str) {
        self.failure = Some(failure);
        self.error = Some(error.to_owned());
    }

    /// Every way failed: the last word is that of the last one, but "unsupported" says least.
    fn fail_as_attempted(&mut self) {
        let telling = |attempt: &&Attempt| attempt.failure != Failure::Unsupported;
        let attempts = &self.attempts;
        let last = attempts.iter().rfind(telling).or(attempts.last());
        let failure = last.map_or(Failure::Setting, |attempt| attempt.failure);
        let error = match attempts.as_slice() {
            [only] => only.error.clone(),
            several => {
                let each = several
                    .iter()
                    .map(|attempt| format!("{}: {}", attempt.power, attempt.error));
                each.collect::<Vec<_>>().join("; ")
            }
        };
        self.fail(failure, &error);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Single insertions and removals: a thread that died left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
