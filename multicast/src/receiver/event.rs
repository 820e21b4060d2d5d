//! What a receiver says: to its driver, and to whoever watches.

use std::net::SocketAddr;

use thiserror::Error;

use crate::block::{BlockId, ObjectId};
use crate::keys::VerifyKey;

/// What a receiver tells its driver.
#[derive(Clone, Debug, PartialEq)]
pub enum ReceiverEvent {
    /// A session was found and its announce is genuine.
    Joined {
        /// Its number.
        session: u32,
        /// What it sends.
        object_id: ObjectId,
        /// The key it is signed with.
        verify_key: VerifyKey,
        /// The sender.
        from: SocketAddr,
    },
    /// The preamble is complete: give it to the sink, then call [`begin`](crate::Receiver::begin).
    Preamble(Vec<u8>),
    /// A block is complete and the sink has room: deliver it, answer by
    /// [`handle_verdict`](crate::Receiver::handle_verdict).
    Block {
        /// Which block.
        block: BlockId,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// Nothing is lacking: let the sink settle; its verdicts come by `handle_verdict`.
    Settle,
    /// The sink has settled: everything is here and final. The receiver goes on telling the sender.
    Complete,
    /// The sender knows; nothing is left to do.
    Finished,
    /// It will not work; nothing more happens.
    Failed(ReceiverError),
}

/// Why a receiver gives up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReceiverError {
    /// The sender ended the session before this machine was done.
    #[error("the sender ended the session with {lacking} blocks lacking")]
    Ended {
        /// Blocks still lacking.
        lacking: u32,
    },
    /// The sender fell silent.
    #[error("the sender has been silent; {lacking} blocks are lacking")]
    Silent {
        /// Blocks still lacking.
        lacking: u32,
    },
    /// What the sink made of the preamble does not fit the session.
    #[error("the layout has {layout} blocks and {wanted} of them are said to be wanted or not")]
    Start {
        /// Blocks of the layout.
        layout: u32,
        /// Flags given.
        wanted: usize,
    },
    /// The sink cannot go on.
    #[error("{0}")]
    Sink(String),
}

/// Why announces that are heard are of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Obstacle {
    /// The session is sealed, and this machine has no key.
    #[error("the session is sealed: give --key-file")]
    Sealed,
    /// The session is not sealed, and this machine has a key.
    #[error("the session is not sealed, and a key was given: only sealed sessions are joined")]
    NotSealed,
    /// The key this machine has does not open the announce.
    #[error("the session is sealed with another key than the one given")]
    OtherKey,
    /// It begins like an announce and is none.
    #[error("something sends datagrams that look like announces and are none")]
    Malformed,
}

/// Counters of a session, as one machine sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Datagrams of the session.
    pub datagrams: u64,
    /// Datagrams ignored: foreign, damaged or hostile.
    pub ignored: u64,
    /// Symbols of blocks that are not wanted (any more).
    pub unwanted: u64,
    /// Symbols that came twice.
    pub duplicates: u64,
    /// Symbols dropped because nothing had room for them.
    pub no_room: u64,
    /// Useful source symbols.
    pub source_symbols: u64,
    /// Useful repair symbols.
    pub repair_symbols: u64,
    /// Bytes of useful symbols.
    pub useful_bytes: u64,
    /// Datagrams that the sender sent and that did not come.
    pub lost: u64,
    /// Blocks decoded by means of repair symbols.
    pub decoded: u64,
    /// Blocks the sink refused.
    pub rejected: u64,
    /// Blocks wanted at first.
    pub wanted_blocks: u32,
    /// Blocks of these that are accepted.
    pub done_blocks: u32,
    /// Reports sent.
    pub reports: u64,
    /// Blocks that came whole, another way than by multicast.
    pub detour_blocks: u64,
    /// Bytes that came that way, the preamble's included.
    pub detour_bytes: u64,
}
