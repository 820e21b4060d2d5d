//! The datagrams, byte for byte; `docs/PROTOCOL.md` has the same tables for people.
//!
//! Everything is big-endian. The first byte is version and kind, so that a stranger's datagram is
//! recognised before anything else of it is believed. Parsing borrows or copies at most what came:
//! no length on the wire is trusted further than the datagram reaches.

use thiserror::Error;

mod announce;
mod data;
mod head;
mod read;
mod report;

pub use announce::{Announce, MAX_ACKED, MAX_SERVED, Served};
pub use data::{DATA_OVERHEAD, Data, SEALED_OVERHEAD};
pub(crate) use head::{AnnounceHead, ReportHead};
pub use report::{MAX_RUNS, Phase, Report, Run, WHOLE};

/// Upper half of the first byte of every datagram.
pub(crate) const VERSION: u8 = 1;

/// The bit of the second byte of every datagram that says it is sealed.
const SEALED: u8 = 0x80;

/// Whether a datagram says that it is sealed.
pub(crate) fn is_sealed(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|flags| flags & SEALED != 0)
}

/// Lower half of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A symbol, sender to group.
    Data = 1,
    /// The state of the session, sender to group.
    Announce = 2,
    /// The state of a machine, machine to sender.
    Report = 3,
}

impl Kind {
    /// The kind of a datagram, by its first byte.
    pub fn of(datagram: &[u8]) -> Result<Kind, WireError> {
        let first = *datagram.first().ok_or(WireError::Truncated)?;
        match (first >> 4, first & 0x0f) {
            (VERSION, 1) => Ok(Kind::Data),
            (VERSION, 2) => Ok(Kind::Announce),
            (VERSION, 3) => Ok(Kind::Report),
            _ => Err(WireError::Foreign { first }),
        }
    }

    pub(crate) const fn first_byte(self) -> u8 {
        VERSION << 4 | self as u8
    }
}

/// Why a datagram is ignored. Never an error of ours: it is counted, and the transfer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// It ends too early.
    #[error("truncated datagram")]
    Truncated,
    /// Bytes are left over.
    #[error("datagram with bytes left over")]
    TooLong,
    /// Not a datagram of this protocol and version.
    #[error("foreign datagram beginning with {first:#04x}")]
    Foreign {
        /// Its first byte.
        first: u8,
    },
    /// The checksum is wrong.
    #[error("damaged datagram")]
    Damaged,
    /// It is not sealed with the key it should be.
    #[error("datagram that the key does not open")]
    Unopened,
    /// The signature is wrong.
    #[error("announce with a wrong signature")]
    Forged,
    /// A field has a value outside its range.
    #[error("field {field} is out of range")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

/// How far sequence number `a` is ahead of `b`, both on a circle of 2^32.
pub(crate) fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}
