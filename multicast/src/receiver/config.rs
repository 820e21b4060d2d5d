//! What a receiver is told: who it is, and whom it may believe.

use std::time::Duration;

use crate::block::ObjectId;
use crate::keys::VerifyKey;
use crate::seal::Membership;

/// Longest name of a machine, in bytes; more is cut off.
pub const MAX_NAME_BYTES: usize = 32;

/// Everything a [`Receiver`](crate::Receiver) is told.
pub struct ReceiverConfig {
    /// Number of this start of this machine, drawn at random. Never to be used again: under a key, reports of one
    /// number are sealed once.
    pub id: u64,
    /// Name for people, at most [`MAX_NAME_BYTES`].
    pub name: String,
    /// Take only this session, or the first that fits.
    pub session: Option<u32>,
    /// Believe only announces of this key, or the key of the first announce that fits.
    pub verify_key: Option<VerifyKey>,
    /// Take only a session sealed with these keys, or only one that is not sealed.
    pub membership: Option<Membership>,
    /// Take only this object, or whatever the session sends.
    pub object_id: Option<ObjectId>,
    /// The session counts as lost when its sender has not been heard for this long.
    pub silence: Duration,
    /// Chance: called when a moment must be spread at random.
    pub chance: Box<dyn FnMut() -> u32 + Send>,
}

impl std::fmt::Debug for ReceiverConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiverConfig")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
