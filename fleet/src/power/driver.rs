//! From a machine's power settings to the drivers of its ladder.

use std::collections::BTreeMap;

use super::address::{Host, PowerAddress, Words, find};
use super::amt::AmtPower;
use super::command::CommandPower;
use super::failure::{Failure, PowerError};
use super::ipmi::IpmiPower;
use super::line::Lines;
use super::login::Login;
use super::pin::Pin;
use super::profile::{PowerProfile, redfish_address, wol_address};
use super::qmp::QmpPower;
use super::redfish::RedfishPower;
use super::rung::Rung;
use super::snmp::{Credentials, SnmpPower};
use super::ssh::{Asked, SshPower};
use super::wire::{Security, Wire};
use super::wol::{self, WolPower};
use super::{Power, PowerTarget};

/// What devices are entered with, and known by.
pub(crate) trait Keyring: Sync {
    /// The login for a power setting, where somebody entered one.
    fn login(&self, place: &PowerAddress) -> Result<Option<Login>, PowerError>;
    /// The certificate a device is known by, see [`PowerProfile::device`].
    fn pin(&self, device: &str) -> Result<Option<Pin>, PowerError>;
}

/// Ports of HTTP, without and with TLS.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;
/// The same of Intel AMT.
const AMT_HTTP: u16 = 16992;
const AMT_HTTPS: u16 = 16993;

/// `PROFILE:privacy` is the login whose password encrypts SNMPv3, where it is not that of the user.
const PRIVACY: &str = "privacy";

/// The way to a device that speaks HTTP, with the certificate it is known by. `ports` are those without and with TLS.
fn wire(
    keys: &dyn Keyring,
    device: &str,
    host: Host,
    tls: bool,
    ports: [u16; 2],
) -> Result<Wire, PowerError> {
    Ok(match (tls, keys.pin(device)?) {
        (false, _) => Wire::new(host, ports[0], Security::None),
        (true, Some(pin)) => Wire::new(host, ports[1], Security::Pinned(pin)),
        (true, None) => Wire::new(host, ports[1], Security::Unknown),
    })
}

/// The rung that a power setting of a machine names.
pub(super) fn rung(
    profiles: &BTreeMap<String, PowerProfile>,
    lines: &Lines,
    keys: &dyn Keyring,
    target: &PowerTarget,
    power: &str,
) -> Result<Rung, PowerError> {
    let profile = find(profiles, power)?;
    let place: PowerAddress = power.parse()?;
    let deadline = profile.deadline();
    let device = profile.device(&place.address);
    let line = lines.line(&device);
    let words = Words {
        name: &target.name,
        address: &place.address,
        mac: &target.mac,
    };
    let needed = || {
        keys.login(&place)?.ok_or_else(|| {
            let profile = &place.profile;
            let text = format!("no login for it; enter one with netflash power login {profile}");
            Failure::Setting.because(text)
        })
    };
    let mut stamp = 0;
    let driver: Box<dyn Power> = match profile {
        PowerProfile::Qmp { start, .. } => Box::new(QmpPower {
            socket: place.address.clone().into(),
            start: words.fill(&start),
        }),
        PowerProfile::Command {
            on,
            off,
            cycle,
            reset,
            status,
            ..
        } => Box::new(CommandPower {
            on: words.fill(&on),
            off: words.fill(&off),
            cycle: words.fill(&cycle),
            reset: words.fill(&reset),
            status: words.fill(&status),
        }),
        PowerProfile::Ipmi {
            privilege,
            cipher_suite,
            firmware,
            ..
        } => {
            let login = needed()?;
            stamp = login.stamp;
            Box::new(IpmiPower::new(
                place.address.parse()?,
                login,
                privilege,
                cipher_suite,
                firmware,
            ))
        }
        PowerProfile::Wol {
            broadcast,
            interface,
            secure_on,
            ..
        } => {
            let mac = match wol_address(&place.address)? {
                Some(mac) => mac,
                None => target.mac.parse().map_err(|_| {
                    Failure::Setting.because("the machine has no MAC address to be woken by")
                })?,
            };
            let secure_on = match secure_on {
                true => Some(wol::secure_on(&needed()?.password)?),
                false => None,
            };
            Box::new(WolPower {
                mac,
                broadcast,
                interface,
                secure_on,
            })
        }
        PowerProfile::Ssh {
            user,
            key,
            known_hosts,
            system,
            ..
        } => Box::new(SshPower {
            host: place.address.parse()?,
            user,
            key,
            known_hosts,
            system,
            asked: Asked::default(),
        }),
        PowerProfile::Snmp {
            pdu,
            version,
            hash,
            privacy,
            off_seconds,
            ..
        } => {
            let login = needed()?;
            // Its own login, else that of the profile: most set up one password for both.
            let for_privacy = PowerAddress {
                profile: place.profile.clone(),
                address: PRIVACY.to_owned(),
            };
            let for_privacy = keys.login(&for_privacy)?.unwrap_or_else(|| login.clone());
            // Stamps only grow, so another password of either kind makes another stamp.
            stamp = login.stamp.max(for_privacy.stamp);
            let credentials = Credentials {
                version,
                login,
                hash,
                privacy,
                privacy_password: for_privacy.password,
            };
            let rest = PowerProfile::rest(off_seconds);
            Box::new(SnmpPower::new(&place.address, pdu, credentials, rest)?)
        }
        PowerProfile::Amt { tls, .. } => {
            let login = needed()?;
            stamp = login.stamp;
            let host = place.address.parse()?;
            let wire = wire(keys, &device, host, tls, [AMT_HTTP, AMT_HTTPS])?;
            Box::new(AmtPower::new(wire, login))
        }
        PowerProfile::Redfish { tls, firmware, .. } => {
            let login = needed()?;
            stamp = login.stamp;
            let (host, system) = redfish_address(&place.address)?;
            let wire = wire(keys, &device, host, tls, [HTTP, HTTPS])?;
            Box::new(RedfishPower::new(wire, login, firmware, system))
        }
    };
    Ok(Rung {
        name: place.to_string(),
        driver,
        line,
        stamp,
        deadline,
    })
}
