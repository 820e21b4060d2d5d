//! Power profiles: how machines of one kind are switched, as `[power.NAME]` tables of the configuration.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use netflash_pxe::Mac;

use super::address::Host;
use super::failure::{Failure, PowerError};
use super::snmp::{self, Hash, Pdu, Privacy, Version};

/// Seconds an action may take, unless the profile says otherwise.
const DEADLINE_SECONDS: u64 = 20;
/// The same for controllers whose every answer takes seconds.
const SLOW_DEADLINE_SECONDS: u64 = 60;
/// The same for machines that are only seen when they have booted.
const WAKE_DEADLINE_SECONDS: u64 = 180;
/// The most a profile may say.
const DEADLINE_SECONDS_MAX: u64 = 600;
/// Seconds without current until a power supply has forgotten what it held.
const OFF_SECONDS: u64 = 5;
/// The most a profile may say.
const OFF_SECONDS_MAX: u64 = 60;

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
    /// A management controller by Redfish; the address is HOST, HOST:PORT or either with /SYSTEM.
    Redfish {
        /// Whether it is spoken over TLS; without it, passwords pass in the clear.
        #[serde(default = "default_tls")]
        tls: bool,
        /// How the machine's firmware boots.
        #[serde(default)]
        firmware: Firmware,
        /// Seconds an action may take.
        #[serde(default = "default_slow_deadline")]
        deadline_seconds: u64,
    },
    /// Intel AMT; the address is its HOST or HOST:PORT.
    Amt {
        /// Whether it is spoken over TLS; without it, what is asked passes in the clear, the password does not.
        #[serde(default = "default_tls")]
        tls: bool,
        /// Seconds an action may take.
        #[serde(default = "default_slow_deadline")]
        deadline_seconds: u64,
    },
    /// Wake-on-LAN; the address is a MAC address, or nothing for the machine's first one.
    Wol {
        /// Broadcast addresses of the networks to wake, such as 10.77.0.255.
        #[serde(default = "default_broadcast")]
        broadcast: Vec<Ipv4Addr>,
        /// Send by this interface only, and a frame without IP too.
        #[serde(default)]
        interface: Option<String>,
        /// Whether the login's password is sent along (SecureOn).
        #[serde(default)]
        secure_on: bool,
        /// Seconds until the machine must be on.
        #[serde(default = "default_wake_deadline")]
        deadline_seconds: u64,
    },
    /// Outlets of a PDU by SNMP; the address is HOST/OUTLET or HOST:PORT/OUTLET, several with `+` in between.
    Snmp {
        /// Whose objects are used.
        pdu: Pdu,
        /// Spoken how.
        #[serde(default)]
        version: Version,
        /// What passwords are proved with, in version 3.
        #[serde(default)]
        hash: Hash,
        /// What is encrypted with, in version 3.
        #[serde(default)]
        privacy: Privacy,
        /// Seconds without current when a machine is taken off and on.
        #[serde(default = "default_off_seconds")]
        off_seconds: u64,
        /// Seconds an action may take.
        #[serde(default = "default_slow_deadline")]
        deadline_seconds: u64,
    },
    /// The operating system by SSH; the address is HOST or HOST:PORT.
    Ssh {
        /// As whom.
        #[serde(default = "default_user")]
        user: String,
        /// The private key's file.
        key: PathBuf,
        /// The file of known hosts.
        known_hosts: PathBuf,
        /// Whose commands are used.
        #[serde(default)]
        system: OperatingSystem,
        /// Seconds an action may take.
        #[serde(default = "default_slow_deadline")]
        deadline_seconds: u64,
    },
}

/// An operating system, for what it calls its commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OperatingSystem {
    /// With systemd.
    #[default]
    Linux,
    /// With OpenSSH's server.
    Windows,
}

impl OperatingSystem {
    /// Switches off, after its answer is out.
    pub(super) fn power_off(self) -> &'static str {
        match self {
            OperatingSystem::Linux => "systemctl --no-block poweroff",
            OperatingSystem::Windows => "shutdown /s /t 0",
        }
    }

    /// Restarts, after its answer is out.
    pub(super) fn restart(self) -> &'static str {
        match self {
            OperatingSystem::Linux => "systemctl --no-block reboot",
            OperatingSystem::Windows => "shutdown /r /t 0",
        }
    }

    /// Prints what is another text after each boot.
    pub(super) fn boot_mark(self) -> &'static str {
        match self {
            OperatingSystem::Linux => "cat /proc/sys/kernel/random/boot_id",
            OperatingSystem::Windows => {
                "powershell -NoProfile -Command (Get-CimInstance Win32_OperatingSystem).LastBootUpTime.Ticks"
            }
        }
    }
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

fn default_slow_deadline() -> u64 {
    SLOW_DEADLINE_SECONDS
}

fn default_wake_deadline() -> u64 {
    WAKE_DEADLINE_SECONDS
}

fn default_off_seconds() -> u64 {
    OFF_SECONDS
}

fn default_broadcast() -> Vec<Ipv4Addr> {
    vec![Ipv4Addr::BROADCAST]
}

fn default_user() -> String {
    "root".to_owned()
}

fn default_tls() -> bool {
    true
}

/// A Wake-on-LAN address: a MAC address, or none.
pub(super) fn wol_address(address: &str) -> Result<Option<Mac>, PowerError> {
    if address.is_empty() {
        return Ok(None);
    }
    let mac = address.parse().map(Some);
    mac.map_err(|_| Failure::Setting.because(format!("{address:?} is no MAC address")))
}

/// A Redfish address: the controller, and the id of its system where it has several.
pub(super) fn redfish_address(address: &str) -> Result<(Host, Option<String>), PowerError> {
    let (host, system) = match address.split_once('/') {
        Some((host, system)) => (host, Some(system.to_owned())),
        None => (address, None),
    };
    Ok((host.parse()?, system))
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
            }
            | PowerProfile::Redfish {
                deadline_seconds, ..
            }
            | PowerProfile::Amt {
                deadline_seconds, ..
            }
            | PowerProfile::Wol {
                deadline_seconds, ..
            }
            | PowerProfile::Snmp {
                deadline_seconds, ..
            }
            | PowerProfile::Ssh {
                deadline_seconds, ..
            } => *deadline_seconds,
        };
        Duration::from_secs(seconds.clamp(1, DEADLINE_SECONDS_MAX))
    }

    /// The pause between off and on, within its bounds.
    pub(super) fn rest(off_seconds: u64) -> Duration {
        Duration::from_secs(off_seconds.min(OFF_SECONDS_MAX))
    }

    /// Whether an address can be one of this driver.
    pub(super) fn check(&self, address: &str) -> Result<(), PowerError> {
        match self {
            PowerProfile::Qmp { .. } | PowerProfile::Command { .. } => Ok(()),
            PowerProfile::Ipmi { .. } | PowerProfile::Amt { .. } | PowerProfile::Ssh { .. } => {
                address.parse::<Host>().map(drop)
            }
            PowerProfile::Wol { .. } => wol_address(address).map(drop),
            PowerProfile::Redfish { .. } => redfish_address(address).map(drop),
            PowerProfile::Snmp { pdu, .. } => snmp::check(address, *pdu),
        }
    }

    /// The device behind an address. Machines that share it, as outlets of one PDU do, take turns.
    pub(crate) fn device(&self, address: &str) -> String {
        let (driver, address) = match self {
            PowerProfile::Qmp { .. } => ("qmp", address),
            PowerProfile::Command { .. } => ("command", address),
            PowerProfile::Ipmi { .. } => ("ipmi", address),
            PowerProfile::Amt { .. } => ("amt", address),
            PowerProfile::Wol { .. } => ("wol", address),
            PowerProfile::Ssh { .. } => ("ssh", address),
            PowerProfile::Snmp { .. } => ("snmp", snmp::device(address)),
            PowerProfile::Redfish { .. } => {
                let host = address.split_once('/').map_or(address, |(host, _)| host);
                ("redfish", host)
            }
        };
        format!("{driver} {address}")
    }
}
