//! Where a machine stands: its session, its phase, and what is here already.

use crate::block::BlockId;
use crate::clock::Instant;
use crate::wire::Phase;

use super::preamble::Preamble;
use super::session::Session;
use super::table::Table;

#[derive(Debug)]
pub(super) struct Standing {
    pub(super) phase: Phase,
    pub(super) session: Option<Session>,
    /// The preamble, until it is complete.
    pub(super) preamble: Option<Preamble>,
    /// The payload, once the sink knows how it is cut.
    pub(super) payload: Option<Table>,
    /// The block the last datagram was of: it may be in full flow.
    pub(super) current: Option<BlockId>,
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
            current: None,
            data_at: now,
        }
    }

    /// Blocks still lacking: of the preamble, as long as nothing is known of the payload.
    pub(super) fn lacking(&self) -> u32 {
        self.tables().next().map_or(0, Table::lacking)
    }

    /// Memory that holds symbols of blocks, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.tables().map(Table::open_bytes).sum()
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        let preamble = self.preamble.as_ref().map(|preamble| &preamble.table);
        self.payload.iter().chain(preamble)
    }
}
