//! Power of machines: logins, orders, and what the log keeps of them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Fleet, FleetError, event, find_machine, now};
use crate::machine::Machine;
use crate::power::{
    Failure, Keyring, Login, LoginView, NewLogin, OrderView, Password, Pin, Plan, PowerAction,
    PowerAddress, PowerError, PowerOutcome, PowerTarget, find,
};
use crate::store::LoginRow;

/// Logins kept.
const LOGINS_MAX: usize = 20_000;

/// Body of `POST /api/v1/power`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PowerRequest {
    /// Which machines.
    pub(crate) machines: Chosen,
    /// What to do.
    pub(crate) plan: Plan,
}

/// Which machines an order is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Chosen {
    /// These, by name.
    Names(Vec<String>),
    /// Those of a group.
    Group(String),
    /// All of them.
    All,
}

impl Chosen {
    fn among(&self, machines: Vec<Machine>) -> Result<Vec<Machine>, FleetError> {
        let chosen: Vec<Machine> = match self {
            Chosen::All => machines,
            Chosen::Group(group) => machines
                .into_iter()
                .filter(|machine| machine.groups.contains(group))
                .collect(),
            Chosen::Names(names) => {
                let mut seen = std::collections::BTreeSet::new();
                let each = names.iter().filter(|name| seen.insert(name.as_str()));
                return each
                    .map(|name| find_machine(machines.clone(), name))
                    .collect();
            }
        };
        if chosen.is_empty() {
            let what = match self {
                Chosen::Group(group) => format!("machine in the group {group:?}"),
                _ => "machine; netflash machine add enters one".to_owned(),
            };
            return Err(FleetError::Absent(what));
        }
        Ok(chosen)
    }
}

impl Fleet {
    /// Begin an order. It goes on by itself; [`Fleet::power_order`] tells how it stands.
    pub(crate) fn begin_power(
        self: &Arc<Self>,
        request: PowerRequest,
    ) -> Result<OrderView, FleetError> {
        let machines = request.machines.among(self.store().machines()?)?;
        let deadlines = machines.iter().flat_map(|machine| &machine.power);
        let deadline = deadlines
            .filter_map(|power| Some(find(&self.config.power, power).ok()?.deadline()))
            .max()
            .unwrap_or(Duration::ZERO);
        let targets = machines.into_iter().map(target).collect();
        let order = self
            .switchboard
            .enter(request.plan, targets, deadline)
            .map_err(|error| FleetError::Refused(error.to_string()))?;
        let (fleet, begun) = (Arc::clone(self), Arc::clone(&order));
        thread::spawn(move || {
            let done = |plan: &Plan, outcome: &PowerOutcome| fleet.note_power(plan, outcome);
            begun.carry_out(
                &fleet.switchboard,
                &fleet.config.power,
                fleet.as_ref(),
                &done,
            );
        });
        Ok(order.view())
    }

    /// How an order stands.
    pub(crate) fn power_order(&self, id: u64) -> Result<OrderView, FleetError> {
        let order = self.switchboard.order(id);
        let order = order.ok_or_else(|| FleetError::Absent(format!("power order {id}")))?;
        Ok(order.view())
    }

    /// Write what became of a machine into the log, under its job where it has one.
    fn note_power(&self, plan: &Plan, outcome: &PowerOutcome) {
        let text = described(outcome);
        log::info!(
            "power machine={} action={} {text}",
            outcome.machine,
            plan.action
        );
        match (plan.action, &outcome.certificate) {
            (PowerAction::Status, _) => return,
            (PowerAction::Trust, Some(pin)) if plan.accept => return self.keep_pin(outcome, pin),
            (PowerAction::Trust, _) => return,
            _ => {}
        }
        let mut store = self.store();
        let job = store.active_jobs().ok().and_then(|jobs| {
            let mut jobs = jobs.into_iter();
            jobs.find(|job| job.machine_name == outcome.machine)
        });
        let kind = format!("power_{}", plan.action);
        let entry = event(&kind, Some(&outcome.machine), job.map(|job| job.id), text);
        if let Err(error) = store.log(&entry) {
            log::error!("store {:#}", anyhow::Error::new(error));
        }
    }

    /// Know a device by its certificate from now on.
    fn keep_pin(&self, outcome: &PowerOutcome, pin: &str) {
        let place = outcome.by.as_deref().unwrap_or_default();
        let Ok(device) = self.device(place) else {
            return;
        };
        let text = format!("{device} is known by {pin}");
        let kept = event("certificate_trusted", Some(&outcome.machine), None, text);
        if let Err(error) = self.store().set_pin(&device, pin, &kept) {
            log::error!("store {:#}", anyhow::Error::new(error));
        }
    }

    fn device(&self, power: &str) -> Result<String, PowerError> {
        let place: PowerAddress = power.parse()?;
        Ok(find(&self.config.power, power)?.device(&place.address))
    }

    /// Keep a login, instead of the former one of the same name.
    pub(crate) fn add_login(&self, new: &NewLogin) -> Result<LoginView, FleetError> {
        let place: PowerAddress = new.name.parse().map_err(refused)?;
        if !self.config.power.contains_key(&place.profile) {
            find(&self.config.power, &new.name).map_err(refused)?;
        }
        if let Some(fault) = new.fault() {
            return Err(FleetError::Malformed(fault.to_owned()));
        }
        let mut store = self.store();
        let known = store.logins()?;
        if known.len() >= LOGINS_MAX && !known.iter().any(|row| row.name == new.name) {
            return Err(FleetError::Refused(format!(
                "{LOGINS_MAX} logins are kept already"
            )));
        }
        let secret = Zeroizing::new(serde_json::json!([new.user, new.password]).to_string());
        let row = LoginRow {
            name: new.name.clone(),
            user: new.user.clone(),
            entered: now(),
            stamp: 0,
            sealed: self.vault.seal(&new.name, &secret),
        };
        let entered = event(
            "login_entered",
            None,
            None,
            format!("{} as {}", new.name, new.user),
        );
        store.set_login(&row, &entered)?;
        Ok(view(row))
    }

    /// The logins, without their passwords.
    pub(crate) fn logins(&self) -> Result<Vec<LoginView>, FleetError> {
        Ok(self.store().logins()?.into_iter().map(view).collect())
    }

    /// Forget a login.
    pub(crate) fn remove_login(&self, name: &str) -> Result<(), FleetError> {
        let removed = event("login_removed", None, None, name);
        if self.store().remove_login(name, &removed)? {
            Ok(())
        } else {
            Err(FleetError::Absent(format!("login {name:?}")))
        }
    }
}

impl Keyring for Fleet {
    /// Its own login, else that of its profile.
    fn login(&self, place: &PowerAddress) -> Result<Option<Login>, PowerError> {
        let failed = |error: String| Failure::Setting.because(error);
        let find = |name: &str| self.store().login(name);
        let row = match find(&place.to_string()) {
            Ok(None) => find(&place.profile),
            other => other,
        };
        let Some(row) = row.map_err(|error| failed(error.to_string()))? else {
            return Ok(None);
        };
        let secret = self.vault.read(&row.name, &row.sealed);
        let secret = secret.map_err(|error| failed(error.to_string()))?;
        // The user is sealed too: the column beside it is for lists, and proves nothing.
        let (user, password): (String, Password) = serde_json::from_str(&secret)
            .map_err(|_| failed(format!("the login {:?} cannot be read", row.name)))?;
        Ok(Some(Login {
            user,
            password,
            stamp: row.stamp,
        }))
    }

    fn pin(&self, device: &str) -> Result<Option<Pin>, PowerError> {
        let failed = |error: String| Failure::Setting.because(error);
        let pin = self.store().pin(device);
        let pin = pin.map_err(|error| failed(error.to_string()))?;
        let pin = pin.map(|pin| pin.parse::<Pin>()).transpose();
        pin.map_err(|error| failed(format!("the certificate kept for {device}: {error}")))
    }
}

fn refused(error: PowerError) -> FleetError {
    FleetError::Refused(error.to_string())
}

fn view(row: LoginRow) -> LoginView {
    LoginView {
        name: row.name,
        user: row.user,
        entered: row.entered,
    }
}

fn target(machine: Machine) -> PowerTarget {
    let mac = machine.identity.macs.first();
    PowerTarget {
        id: machine.id,
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        name: machine.name,
        power: machine.power,
    }
}

/// An outcome in one line.
fn described(outcome: &PowerOutcome) -> String {
    let by = outcome.by.as_deref().unwrap_or("nothing");
    match (&outcome.error, outcome.seen_seconds) {
        (Some(error), _) => error.clone(),
        (None, Some(seconds)) => format!("by {by}; asked what to boot after {seconds:.0} s"),
        (None, None) => match outcome.state {
            Some(state) => format!("{state} by {by}"),
            None => format!("by {by}"),
        },
    }
}

#[cfg(test)]
mod tests;
