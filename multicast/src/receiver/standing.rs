//! Where a machine stands: its session, its phase, and what is here already.

use std::time::Duration;

use crate::clock::Instant;
use crate::wire::Phase;

use super::preamble::Preamble;
use super::session::Session;
use super::table::Table;

/// A machine whose DONE cannot be acknowledged by multicast has said it often enough after this.
const TOLD: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    pub(super) session: Option<Session>,
    /// The preamble, until it is complete.
    pub(super) preamble: Option<Preamble>,
    /// The payload, once the sink knows how it is cut.
    pub(super) payload: Option<Table>,
    /// When the phase began.
    pub(super) phase_at: Instant,
    /// Set while blocks come another way than by multicast: datagrams sent and datagrams come when that began.
    pub(super) detour: Option<(u32, u32)>,
    /// When the last datagram of the session came.
    pub(super) data_at: Instant,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Standing {
        Standing {
            phase: Phase::Joining,
            session: None,
            preamble: None,
            payload: None,
            phase_at: now,
            detour: None,
            data_at: now,
        }
    }

    /// Datagrams that the sender is known to have sent.
    pub(super) fn sent(&self) -> u32 {
        self.session
            .as_ref()
            .map_or(0, |session| session.traffic().0)
    }

    /// When a machine that is done, and on the detour, has told so often enough.
    pub(super) fn told_at(&self) -> Option<Instant> {
        let done = self.phase == Phase::Done && self.detour.is_some();
        done.then(|| self.phase_at.after(TOLD))
    }

    /// Whether that moment has come.
    pub(super) fn is_told(&self, now: Instant) -> bool {
        self.told_at().is_some_and(|told| now >= told)
    }

    /// Blocks still lacking: of the preamble, as long as nothing is known of the payload.
    pub(super) fn lacking(&self) -> u32 {
        self.tables().next().map_or(0, Table::lacking)
    }

    /// Memory that holds symbols of blocks, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.tables().map(Table::open_bytes).sum()
    }

    /// Bytes of blocks that are complete and wait for the sink.
    pub(super) fn ready_bytes(&self) -> u64 {
        self.payload.as_ref().map_or(0, Table::ready_bytes)
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        let preamble = self.preamble.as_ref().map(|preamble| &preamble.table);
        self.payload.iter().chain(preamble)
    }
}
