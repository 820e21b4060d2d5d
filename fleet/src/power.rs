//! Switching machines on and off, and choosing what they boot next.
//!
//! ```text
//!   order: many machines      ladder: one machine         rung: one driver        line: one device
//!   cap, stagger        ───▶  soft, hard, outlet    ───▶  its deadline      ───▶  one conversation
//!                             read back or seen           again while busy        at a time
//! ```
//!
//! A driver says what it can find out, in one vocabulary for all kinds: a device that only *accepted* an order is not
//! a machine that is on. Each action reads the state back until it is reached or the deadline passes.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod address;
mod amt;
mod child;
mod command;
mod deadline;
mod driver;
mod failure;
#[cfg(feature = "fuzzing")]
mod hostile;
mod http;
mod ipmi;
mod ladder;
mod line;
mod login;
mod order;
mod pin;
mod profile;
mod qmp;
mod redfish;
mod rung;
mod snmp;
mod ssh;
mod switchboard;
mod wire;
mod wol;

use deadline::Deadline;

pub(crate) use address::{PowerAddress, find};
pub(crate) use driver::Keyring;
pub(crate) use failure::{Failure, PowerError};
#[cfg(feature = "fuzzing")]
pub use hostile::read_as_device;
pub(crate) use login::{Login, LoginView, NewLogin, Password};
pub(crate) use order::{OrderView, Plan};
pub(crate) use pin::Pin;
pub(crate) use profile::PowerProfile;
pub(crate) use switchboard::{PowerOutcome, PowerTarget, Switchboard};

/// What is asked of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PowerAction {
    /// Say how it is.
    Status,
    /// Switch on; a machine that is on stays on.
    On,
    /// Switch off.
    Off,
    /// Off, then on; a machine that is off is switched on.
    Cycle,
    /// Reset without taking the power away; a machine that is off is switched on.
    Reset,
    /// Choose what it boots next, once.
    Bootdev,
    /// Look at the certificate of its controller.
    Trust,
}

impl PowerAction {
    /// Whether it ends with a machine that draws the current of a start.
    fn starts(self) -> bool {
        matches!(
            self,
            PowerAction::On | PowerAction::Cycle | PowerAction::Reset
        )
    }
}

impl fmt::Display for PowerAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PowerAction::Status => "status",
            PowerAction::On => "on",
            PowerAction::Off => "off",
            PowerAction::Cycle => "cycle",
            PowerAction::Reset => "reset",
            PowerAction::Bootdev => "bootdev",
            PowerAction::Trust => "trust",
        })
    }
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

/// What a machine boots next, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NextBoot {
    /// The network, by PXE
    #[default]
    Pxe,
    /// The network, by UEFI HTTP
    Http,
    /// Its disk
    Disk,
    /// What its firmware is set to
    Usual,
}

impl fmt::Display for NextBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NextBoot::Pxe => "pxe",
            NextBoot::Http => "http",
            NextBoot::Disk => "disk",
            NextBoot::Usual => "usual",
        })
    }
}

/// A machine's power supply. Each method is one conversation; what a device cannot do is `Unsupported`.
trait Power: Send {
    /// Whether the machine is on.
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError>;

    /// Whether `status` can be "off". A driver that only notices that a machine answers cannot tell.
    fn tells_off(&self) -> bool {
        true
    }

    /// Whether `status` can prove that the machine is on. An outlet that is on is no machine that is.
    fn tells_on(&self) -> bool {
        true
    }

    /// Whether it can switch on at all: what cannot does not take a machine down to bring it up again.
    fn switches_on(&self) -> bool {
        true
    }

    /// Whether it can switch off at all.
    fn switches_off(&self) -> bool {
        true
    }

    /// How often to ask for on again while nobody can tell whether it came through.
    fn repeats(&self) -> Option<Duration> {
        None
    }

    /// The pause between off and on that power supplies want.
    fn rest(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Ask for on.
    fn on(&mut self, until: Deadline) -> Result<(), PowerError>;

    /// Ask for off, hard where there is a choice.
    fn off(&mut self, until: Deadline) -> Result<(), PowerError>;

    /// Ask the operating system to end and switch off.
    fn shut_down(&mut self, _until: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("it cannot ask the operating system"))
    }

    /// Ask for a reset.
    fn reset(&mut self, _until: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("it has no reset"))
    }

    /// Ask for off and on in one step.
    fn cycle(&mut self, _until: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("it knows off and on only"))
    }

    /// Choose what is booted next, once.
    fn boot_next(&mut self, _boot: NextBoot, _until: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("it cannot choose what is booted"))
    }

    /// What the device has noted for the next boot.
    fn next_boot(&mut self, _until: Deadline) -> Result<NextBoot, PowerError> {
        Err(Failure::Unsupported.because("it does not tell what is booted next"))
    }

    /// The certificate the device shows; no secret is sent.
    fn certificate(&mut self, _until: Deadline) -> Result<Pin, PowerError> {
        Err(Failure::Unsupported.because("it has no certificate"))
    }

    /// Leave the device: no more is asked of it for now.
    fn hang_up(&mut self, _until: Deadline) {}
}

#[cfg(test)]
mod tests;
