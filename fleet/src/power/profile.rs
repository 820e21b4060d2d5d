//! Power profiles: how machines of one kind are switched, as `[power.NAME]` tables of the configuration.

use std::time::Duration;

use serde::Deserialize;

use super::address::Host;
use super::failure::PowerError;

/// Seconds an action may take, unless the profile says otherwise.
const DEADLINE_SECONDS: u64 = 20;
/// The most a profile may say.
const DEADLINE_SECONDS_MAX: u64 = 600;

/// How machines of one kind are switched on and off. A machine names it as `PROFILE:ADDRESS`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "driver", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum PowerProfile {
    /// QEMU's machine protocol on a Unix socket; the address is the socket's path.
    Qmp {
        /// Starts the machine when there is no socket. `{name}` and `{address}` are replaced.
        #[serde(default)]
        start: Vec<String>,
        /// Seconds an action may take.
        #[serde(default = "default_deadline")]
        deadline_seconds: u64,
    },
    /// Programs. `{name}`, `{address}` and `{mac}` are replaced; no shell is involved.
    Command {
        /// Switches on.
        on: Vec<String>,
        /// Switches off, hard.
        off: Vec<String>,
        /// Off and on; without it, `off` and then `on`.
        #[serde(default)]
        cycle: Vec<String>,
        /// Resets; without it, there is no reset.
        #[serde(default)]
        reset: Vec<String>,
        /// Prints `on` or `off`.
        status: Vec<String>,
        /// Seconds an action may take.
        #[serde(default = "default_deadline")]
        deadline_seconds: u64,
    },
    /// A management controller by IPMI 2.0; the address is its HOST or HOST:PORT.
    Ipmi {
        /// As whom to log in; operators may switch, but not all may choose what is booted.
        #[serde(default)]
        privilege: Privilege,
        /// The cipher suite; without it, the best one that the controller offers.
        #[serde(default)]
        cipher_suite: Option<u8>,
        /// How the machine's firmware boots. The wrong one is the usual cause of "boots its disk all the same".
        #[serde(default)]
        firmware: Firmware,
        /// Seconds an action may take.
        #[serde(default = "default_deadline")]
        deadline_seconds: u64,
    },
}

/// An IPMI privilege level (IPMI 2.0, section 6.8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Privilege {
    /// Everything.
    #[default]
    Administrator,
    /// Power, but no configuration.
    Operator,
}

/// How a machine's firmware boots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Firmware {
    /// UEFI.
    #[default]
    Uefi,
    /// BIOS, or UEFI's compatibility mode.
    Bios,
}

fn default_deadline() -> u64 {
    DEADLINE_SECONDS
}

impl PowerProfile {
    /// The profile `qmp`, which exists by itself.
    pub(super) fn qmp() -> PowerProfile {
        PowerProfile::Qmp {
            start: Vec::new(),
            deadline_seconds: DEADLINE_SECONDS,
        }
    }

    /// How long an action may take.
    pub(crate) fn deadline(&self) -> Duration {
        let seconds = match self {
            PowerProfile::Qmp {
                deadline_seconds, ..
            }
            | PowerProfile::Command {
                deadline_seconds, ..
            }
            | PowerProfile::Ipmi {
                deadline_seconds, ..
            } => *deadline_seconds,
        };
        Duration::from_secs(seconds.clamp(1, DEADLINE_SECONDS_MAX))
    }

    /// Whether an address can be one of this driver.
    pub(super) fn check(&self, address: &str) -> Result<(), PowerError> {
        match self {
            PowerProfile::Qmp { .. } | PowerProfile::Command { .. } => Ok(()),
            PowerProfile::Ipmi { .. } => address.parse::<Host>().map(drop),
        }
    }

    /// The device behind an address. Machines that share it, as outlets of one PDU do, take turns.
    pub(super) fn device(&self, address: &str) -> String {
        let driver = match self {
            PowerProfile::Qmp { .. } => "qmp",
            PowerProfile::Command { .. } => "command",
            PowerProfile::Ipmi { .. } => "ipmi",
        };
        format!("{driver} {address}")
    }
}
