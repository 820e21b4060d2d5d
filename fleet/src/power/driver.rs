//! From a machine's power settings to the drivers of its ladder.

use std::collections::BTreeMap;

use super::address::{PowerAddress, Words, find};
use super::command::CommandPower;
use super::failure::{Failure, PowerError};
use super::ipmi::IpmiPower;
use super::line::Lines;
use super::login::Login;
use super::profile::PowerProfile;
use super::qmp::QmpPower;
use super::rung::Rung;
use super::{Power, PowerTarget};

/// Finds the login for a power setting, where somebody entered one.
pub(super) type FindLogin<'a> =
    dyn Fn(&PowerAddress) -> Result<Option<Login>, PowerError> + Sync + 'a;

/// The rung that a power setting of a machine names.
pub(super) fn rung(
    profiles: &BTreeMap<String, PowerProfile>,
    lines: &Lines,
    login: &FindLogin<'_>,
    target: &PowerTarget,
    power: &str,
) -> Result<Rung, PowerError> {
    let profile = find(profiles, power)?;
    let place: PowerAddress = power.parse()?;
    let deadline = profile.deadline();
    let line = lines.line(&profile.device(&place.address));
    let words = Words {
        name: &target.name,
        address: &place.address,
        mac: &target.mac,
    };
    let needed = || {
        login(&place)?.ok_or_else(|| {
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
    };
    Ok(Rung {
        name: place.to_string(),
        driver,
        line,
        stamp,
        deadline,
    })
}
