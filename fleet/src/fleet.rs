//! The fleet: machines, images, jobs and sessions, and the rules between them.
//!
//! Everything here is synchronous and knows no HTTP; `server/` puts it on the network. One lock guards the store, and
//! every operation holds it from reading to writing, so that no two requests decide on the same job at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use netflash_pxe::{Identity, KnownMachine, Resolution, resolve};

use crate::capture::Captures;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::fallback::Desk;
use crate::job::Job;
use crate::machine::{Machine, StoredImage};
use crate::power::Switchboard;
use crate::session::{SessionError, Sessions};
use crate::store::{Event, Store, StoreError};
use crate::vault::{Vault, VaultError};

mod agents;
mod booting;
mod captures;
mod compares;
mod orders;
mod powering;
mod stock;

use agents::AgentKeys;
use compares::Shelf;

pub(crate) use agents::Beside;
pub(crate) use booting::{BootRequest, Tickets, Way};
pub(crate) use captures::CaptureRequest;
pub(crate) use compares::VerifyRequest;
pub(crate) use orders::FlashRequest;
pub(crate) use powering::{Chosen, PowerRequest};
pub(crate) use stock::NewImage;

/// Why the fleet does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FleetError {
    /// There is no such thing.
    #[error("there is no {0}")]
    Absent(String),
    /// It will not.
    #[error("{0}")]
    Refused(String),
    /// What was sent makes no sense.
    #[error("{0}")]
    Malformed(String),
    /// The bearer is not good, or not good any more.
    #[error("unknown bearer; say hello again")]
    Unauthorized,
    /// The token is not good.
    #[error("{0}")]
    Forbidden(String),
    /// A file cannot be written: the disk is full, say.
    #[error("{0}")]
    Storage(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was sealed cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The image cannot be sent.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// All the server knows and does.
pub(crate) struct Fleet {
    /// The configuration.
    pub(crate) config: Config,
    /// The server's directory.
    pub(crate) dir: DataDir,
    /// The authority's certificate, for `trust.img`.
    pub(crate) ca_pem: String,
    /// What multicasts now.
    pub(crate) sessions: Sessions,
    /// Who fetches over HTTP what multicast does not bring; nobody when that is switched off.
    pub(crate) desk: Option<Arc<Desk>>,
    /// The lines to power devices, and the orders under way.
    switchboard: Switchboard,
    /// Seals the logins of power devices.
    vault: Vault,
    /// What machines send to become images.
    captures: Captures,
    /// The image that machines compare their disks with.
    shelf: Shelf,
    /// Captures that are being checked.
    sealing: Mutex<BTreeSet<u64>>,
    tickets: Mutex<Tickets>,
    agent_keys: Mutex<AgentKeys>,
    store: Mutex<Box<dyn Store>>,
}

impl Fleet {
    /// A fleet with what its store remembers. Active jobs get their sessions again.
    pub(crate) fn open(
        config: Config,
        dir: DataDir,
        ca_pem: String,
        store: Box<dyn Store>,
    ) -> Result<Fleet, FleetError> {
        let desk = config.fallback.desk();
        let fleet = Fleet {
            sessions: Sessions::new(config.multicast.clone(), desk.clone()),
            desk,
            switchboard: Switchboard::default(),
            vault: Vault::open(&dir)?,
            captures: Captures::new(dir.path("images")),
            shelf: Shelf::default(),
            sealing: Mutex::default(),
            config,
            dir,
            ca_pem,
            tickets: Mutex::new(Tickets::default()),
            agent_keys: Mutex::new(AgentKeys::default()),
            store: Mutex::new(store),
        };
        fleet.resume_jobs()?;
        Ok(fleet)
    }

    fn store(&self) -> MutexGuard<'_, Box<dyn Store>> {
        // Changes are transactions: a thread that died left nothing half done.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last events, oldest first.
    pub(crate) fn events(&self, after: i64, max: u32) -> Result<Vec<(i64, Event)>, FleetError> {
        Ok(self.store().events(after, max)?)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_secs())
}

fn event(kind: &str, machine: Option<&str>, job: Option<u64>, text: impl Into<String>) -> Event {
    Event {
        at: now(),
        kind: kind.to_owned(),
        machine: machine.map(str::to_owned),
        job,
        text: text.into(),
    }
}

/// The event of a job that is now in another state.
fn job_event(job: &Job) -> Event {
    let kind = format!("job_{}", job.state);
    event(
        &kind,
        Some(&job.machine_name),
        Some(job.id),
        job.reason.clone(),
    )
}

fn find_machine(machines: Vec<Machine>, name: &str) -> Result<Machine, FleetError> {
    let found = machines.into_iter().find(|machine| machine.name == name);
    found.ok_or_else(|| FleetError::Absent(format!("machine {name:?}")))
}

fn find_image(images: Vec<StoredImage>, name: &str) -> Result<StoredImage, FleetError> {
    let found = images.into_iter().find(|image| image.name == name);
    found.ok_or_else(|| {
        FleetError::Absent(format!("image {name:?}; netflash image list names them"))
    })
}

/// Who an identity is, among `machines`.
fn resolve_among(identity: &Identity, machines: &[Machine]) -> Resolution {
    let known: Vec<KnownMachine> = machines
        .iter()
        .map(|machine| KnownMachine {
            id: machine.id,
            identity: machine.identity.clone(),
        })
        .collect();
    resolve(identity, &known)
}

#[cfg(test)]
mod tests;
