//! Fetching what multicast does not bring: the trait of whoever can, and when it is done.
//!
//! ```text
//!              health says Blocked                    health says Fine
//!   multicast ---------------------> detour, beside it ----------------> multicast
//!                                      |        ^
//!                                      v        | a while later
//!                              the way fails, or asks to wait
//! ```
//!
//! The socket is listened to all the time; blocks are taken from whichever way brings them first.

use std::{fmt, net::SocketAddr, time::Duration};

use thiserror::Error;

use crate::{
    block::{BlockId, ObjectId},
    receiver::Blockage,
};

/// Another way to the object of a session, for a machine that multicast does not reach. Its calls may
/// block for as long as a request takes; they come from a thread of their own, one at a time.
pub trait Detour: Send {
    /// The newest announce of the session and the address it was sent from.
    ///
    /// # Errors
    /// When it cannot be had now.
    fn announce(&mut self) -> Result<(SocketAddr, Vec<u8>), DetourError>;

    /// The preamble of `object`.
    ///
    /// # Errors
    /// When it cannot be had now.
    fn preamble(&mut self, object: &ObjectId) -> Result<Vec<u8>, DetourError>;

    /// The payload of a block of `object`.
    ///
    /// # Errors
    /// When it cannot be had now.
    fn block(&mut self, object: &ObjectId, block: BlockId) -> Result<Vec<u8>, DetourError>;

    /// Whether this way proves to be the host of the session, as TLS to the server does: an announce that it
    /// brings is then of now, and a sealed session begins without having heard this machine.
    fn vouches(&self) -> bool {
        false
    }
}

/// Why something could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DetourError {
    /// Others come first.
    #[error("waiting for a place: number {position}")]
    Wait {
        /// Place in the queue, from 1.
        position: u32,
        /// When to ask again.
        again: Duration,
    },
    /// It does not work.
    #[error("{0}")]
    Failed(String),
}

/// When to go another way, and which.
pub struct Bypass {
    /// The way.
    pub way: Box<dyn Detour>,
    /// How long multicast may fail before it is gone, see [`Receiver::health`](crate::Receiver::health).
    pub patience: Duration,
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bypass")
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

/// That a machine took another way, why, and what came by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetourReport {
    /// Why it was taken, the first time.
    pub reason: Blockage,
    /// Whole blocks that came by it.
    pub blocks: u64,
    /// Bytes that came by it.
    pub bytes: u64,
}
