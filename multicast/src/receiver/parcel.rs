//! A complete block on its way out: its payload, or k symbols from which it is decoded.
//!
//! Decoding is the dearest work of a receiver, so the state machine does not do it while datagrams wait: who takes a
//! parcel opens it where there is time, on a thread of its own if need be.

use crate::fec::{Fec, FecError};

use super::assembly::Assembly;

/// A block that lacks nothing.
#[derive(Debug)]
pub struct Parcel(Content);

#[derive(Debug)]
enum Content {
    /// The payload itself.
    Whole(Vec<u8>),
    /// As many symbols as the block has source symbols.
    Symbols(Assembly),
}

impl Parcel {
    pub(super) fn whole(payload: Vec<u8>) -> Parcel {
        Parcel(Content::Whole(payload))
    }

    pub(super) fn of_symbols(assembly: Assembly) -> Parcel {
        Parcel(Content::Symbols(assembly))
    }

    /// Whether source symbols are lacking, so that [`open`](Parcel::open) costs a decoding.
    pub fn needs_decoding(&self) -> bool {
        match &self.0 {
            Content::Whole(_) => false,
            Content::Symbols(assembly) => !assembly.is_plain(),
        }
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Content::Whole(payload) => payload.len(),
            Content::Symbols(assembly) => assembly.memory(),
        }
    }

    /// The payload of the block.
    ///
    /// # Errors
    /// The symbols do not make a block. Then it is to be
    /// [rejected](crate::Verdict::Rejected), and comes again.
    pub fn open(self, fec: &mut impl Fec) -> Result<Vec<u8>, FecError> {
        match self.0 {
            Content::Whole(payload) => Ok(payload),
            Content::Symbols(assembly) => assembly.finish(fec),
        }
    }
}
