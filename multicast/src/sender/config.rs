//! What a sender is told: its session, its pace, when to start and when to stop.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::block::{LayoutError, ObjectId};
use crate::family::Family;
use crate::keys::SigningKey;
use crate::seal::SenderSeal;
use crate::wire::{DATA_OVERHEAD, SEALED_OVERHEAD};

use super::rate::Rate;

/// When the payload begins to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRule {
    /// Begin as soon as this many machines are ready (they know what they lack). Zero: begin at once.
    pub receivers: u32,
    /// Begin at the latest this long after the first machine was heard.
    pub wait: Duration,
}

/// Everything a [`Sender`](crate::Sender) is told.
#[derive(Debug)]
pub struct SenderConfig {
    /// Number of this session; a new one for every sender process.
    pub session: u32,
    /// What is being sent: the BLAKE3 of the preamble.
    pub object_id: ObjectId,
    /// Signs the announces.
    pub signing_key: SigningKey,
    /// Seals every datagram, if it is there.
    pub seal: Option<SenderSeal>,
    /// Where reports are taken; `None`: where the announces come from. Its family is the session's, IPv4 without one.
    pub reply_to: Option<SocketAddr>,
    /// Payload bytes of a data datagram: even, 512 to 8952. See [`symbol_bytes_for_mtu`].
    pub symbol_bytes: u16,
    /// How fast; the driver keeps to [`rate_bits`](crate::Sender::rate_bits).
    pub rate: Rate,
    /// When the payload begins to flow.
    pub start: StartRule,
    /// The session ends when every known machine is done and none was heard for this long.
    pub linger: Duration,
}

/// Smallest symbol of a session, in bytes.
pub const MIN_SYMBOL_BYTES: u16 = 512;
/// Largest symbol of a session, in bytes: an Ethernet MTU of 9000.
pub const MAX_SYMBOL_BYTES: u16 = 8952;

/// The largest symbol that fits a datagram without fragments: over IPv4 1452 bytes at MTU 1500, 1440 when it is
/// sealed; over IPv6 1432 and 1420.
pub fn symbol_bytes_for_mtu(mtu: u32, family: Family, sealed: bool) -> u16 {
    let around = if sealed {
        SEALED_OVERHEAD
    } else {
        DATA_OVERHEAD
    };
    let overhead = family.header_bytes() + around as u32;
    let fits = mtu
        .saturating_sub(overhead)
        .min(u32::from(MAX_SYMBOL_BYTES)) as u16;
    fits.max(MIN_SYMBOL_BYTES) & !1
}

/// Why a sender cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SenderError {
    /// The symbol size is odd or out of bounds.
    #[error("symbols of {0} bytes; even and {MIN_SYMBOL_BYTES} to {MAX_SYMBOL_BYTES} is possible")]
    SymbolBytes(u16),
    /// The preamble is empty or longer than [`crate::MAX_PREAMBLE_BYTES`].
    #[error("a preamble of {0} bytes; 1 to {max} is possible", max = crate::MAX_PREAMBLE_BYTES)]
    Preamble(usize),
    /// The blocks do not make a layout.
    #[error("the blocks cannot be sent")]
    Layout(#[from] LayoutError),
    /// A block came with a length that the layout does not give it.
    #[error("block {block} has {got} bytes instead of {expected}")]
    Payload {
        /// Which block.
        block: u32,
        /// Bytes the layout gives it.
        expected: u32,
        /// Bytes provided.
        got: usize,
    },
}
