//! What a machine is told to do.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{CaptureOrder, CompareOrder, DiskSelector, FlashScope, Hex32, SealedKeys};

/// One machine's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The server's number for it.
    pub id: u64,
    /// What to do.
    pub order: Order,
    /// What to do afterwards, when all went well.
    #[serde(default)]
    pub last: LastAction,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Order {
    /// Put an image on a disk.
    Flash(FlashOrder),
    /// Put a part of an image on a disk. An order of its own, so that an agent too old for it refuses it, where it would
    /// overlook a field and erase what shall stay.
    PartialFlash(PartialFlashOrder),
    /// Make an image of a disk.
    Capture(CaptureOrder),
    /// Compare a disk with an image, writing nothing.
    Compare(CompareOrder),
}

/// Put an image on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlashOrder {
    /// Name of the image, to show.
    pub image_name: String,
    /// The image: BLAKE3 of its manifest.
    pub image_id: Hex32,
    /// Size of the raw disk in the image, in bytes.
    pub raw_bytes: u64,
    /// Which disk loses its content.
    #[serde(default)]
    pub disk: DiskSelector,
    /// Where the image is being sent.
    pub session: SessionTicket,
    /// What becomes of runs that the image knows to be unallocated.
    #[serde(default)]
    pub free: FreePolicy,
    /// How much is read back.
    #[serde(default)]
    pub verify: VerifyPolicy,
}

/// Put a part of an image on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialFlashOrder {
    /// The image, the disk and how.
    #[serde(flatten)]
    pub flash: FlashOrder,
    /// Which part.
    pub scope: FlashScope,
}

/// What is needed to join a multicast session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTicket {
    /// Multicast group and port.
    pub group: SocketAddr,
    /// The session's number; another number in this group is another session.
    pub session: u32,
    /// Ed25519 public key that signs the session's announces.
    pub verify_key: Hex32,
    /// The session's keys, sealed to the agent's key; `None` when the session is not sealed.
    #[serde(default)]
    pub keys: Option<SealedKeys>,
}

/// What becomes of unallocated runs of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreePolicy {
    /// They keep what they hold: fastest, and old data stays readable.
    #[default]
    Leave,
    /// The disk is told that they are unused.
    Discard,
    /// They are written as zeros.
    Zero,
}

/// How much of the disk is read back before the tables are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyPolicy {
    /// Everything that was written.
    #[default]
    Full,
    /// A sample.
    Sample,
}

/// What a machine does after its job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastAction {
    /// Reboot; the boot decision then sends it to its disk.
    #[default]
    Reboot,
    /// Power off.
    PowerOff,
    /// Stay, and ask for the next job.
    Wait,
}
