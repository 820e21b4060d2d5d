//! What a sender says: to its driver, and to whoever watches.

use std::net::SocketAddr;
use std::time::Duration;

use crate::block::BlockId;
use crate::wire::Phase;

use super::rate::RateReason;

/// Where the bytes of a [`poll_transmit`](crate::Sender::poll_transmit) go. So far always the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The multicast group of the session.
    Group,
    /// One machine.
    Peer(SocketAddr),
}

/// What a sender tells its driver.
#[derive(Clone, Debug, PartialEq)]
pub enum SenderEvent {
    /// The payload of this block is needed: answer with [`provide`](crate::Sender::provide).
    NeedBlock(BlockId),
    /// A machine was heard for the first time.
    Joined {
        /// Its number.
        id: u64,
        /// Its name.
        name: String,
    },
    /// A machine knows what it lacks.
    Ready {
        /// Its number.
        id: u64,
        /// Blocks it lacks.
        wanted: u32,
    },
    /// The payload begins to flow.
    Started {
        /// Machines that are ready.
        ready: u32,
    },
    /// A machine has everything.
    Done {
        /// Its number.
        id: u64,
    },
    /// A machine went without being done: it said so, or it has been silent.
    Lost {
        /// Its number.
        id: u64,
        /// Whether it said so itself.
        said_so: bool,
    },
    /// The automatic rate is another one now. Told at most twice a second.
    Rate {
        /// Bits per second on the wire.
        bits: u64,
        /// Why.
        reason: RateReason,
    },
    /// So much was sealed that the sender's numbers would soon begin again: the session ends.
    Spent,
    /// The session is over; nothing more will be transmitted.
    Finished,
}

/// What the sender knows of a machine, from its reports.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiverInfo {
    /// Number it drew.
    pub id: u64,
    /// Its name, control characters stripped.
    pub name: String,
    /// Where its reports come from.
    pub address: SocketAddr,
    /// How far it is.
    pub phase: Phase,
    /// Whether it is silent or has left; its last words are kept for the report.
    pub gone: bool,
    /// Blocks it had to get at first.
    pub wanted_blocks: u32,
    /// Blocks of these it has.
    pub done_blocks: u32,
    /// Bytes of symbols it could use.
    pub received_bytes: u64,
    /// Datagrams that did not reach it.
    pub lost_symbols: u64,
    /// Datagrams its socket dropped.
    pub overflow: u32,
    /// Bytes waiting for its disk.
    pub backlog_bytes: u64,
    /// Loss of late, 0 to 1.
    pub loss: f32,
    /// From the first word of it to DONE, or to its last word.
    pub took: Duration,
}

/// Counters of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderStats {
    /// Datagrams given to the driver, announces included.
    pub datagrams: u64,
    /// Bytes of these, UDP payload only.
    pub datagram_bytes: u64,
    /// Source symbols sent, each time counted.
    pub source_symbols: u64,
    /// Repair symbols sent.
    pub repair_symbols: u64,
    /// Announces sent.
    pub announces: u64,
    /// Reports understood.
    pub reports: u64,
    /// Datagrams ignored: foreign, damaged or hostile.
    pub ignored: u64,
    /// Blocks asked of the source.
    pub blocks_read: u64,
}
