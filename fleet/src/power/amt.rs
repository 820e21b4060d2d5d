//! Power by Intel AMT: WS-Management over HTTP with digest authentication.
//!
//! A boot from the network is armed in this order, which all firmware since AMT 6 takes; a shorter one takes effect one
//! boot late on some:
//!
//! ```text
//!   consent? ─▶ read boot settings ─▶ no source ─▶ write them, nothing dangerous set ─▶ role 1 ─▶ source: PXE
//! ```
//!
//! AMT does not tell what it will boot: only the machine's question to the server proves it.

use netflash_pxe::plain;

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::login::Login;
use super::pin::Pin;
use super::wire::{Request, Wire};
use super::{NextBoot, Power, PowerState};
use crate::secret;

mod digest;
mod envelope;
mod settings;
mod xml;

use digest::Challenge;
use envelope::{Ask, body, reference, request, returned};
use xml::Element;

const PATH: &str = "/wsman";
/// Pulls of one enumeration; more is no answer of a device.
const PULLS_MAX: usize = 16;

/// Values of a requested power state (reference of CIM_PowerManagementService); the same firmware calls them by
/// different names, so they are numbers.
const POWER_ON: u32 = 2;
const POWER_CYCLE: u32 = 5;
const POWER_OFF: u32 = 8;
const RESET: u32 = 10;
const SHUT_DOWN: u32 = 12;

/// Consent is needed for everything (IPS_OptInService.OptInRequired).
const CONSENT_ALWAYS: &str = "4294967295";

/// A machine with Intel AMT.
pub(super) struct AmtPower {
    wire: Wire,
    login: Login,
    challenge: Option<Challenge>,
    messages: u32,
}

impl AmtPower {
    /// The machine at the other end of a wire.
    pub(super) fn new(wire: Wire, login: Login) -> AmtPower {
        AmtPower {
            wire,
            login,
            challenge: None,
            messages: 0,
        }
    }

    /// One question and its answer. At most two requests go out with the password in them, and the second only when
    /// it may have been the nonce that the device is tired of.
    fn ask(&mut self, class: &str, ask: &Ask<'_>, until: Deadline) -> Result<Element, PowerError> {
        self.messages += 1;
        let text = request(class, ask, self.messages);
        let mut proved = false;
        loop {
            let mut headers = vec![(
                "Content-Type",
                "application/soap+xml;charset=UTF-8".to_owned(),
            )];
            // An answer to a challenge nobody has answered yet is refused for its password and for nothing else.
            let telling = self.challenge.as_ref().is_some_and(|c| !c.was_used());
            let known = self.challenge.is_some();
            if let Some(challenge) = &mut self.challenge {
                let cnonce = &secret::fresh()[..16];
                headers.push((
                    "Authorization",
                    challenge.answer(&self.login, "POST", PATH, cnonce),
                ));
            }
            let answer = self.wire.exchange(
                &Request {
                    method: "POST",
                    path: PATH,
                    headers,
                    body: Some(text.clone()),
                },
                until,
            )?;
            let said = String::from_utf8_lossy(&answer.body);
            match answer.status {
                401 => {
                    let fresh = answer.header("www-authenticate").and_then(Challenge::parse);
                    let fresh = fresh.ok_or_else(|| {
                        Failure::Garbage
                            .because("it wants a login of a kind that AMT does not have")
                    })?;
                    if (telling && !fresh.stale) || proved {
                        self.challenge = None;
                        let text = "log on failed: wrong, or the account is locked for a while";
                        return Err(Failure::WrongPassword.because(text));
                    }
                    proved = known;
                    self.challenge = Some(fresh);
                }
                200 | 400 | 500 => {
                    // A page instead of a fault: the request itself was not understood.
                    if answer.status != 200 && !said.contains("Envelope") {
                        return Err(Failure::Refused.because(format!("HTTP {}", answer.status)));
                    }
                    return body(&said);
                }
                404 => {
                    return Err(
                        Failure::Unsupported.because("there is no AMT of version 6 or later")
                    );
                }
                503 => return Err(Failure::Busy.because("HTTP 503")),
                status => {
                    let text = format!("HTTP {status}: {}", plain(&said, 100));
                    return Err(Failure::Refused.because(text));
                }
            }
        }
    }

    fn call(
        &mut self,
        class: &str,
        method: &str,
        input: String,
        until: Deadline,
    ) -> Result<(), PowerError> {
        let output = self.ask(class, &Ask::Call(method, input), until)?;
        // The action of some answers lacks "Response"; the body's element decides.
        if output.name != format!("{method}_OUTPUT") {
            return Err(
                Failure::Garbage.because(format!("{method} is answered by {}", output.name))
            );
        }
        returned(method, &output)
    }

    /// All instances of a class. A context is used once, as firmware wants it.
    fn instances(&mut self, class: &str, until: Deadline) -> Result<Vec<Element>, PowerError> {
        let garbage = |what: &str| Failure::Garbage.because(what);
        let mut context = self.ask(class, &Ask::Enumerate, until)?;
        let mut found = Vec::new();
        for _ in 0..PULLS_MAX {
            let name = context
                .text_of("EnumerationContext")
                .ok_or_else(|| garbage("an enumeration without context"))?;
            let name = name.to_owned();
            let pulled = self.ask(class, &Ask::Pull(&name), until)?;
            if let Some(items) = pulled.child("Items") {
                found.extend(items.children.clone());
            }
            if pulled.child("EndOfSequence").is_some() {
                return Ok(found);
            }
            context = pulled;
        }
        Err(garbage("an enumeration without an end"))
    }

    fn request_power(&mut self, value: u32, until: Deadline) -> Result<(), PowerError> {
        let selectors = [
            ("CreationClassName", "CIM_ComputerSystem"),
            ("Name", "ManagedSystem"),
        ];
        let machine = reference("ManagedElement", "CIM_ComputerSystem", &selectors);
        let input = format!("<h:PowerState>{value}</h:PowerState>{machine}");
        self.call(
            "CIM_PowerManagementService",
            "RequestPowerStateChange",
            input,
            until,
        )
    }

    fn choose_source(&mut self, source: Option<&str>, until: Deadline) -> Result<(), PowerError> {
        let input = source
            .map(|source| reference("Source", "CIM_BootSourceSetting", &[("InstanceID", source)]));
        let input = input.unwrap_or_default();
        self.call("CIM_BootConfigSetting", "ChangeBootOrder", input, until)
    }

    /// Whether somebody at the machine must agree before its boot is changed.
    fn check_consent(&mut self, until: Deadline) -> Result<(), PowerError> {
        let service = match self.ask("IPS_OptInService", &Ask::Get, until) {
            // Firmware without the service asks nobody.
            Err(error) if error.failure == Failure::Unsupported => return Ok(()),
            other => other?,
        };
        let given = matches!(service.text_of("OptInState"), Some("3" | "4"));
        if service.text_of("OptInRequired") == Some(CONSENT_ALWAYS) && !given {
            let text = "somebody at the machine must read out a code; it is in client control mode, or set so";
            return Err(Failure::UserConsent.because(text));
        }
        Ok(())
    }
}

impl Power for AmtPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        let services = self.instances("CIM_ServiceAvailableToElement", until)?;
        parse_state(&services)
    }

    fn on(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.request_power(POWER_ON, until)
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.request_power(POWER_OFF, until)
    }

    fn shut_down(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.request_power(SHUT_DOWN, until)
    }

    fn reset(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.request_power(RESET, until)
    }

    fn cycle(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.request_power(POWER_CYCLE, until)
    }

    fn boot_next(&mut self, boot: NextBoot, until: Deadline) -> Result<(), PowerError> {
        let source = match boot {
            NextBoot::Pxe => "Intel(r) AMT: Force PXE Boot",
            NextBoot::Disk => "Intel(r) AMT: Force Hard-drive Boot",
            NextBoot::Usual => return self.choose_source(None, until),
            NextBoot::Http => {
                return Err(Failure::Unsupported
                    .because("AMT boots by HTTPS only, with a chain of its own"));
            }
        };
        self.check_consent(until)?;
        let now = self.ask("AMT_BootSettingData", &Ask::Get, until)?;
        self.choose_source(None, until)?;
        let harmless = settings::harmless(&now);
        self.ask("AMT_BootSettingData", &Ask::Put(&harmless), until)?;
        let config = reference(
            "BootConfigSetting",
            "CIM_BootConfigSetting",
            &[("InstanceID", "Intel(r) AMT: Boot Configuration 0")],
        );
        let role = format!("{config}<h:Role>1</h:Role>");
        self.call("CIM_BootService", "SetBootConfigRole", role, until)?;
        self.choose_source(Some(source), until)
    }

    fn certificate(&mut self, until: Deadline) -> Result<Pin, PowerError> {
        self.wire.certificate(until)
    }
}

/// The power state among the services of the machine. What sleeps in memory or on disk counts as off: it is woken as
/// what is off is switched on.
fn parse_state(services: &[Element]) -> Result<PowerState, PowerError> {
    let state = services
        .iter()
        .find_map(|service| service.text_of("PowerState"));
    match state {
        Some("2" | "3") => Ok(PowerState::On),
        Some("4" | "6" | "7" | "8") => Ok(PowerState::Off),
        other => Err(Failure::Garbage.because(format!("its PowerState is {other:?}"))),
    }
}

/// Every reading of one answer, whatever it is.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_as_answer(said: &str) {
    let _ = Challenge::parse(said);
    if let Ok(element) = body(said) {
        settings::harmless(&element);
        let _ = parse_state(std::slice::from_ref(&element));
        let _ = returned("RequestPowerStateChange", &element);
    }
}

#[cfg(test)]
mod recorded;
