//! What the command line and the server say to each other, beyond the rows of the store.

use serde::{Deserialize, Serialize};

use crate::fallback::DeskStatus;
use crate::job::Job;
use crate::machine::{Machine, Sighting};
use crate::session::SessionStatus;

/// Answer of `GET /api/v1/machines`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineList {
    /// Machines that were entered.
    pub(crate) machines: Vec<Machine>,
    /// Strangers that asked for something to boot.
    pub(crate) seen: Vec<Sighting>,
}

/// Answer of `GET /api/v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The server's version.
    pub(crate) version: String,
    /// Machines that were entered.
    pub(crate) machines: usize,
    /// Strangers seen.
    pub(crate) seen: usize,
    /// Images.
    pub(crate) images: usize,
    /// What multicasts now.
    pub(crate) sessions: Vec<SessionStatus>,
    /// Machines that fetch over HTTP because multicast does not reach them; none when that is switched off.
    pub(crate) fallback: Option<DeskStatus>,
    /// The last job of each machine, by name.
    pub(crate) jobs: Vec<Job>,
}

/// Jobs in one answer.
pub(crate) const JOBS_MAX: u32 = 10_000;
/// Events in one answer.
pub(crate) const EVENTS_MAX: u32 = 1_000;
