//! Switching machines on and off.
//!
//! A driver says what it can find out, in one vocabulary for all kinds: a device that only *accepted* an order is not
//! a machine that is on. Each action reads the state back until it is reached or the deadline passes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::PowerProfile;

mod command;
mod qmp;

use command::CommandPower;
use qmp::QmpPower;

/// Machines switched at the same time.
const PARALLEL_MAX: usize = 16;
/// Pause between two looks at the state.
const LOOK: Duration = Duration::from_millis(200);

/// What a machine's power supply is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PowerAction {
    /// Switch on; a machine that is on stays on.
    On,
    /// Switch off, hard.
    Off,
    /// Off and on, or a reset.
    Cycle,
    /// Say how it is.
    Status,
}

/// Whether a machine is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PowerState {
    /// It runs.
    On,
    /// It does not.
    Off,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PowerState::On => "on",
            PowerState::Off => "off",
        })
    }
}

/// Why a machine was not switched; the same words for every driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PowerError {
    /// Nothing answers at the address.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The device cannot do this.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The device said no.
    #[error("refused: {0}")]
    Refused(String),
    /// It accepted, but the state did not change in time.
    #[error("accepted, but not {wanted} after {seconds} s")]
    AcceptedNotConfirmed {
        /// The state that was to come.
        wanted: PowerState,
        /// The deadline.
        seconds: u64,
    },
    /// Its answer makes no sense.
    #[error("unexpected answer: {0}")]
    Protocol(String),
    /// The machine's power setting names nothing usable.
    #[error("{0}")]
    Profile(String),
}

/// A machine's power supply.
pub(crate) trait Power: Send {
    /// Whether the machine is on.
    fn status(&mut self) -> Result<PowerState, PowerError>;
    /// Ask for on.
    fn on(&mut self) -> Result<(), PowerError>;
    /// Ask for off, hard.
    fn off(&mut self) -> Result<(), PowerError>;
    /// Ask for off and on in one step; `Unsupported` when there is no such step.
    fn reset(&mut self) -> Result<(), PowerError>;
    /// How long an action may take.
    fn deadline(&self) -> Duration;
}

/// `PROFILE:ADDRESS`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PowerAddress {
    profile: String,
    address: String,
}

impl FromStr for PowerAddress {
    type Err = PowerError;

    fn from_str(text: &str) -> Result<Self, PowerError> {
        let (profile, address) = text.split_once(':').unwrap_or((text, ""));
        if profile.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
            return Err(PowerError::Profile(format!(
                "{text:?} is no PROFILE:ADDRESS"
            )));
        }
        Ok(PowerAddress {
            profile: profile.to_owned(),
            address: address.to_owned(),
        })
    }
}

/// A machine to be switched.
#[derive(Debug, Clone)]
pub(crate) struct PowerTarget {
    /// The machine's name.
    pub(crate) name: String,
    /// Its first MAC address.
    pub(crate) mac: String,
    /// Its power setting.
    pub(crate) power: Option<String>,
}

/// What became of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PowerOutcome {
    /// The machine's name.
    pub(crate) machine: String,
    /// The state it was last seen in.
    pub(crate) state: Option<PowerState>,
    /// Why it did not work.
    pub(crate) error: Option<String>,
}

/// The profile a power setting names. `qmp` needs no entry in the configuration.
pub(crate) fn find(
    profiles: &BTreeMap<String, PowerProfile>,
    power: &str,
) -> Result<PowerProfile, PowerError> {
    let wanted: PowerAddress = power.parse()?;
    if let Some(profile) = profiles.get(&wanted.profile) {
        return Ok(profile.clone());
    }
    if wanted.profile == "qmp" {
        return Ok(PowerProfile::Qmp {
            start: Vec::new(),
            deadline_seconds: 20,
        });
    }
    let text = format!(
        "no power profile {:?}; netflash.toml has [power.NAME] tables",
        wanted.profile
    );
    Err(PowerError::Profile(text))
}

fn driver(
    profiles: &BTreeMap<String, PowerProfile>,
    target: &PowerTarget,
) -> Result<Box<dyn Power>, PowerError> {
    let Some(power) = &target.power else {
        return Err(PowerError::Profile("it has no power setting".to_owned()));
    };
    let address = power.parse::<PowerAddress>()?.address;
    let words = Words {
        name: &target.name,
        address: &address,
        mac: &target.mac,
    };
    Ok(match find(profiles, power)? {
        PowerProfile::Qmp {
            start,
            deadline_seconds,
        } => Box::new(QmpPower::new(
            address.clone().into(),
            words.fill(&start),
            Duration::from_secs(deadline_seconds),
        )),
        PowerProfile::Command {
            on,
            off,
            cycle,
            status,
            deadline_seconds,
        } => Box::new(CommandPower {
            on: words.fill(&on),
            off: words.fill(&off),
            cycle: words.fill(&cycle),
            status: words.fill(&status),
            deadline: Duration::from_secs(deadline_seconds),
        }),
    })
}

/// What is put into a profile's command lines.
struct Words<'a> {
    name: &'a str,
    address: &'a str,
    mac: &'a str,
}

impl Words<'_> {
    fn fill(&self, template: &[String]) -> Vec<String> {
        // One pass: a name that looks like a placeholder is not replaced again.
        let fill = |word: &String| {
            let mut filled = String::new();
            let mut rest = word.as_str();
            'next: while let Some(start) = rest.find('{') {
                filled.push_str(&rest[..start]);
                rest = &rest[start..];
                for (mark, value) in [
                    ("{name}", self.name),
                    ("{address}", self.address),
                    ("{mac}", self.mac),
                ] {
                    if let Some(after) = rest.strip_prefix(mark) {
                        filled.push_str(value);
                        rest = after;
                        continue 'next;
                    }
                }
                filled.push('{');
                rest = &rest[1..];
            }
            filled + rest
        };
        template.iter().map(fill).collect()
    }
}

/// Do one action and see that it happened.
fn act(power: &mut dyn Power, action: PowerAction) -> Result<PowerState, PowerError> {
    let deadline = power.deadline();
    match action {
        PowerAction::Status => power.status(),
        PowerAction::On => {
            if power.status()? == PowerState::Off {
                power.on()?;
            }
            confirm(power, PowerState::On, deadline)
        }
        PowerAction::Off => {
            if power.status()? == PowerState::On {
                power.off()?;
            }
            confirm(power, PowerState::Off, deadline)
        }
        PowerAction::Cycle => {
            if power.status()? == PowerState::Off {
                return act(power, PowerAction::On);
            }
            match power.reset() {
                Ok(()) => confirm(power, PowerState::On, deadline),
                Err(PowerError::Unsupported(_)) => {
                    act(power, PowerAction::Off)?;
                    act(power, PowerAction::On)
                }
                Err(error) => Err(error),
            }
        }
    }
}

fn confirm(
    power: &mut dyn Power,
    wanted: PowerState,
    deadline: Duration,
) -> Result<PowerState, PowerError> {
    let end = Instant::now() + deadline;
    loop {
        let last = power.status();
        if last == Ok(wanted) {
            return Ok(wanted);
        }
        if Instant::now() >= end {
            last?;
            return Err(PowerError::AcceptedNotConfirmed {
                wanted,
                seconds: deadline.as_secs(),
            });
        }
        thread::sleep(LOOK);
    }
}

/// Do one action on many machines, several at a time. The outcomes come in the order of `targets`.
pub(crate) fn act_on_all(
    profiles: &BTreeMap<String, PowerProfile>,
    targets: &[PowerTarget],
    action: PowerAction,
) -> Vec<PowerOutcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; targets.len()]);
    thread::scope(|scope| {
        for _ in 0..targets.len().min(PARALLEL_MAX) {
            scope.spawn(|| {
                while let Some((at, target)) = take(&next, targets) {
                    let result =
                        driver(profiles, target).and_then(|mut power| act(power.as_mut(), action));
                    log::info!(
                        "power machine={} action={action:?} result={result:?}",
                        target.name
                    );
                    let outcome = PowerOutcome {
                        machine: target.name.clone(),
                        state: result.as_ref().ok().copied(),
                        error: result.err().map(|error| error.to_string()),
                    };
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(outcome);
                }
            });
        }
    });
    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.into_iter().flatten().collect()
}

fn take<'a>(next: &AtomicUsize, targets: &'a [PowerTarget]) -> Option<(usize, &'a PowerTarget)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    targets.get(at).map(|target| (at, target))
}

#[cfg(test)]
mod tests;
