//! What an operator may choose about a deploy, what it tells while it runs, and its result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::deploy::error::DeployError;
use crate::fit::LastPartition;
use crate::scope::Scope;

/// What becomes of the parts of the disk that the image proves unallocated.
///
/// A frame that holds any used byte is always written whole, its free runs as zeros: one write instead of several, and
/// nothing of the former owner is left between the files. The policy is about all other free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FreePolicy {
    /// It keeps what it holds: fastest, and the former owner's data stays readable below the new file system.
    #[default]
    Leave,
    /// The disk is told that it holds nothing (TRIM). What it reads as afterwards is up to the disk.
    Discard,
    /// It is made to read as zeros.
    Zero,
}

/// How much of what was written is read back and hashed again before the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyPolicy {
    /// All of it.
    #[default]
    Full,
    /// One frame in sixteen.
    Sample,
}

/// How an image is put on a disk.
#[derive(Debug, Clone, Default)]
pub struct DeployOptions {
    /// What becomes of free space.
    pub free: FreePolicy,
    /// How much is read back.
    pub verify: VerifyPolicy,
    /// What becomes of the last partition on a larger disk. The table stays when the scope is not the whole disk.
    pub last_partition: LastPartition,
    /// Which partitions are written.
    pub scope: Scope,
    /// Whether an image may be written whole though partitions were left out when it was made: they stay as they are.
    pub incomplete: bool,
    /// Threads that decompress, check and write; 0 takes one for each processor, at least 2 and at most 8.
    pub threads: usize,
    /// Set by the caller to end the deploy early; it then fails with `Stopped`.
    pub stop: Arc<AtomicBool>,
}

impl DeployOptions {
    const THREADS_MIN: usize = 2;
    const THREADS_MAX: usize = 8;

    pub(crate) fn thread_count(&self) -> usize {
        let asked = match self.threads {
            0 => std::thread::available_parallelism().map_or(Self::THREADS_MIN, usize::from),
            asked => asked,
        };
        asked.clamp(Self::THREADS_MIN, Self::THREADS_MAX)
    }

    pub(crate) fn check_stop(&self) -> Result<(), DeployError> {
        if self.stop.load(Ordering::Relaxed) {
            Err(DeployError::Stopped)
        } else {
            Ok(())
        }
    }
}

/// What a deploy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeployPhase {
    /// Hashing what is on the disk already.
    Survey,
    /// Writing what arrives.
    Write,
    /// Reading back what was written.
    Verify,
    /// Writing the partition tables.
    Commit,
}

/// Progress of a deploy: told once for each frame, by any of its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeployEvent {
    /// What is being done.
    pub phase: DeployPhase,
    /// How much of this phase is done, in bytes of the raw disk.
    pub done_bytes: u64,
    /// How much there is to do in this phase, in bytes of the raw disk.
    pub total_bytes: u64,
}

/// Who is told about progress.
pub type DeployObserver = Arc<dyn Fn(DeployEvent) + Send + Sync>;

/// What a deploy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployReport {
    /// Size of the disk, in bytes.
    pub disk_bytes: u64,
    /// Frames that were on the disk already.
    pub kept_frames: u64,
    /// Frames written.
    pub written_frames: u64,
    /// Frames refused because their content was not what the manifest says.
    pub rejected_frames: u64,
    /// Bytes made to read as zeros.
    pub zeroed_bytes: u64,
    /// Frames read back from the disk, past the page cache, and found right.
    pub verified_frames: u64,
    /// Whether reads and writes passed the page cache by (`O_DIRECT`).
    pub direct: bool,
    /// Whether anything at all was written.
    pub changed: bool,
    /// Why the kernel still goes by the old partition table, if it does; a reboot helps.
    pub stale_table: Option<String>,
}
