//! Power by Redfish (DMTF DSP0266): a management controller over HTTPS.
//!
//! ```text
//!   root ─▶ login (session, else Basic) ─▶ the one system ─▶ state · reset · boot override ─▶ log out
//! ```
//!
//! Nothing is assumed of paths: each is followed from the root, because every vendor has its own. What is assumed of
//! vendors stands in one table, [`quirks`].

use serde_json::{Value, json};

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::login::Login;
use super::pin::Pin;
use super::profile::Firmware;
use super::wire::Wire;
use super::{NextBoot, Power, PowerState};

mod document;
mod quirks;
#[cfg(test)]
mod recorded;
mod talk;

use document::{Override, System};
use quirks::{Mode, Quirks};
use talk::{Talk, Told};

/// The root of every Redfish service (DSP0266, section 6.2).
const ROOT: &str = "/redfish/v1/";

/// A management controller.
pub(super) struct RedfishPower {
    talk: Talk,
    firmware: Firmware,
    /// The system meant, where the controller has several.
    wanted: Option<String>,
    /// What is known after the login.
    place: Option<Place>,
}

#[derive(Clone)]
struct Place {
    system: String,
    quirks: &'static Quirks,
}

impl RedfishPower {
    /// The controller at the other end of a wire; `wanted` is the id of its system, where there are several.
    pub(super) fn new(
        wire: Wire,
        login: Login,
        firmware: Firmware,
        wanted: Option<String>,
    ) -> RedfishPower {
        RedfishPower {
            talk: Talk::new(wire, login),
            firmware,
            wanted,
            place: None,
        }
    }

    /// Log in, if that is not done yet, and find the system.
    fn place(&mut self, until: Deadline) -> Result<Place, PowerError> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let root = self.talk.tell_openly(ROOT, until)?.document;
        let quirks = quirks::of(&root);
        self.talk.log_in(&root, until)?;
        let systems = document::link(&root, "/Systems")?;
        let systems = self.talk.get(&systems, until)?.document;
        let system = document::choose_system(&systems, self.wanted.as_deref())?;
        let place = Place { system, quirks };
        self.place = Some(place.clone());
        Ok(place)
    }

    fn system(&mut self, until: Deadline) -> Result<(Place, System), PowerError> {
        let place = self.place(until)?;
        let told = self.talk.get(&place.system, until)?;
        let system = System::parse(&told.document)?;
        Ok((place, system))
    }

    /// Ask for the first of these kinds of reset that the controller offers.
    fn reset_by(&mut self, kinds: &[&str], until: Deadline) -> Result<(), PowerError> {
        let (_, system) = self.system(until)?;
        let offered = match (&system.reset_kinds, &system.reset_info) {
            (Some(kinds), _) => Some(kinds.clone()),
            (None, Some(info)) => {
                document::reset_kinds_of_info(&self.talk.get(info, until)?.document)
            }
            (None, None) => None,
        };
        let kind = kinds.iter().find(|kind| {
            let listed = |offered: &Vec<String>| offered.iter().any(|known| known == *kind);
            offered.as_ref().is_none_or(listed)
        });
        let kind = kind.ok_or_else(|| {
            let text = format!("it offers none of {}", kinds.join(", "));
            Failure::Unsupported.because(text)
        })?;
        // Actions never carry If-Match: iDRAC answers 412 to it.
        let body = json!({ "ResetType": kind });
        self.talk.post(&system.reset_target, &body, until)
    }

    /// Ask for a state. Many controllers refuse to switch on what is on: then it is as it was asked for.
    fn switch(
        &mut self,
        wanted: PowerState,
        kinds: &[&str],
        until: Deadline,
    ) -> Result<(), PowerError> {
        match self.reset_by(kinds, until) {
            Err(error) if error.failure == Failure::Refused => match self.status(until) {
                Ok(state) if state == wanted => Ok(()),
                _ => Err(error),
            },
            other => other,
        }
    }

    /// Where the boot override is changed, and what it is now.
    fn boot_resource(&mut self, until: Deadline) -> Result<(String, Told), PowerError> {
        let place = self.place(until)?;
        let told = self.talk.get(&place.system, until)?;
        let settings = document::settings(&told.document);
        match settings {
            Some(settings) if place.quirks.settings_resource => {
                let told = self.talk.get(&settings, until)?;
                Ok((settings, told))
            }
            _ => Ok((place.system, told)),
        }
    }

    fn wanted_override(
        &self,
        boot: NextBoot,
        now: &Override,
        quirks: &Quirks,
    ) -> Result<Value, PowerError> {
        let target = match boot {
            NextBoot::Pxe => "Pxe",
            NextBoot::Http => "UefiHttp",
            NextBoot::Disk => "Hdd",
            NextBoot::Usual => "None",
        };
        let unlisted = |listed: &Vec<String>| !listed.iter().any(|known| known == target);
        if boot != NextBoot::Usual && now.targets.as_ref().is_some_and(unlisted) {
            return Err(Failure::Unsupported.because(format!("it cannot boot {target} next")));
        }
        let mode = match self.firmware {
            Firmware::Uefi => "UEFI",
            Firmware::Bios => "Legacy",
        };
        let mut body = if boot == NextBoot::Usual {
            json!({ "BootSourceOverrideEnabled": "Disabled" })
        } else {
            json!({ "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": target })
        };
        let differs = now.mode.as_deref().is_some_and(|now| now != mode);
        if quirks.mode == Mode::Always || (differs && boot != NextBoot::Usual) {
            body["BootSourceOverrideMode"] = mode.into();
        }
        if quirks.mode == Mode::Always && boot == NextBoot::Usual {
            body["BootSourceOverrideTarget"] = target.into();
        }
        Ok(json!({ "Boot": body }))
    }
}

/// Every reading of one document, whatever it is.
#[cfg(feature = "fuzzing")]
pub(super) fn read_as_document(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    quirks::of(&document);
    let _ = System::parse(&document);
    let _ = Override::parse(&document).and_then(|boot| boot.next());
    let _ = document::choose_system(&document, None);
    let _ = document::link(&document, "/Systems").and_then(|link| document::path(&link));
    let _ = (
        document::settings(&document),
        document::complaint(&document),
    );
    document::reset_kinds_of_info(&document);
}

impl Power for RedfishPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        Ok(self.system(until)?.1.state)
    }

    fn on(&mut self, until: Deadline) -> Result<(), PowerError> {
        // Pressing the button is a toggle, and only right because the machine was seen to be off.
        self.switch(PowerState::On, &["On", "ForceOn", "PushPowerButton"], until)
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.switch(PowerState::Off, &["ForceOff"], until)
    }

    fn shut_down(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.switch(PowerState::Off, &["GracefulShutdown"], until)
    }

    fn reset(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.reset_by(&["ForceRestart", "PowerCycle"], until)
    }

    fn boot_next(&mut self, boot: NextBoot, until: Deadline) -> Result<(), PowerError> {
        let quirks = self.place(until)?.quirks;
        let (resource, told) = self.boot_resource(until)?;
        let now = Override::parse(&told.document)?;
        let body = self.wanted_override(boot, &now, quirks)?;
        match self.talk.patch(&resource, &told, &body, until) {
            // Some controllers complain about one of the fields and have taken the others.
            Err(error) if error.failure == Failure::Refused => match self.next_boot(until) {
                Ok(noted) if noted == boot => Ok(()),
                _ => Err(error),
            },
            other => other,
        }
    }

    fn next_boot(&mut self, until: Deadline) -> Result<NextBoot, PowerError> {
        let (_, told) = self.boot_resource(until)?;
        Override::parse(&told.document)?.next()
    }

    fn certificate(&mut self, until: Deadline) -> Result<Pin, PowerError> {
        self.talk.certificate(until)
    }

    fn hang_up(&mut self, until: Deadline) {
        self.place = None;
        self.talk.log_out(until);
    }
}
