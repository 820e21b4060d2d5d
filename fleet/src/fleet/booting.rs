//! A machine asks what to boot.

use std::collections::VecDeque;
use std::sync::PoisonError;

use netflash_pxe::{
    ActiveJob, Asking, Boot, BootPolicy, BootReason, Decision, Firmware, Identity, Knock,
    KnockAnswer, Platform, Resolution, decide, plain,
};

use super::{Fleet, FleetError, event, job_event, now, resolve_among};
use crate::machine::{Machine, Sighting};
use crate::secret;
use crate::store::Token;

/// Seconds after which a machine without a token knocks again.
const KNOCK_SECONDS: u32 = 10;
/// Seconds within which an unchanged answer to a repeated knock is not written down again.
const NOTED_SECONDS: u64 = 60;

/// Seconds after an agent's last word within which its machine is not taken for one that boots again.
const AT_WORK_SECONDS: u64 = 5;

/// How a machine came to ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its network boot: proof that this works.
    #[default]
    Network,
    /// By an agent that came from elsewhere; `again` when it has asked before.
    Knock {
        /// It is the same agent's next question.
        again: bool,
    },
}

/// What iPXE tells of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct BootRequest {
    /// Who it is, as far as iPXE knows.
    pub(crate) identity: Identity,
    /// How its firmware runs iPXE.
    pub(crate) platform: Platform,
    /// How it came to ask.
    pub(crate) way: Way,
}

/// What the machine gets.
#[derive(Debug, Clone)]
pub(crate) struct BootAnswer {
    /// Where it goes, and why.
    pub(crate) decision: Decision,
    /// Names its token file, when it gets the agent.
    pub(crate) ticket: Option<String>,
    /// Kernel parameters of this machine alone.
    pub(crate) kernel: String,
}

/// One-time tokens on their way to a machine: made with the boot script, fetched as a file right after.
///
/// Only hashes of tokens are in the database; the tokens themselves live here for the minutes between script and
/// file. After a restart of the server an unknown ticket sends the machine back to the start script.
#[derive(Default)]
pub(crate) struct Tickets(VecDeque<(String, String, u64)>);

impl Tickets {
    /// Tickets remembered; the oldest goes.
    const MAX: usize = 4096;

    fn add(&mut self, token: String, expires: u64) -> String {
        if self.0.len() >= Self::MAX {
            self.0.pop_front();
        }
        let ticket = secret::fresh()[..32].to_owned();
        self.0.push_back((ticket.clone(), token, expires));
        ticket
    }

    fn token(&self, ticket: &str, now: u64) -> Option<String> {
        let mut fitting = self
            .0
            .iter()
            .filter(|(known, _, expires)| known == ticket && now < *expires);
        fitting.next().map(|(_, token, _)| token.clone())
    }
}

impl Fleet {
    /// Decide what a machine boots, and note that it was here.
    pub(crate) fn boot(&self, request: &BootRequest) -> Result<BootAnswer, FleetError> {
        let mut store = self.store();
        let machines = store.machines()?;
        let resolution = resolve_among(&request.identity, &machines);
        let machine = match &resolution {
            Resolution::Known(id) => machines.into_iter().find(|machine| machine.id == *id),
            _ => None,
        };
        let job = match &machine {
            Some(machine) => store
                .active_jobs()?
                .into_iter()
                .find(|job| job.machine == machine.id),
            None => None,
        };
        let active = job.as_ref().map(|job| ActiveJob {
            id: job.id,
            ready: !job.needs_session() || self.sessions.status(job.batch).is_some(),
            fruitless_boots: job.fruitless_boots,
        });
        let policy = BootPolicy {
            fruitless_boots_max: self.config.boot.fruitless_boots_max,
        };
        let decision = decide(
            &asking(&resolution, machine.as_ref()),
            active.as_ref(),
            &policy,
        );
        let place = match decision.boot {
            Boot::LocalDisk => "local disk",
            Boot::Agent { .. } => "agent",
        };
        let text = format!("{place}: {}", decision.reason);
        let again = request.way == Way::Knock { again: true };
        if !again {
            log::info!(
                "boot macs={:?} platform={} decision={text:?}",
                request.identity.macs,
                request.platform
            );
        }

        let Some(mut machine) = machine else {
            let identity = shown(&request.identity);
            let sighting = Sighting {
                platform: request.platform.to_string(),
                reason: decision.reason.to_string(),
                first_seen: now(),
                last_seen: now(),
                times: 1,
                identity,
            };
            let text = format!("{}: {text}", Sighting::key(&sighting.identity));
            let seen = event("machine_seen", None, None, text);
            store.sight(&sighting, (!again).then_some(&seen))?;
            return Ok(BootAnswer {
                decision,
                ticket: None,
                kernel: String::new(),
            });
        };
        if request.way == Way::Network {
            self.switchboard.machine_seen(machine.id);
        }
        let noted = machine.last_decision.as_ref() == Some(&text);
        let lately = machine.last_seen.unwrap_or_default() + NOTED_SECONDS > now();
        if again && noted && lately && decision.boot == Boot::LocalDisk {
            return Ok(BootAnswer {
                decision,
                ticket: None,
                kernel: String::new(),
            });
        }
        machine.last_seen = Some(now());
        machine.last_decision = Some(text.clone());
        let booted = event(
            "machine_booted",
            Some(&machine.name),
            job.as_ref().map(|job| job.id),
            text,
        );
        store.update_machine(&machine, (!again || !noted).then_some(&booted))?;
        for mac in request.identity.usable_macs() {
            store.unsight(&mac.to_string())?;
        }

        let mut ticket = None;
        if let Some(mut job) = job {
            match &decision.reason {
                BootReason::JobActive { .. } => {
                    // Whoever names this machine's address while its agent is at work does not stop it by that.
                    let is_at_work = job.phase.is_some() && job.updated + AT_WORK_SECONDS > now();
                    if !is_at_work {
                        job.booted();
                    }
                    job.updated = now();
                    store.update_job(&job, Some(&job_event(&job)))?;
                    let token = secret::fresh();
                    let expires = now().saturating_add(self.config.boot.token_seconds);
                    let kept = Token {
                        hash: secret::hash(&token),
                        machine: machine.id,
                        expires,
                        bound_to: None,
                    };
                    store.add_token(&kept, now())?;
                    let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
                    ticket = Some(tickets.add(token, expires));
                }
                BootReason::LoopBroken { .. } => {
                    job.fail(&format!("{}; look at its console", decision.reason));
                    job.updated = now();
                    store.update_job(&job, Some(&job_event(&job)))?;
                    self.job_is_over(store.as_ref(), &job)?;
                }
                _ => {}
            }
        }
        Ok(BootAnswer {
            decision,
            ticket,
            kernel: machine.kernel,
        })
    }

    /// What a machine is told that was booted from a stick, a CD or by kexec: the same decision, and its token at once.
    pub(crate) fn knock(&self, knock: &Knock) -> Result<KnockAnswer, FleetError> {
        knock
            .check()
            .map_err(|error| FleetError::Malformed(error.to_string()))?;
        let platform = match knock.firmware {
            Firmware::Bios => Platform::Bios,
            Firmware::Uefi => Platform::Efi,
        };
        let answer = self.boot(&BootRequest {
            identity: knock.identity.clone(),
            platform,
            way: Way::Knock { again: knock.again },
        })?;
        Ok(KnockAnswer {
            token: answer.ticket.and_then(|ticket| self.token_of(&ticket)),
            reason: answer.decision.reason.to_string(),
            again_seconds: KNOCK_SECONDS,
        })
    }

    /// The one-time token behind a ticket.
    pub(crate) fn token_of(&self, ticket: &str) -> Option<String> {
        let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.token(ticket, now())
    }
}

fn asking(resolution: &Resolution, machine: Option<&Machine>) -> Asking {
    match (resolution, machine) {
        (Resolution::Known(_), Some(machine)) => Asking::Known {
            name: machine.name.clone(),
        },
        (Resolution::Doubtful { reason, .. }, _) => Asking::Doubtful {
            reason: reason.clone(),
        },
        _ => Asking::Unknown,
    }
}

/// What a stranger said, fit to be kept.
fn shown(identity: &Identity) -> Identity {
    let short = |text: &Option<String>| text.as_ref().map(|text| plain(text, 64));
    Identity {
        uuid: short(&identity.uuid),
        serial: short(&identity.serial),
        board_serial: short(&identity.board_serial),
        macs: identity.macs.iter().copied().take(4).collect(),
    }
}

#[cfg(test)]
mod tests;
