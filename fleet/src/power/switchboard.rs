//! Where orders meet machines: one order a machine at a time, and who has been seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::driver::{self, Keyring};
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
    /// The certificate its controller shows, where that was asked for.
    pub(crate) certificate: Option<String>,
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

    /// Take a machine, unless it is taken.
    fn take(&self, machine: i64) -> Option<Taken<'_>> {
        let free = locked(&self.taken).insert(machine);
        free.then_some(Taken {
            switchboard: self,
            machine,
        })
    }

    /// Carry out a plan on one machine.
    pub(super) fn perform(
        &self,
        profiles: &BTreeMap<String, PowerProfile>,
        keys: &dyn Keyring,
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
            certificate: None,
            seen_seconds: None,
            seconds: 0.0,
        };
        let changes = !matches!(plan.action, PowerAction::Status | PowerAction::Trust);
        let taken = changes.then(|| self.take(target.id));
        if let Some(None) = taken {
            outcome.fail(Failure::Busy, "busy: another order for it is under way");
            return outcome;
        }
        self.perform_alone(profiles, keys, target, plan, &mut outcome);
        drop(taken);
        outcome.seconds = begun.elapsed().as_secs_f64();
        outcome
    }

    fn perform_alone(
        &self,
        profiles: &BTreeMap<String, PowerProfile>,
        keys: &dyn Keyring,
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
            match driver::rung(profiles, &self.lines, keys, target, power) {
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
        let Some(wanted) = moved(plan) else {
            look_at_certificate(&mut ladder, outcome);
            return;
        };
        if plan.netboot && plan.action == PowerAction::On && is_on(&mut ladder) {
            let text = "refused: it is on; netflash power cycle or reset --netboot starts it anew";
            outcome.fail(Failure::Refused, text);
            return;
        }
        if plan.netboot && !choose_network(&mut ladder, plan, outcome) {
            return;
        }
        let switched = Instant::now();
        let Some(Reached { by, state }) = ladder.act(wanted, &mut outcome.attempts) else {
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

/// Whether some way says that the machine is on.
fn is_on(ladder: &mut Ladder<'_>) -> bool {
    let state = ladder.act(Move::Status, &mut Vec::new());
    state.is_some_and(|reached| reached.state == Some(PowerState::On))
}

/// A machine with an order under way; free again when dropped.
struct Taken<'a> {
    switchboard: &'a Switchboard,
    machine: i64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        locked(&self.switchboard.taken).remove(&self.machine);
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

/// The certificate of the first way that has one.
fn look_at_certificate(ladder: &mut Ladder<'_>, outcome: &mut PowerOutcome) {
    for rung in &mut ladder.rungs {
        match rung.certificate() {
            Ok(pin) => {
                outcome.by = Some(rung.name.clone());
                outcome.certificate = Some(pin.to_string());
                return;
            }
            Err(error) => outcome.attempts.push(Attempt {
                power: rung.name.clone(),
                failure: error.failure,
                error: error.to_string(),
            }),
        }
    }
    outcome.fail_as_attempted();
}

/// What the ladder is asked for; nothing when only a certificate is looked at.
fn moved(plan: &Plan) -> Option<Move> {
    Some(match plan.action {
        PowerAction::Status => Move::Status,
        PowerAction::On => Move::On,
        PowerAction::Off => Move::Off { soft: plan.soft },
        PowerAction::Cycle => Move::Cycle,
        PowerAction::Reset => Move::Reset,
        PowerAction::Bootdev => Move::BootNext(plan.boot),
        PowerAction::Trust => return None,
    })
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
