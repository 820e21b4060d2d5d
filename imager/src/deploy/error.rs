//! What can stop a deploy.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::deploy::layout::LayoutError;
use crate::fit::FitError;
use crate::id::FrameId;

/// Why a deploy failed. `Clone`, because every thread that meets a failed deploy is told. The text is complete, with
/// what the kernel said: it travels to server and console as it is.
#[derive(Debug, Clone, Error)]
pub enum DeployError {
    /// The disk cannot hold the image. Nothing has been written.
    #[error(
        "disk {} of {} is smaller than the image, which needs {} \
         ({disk_bytes} bytes against {needed_bytes}); choose another disk",
        path.display(), size(*disk_bytes), size(*needed_bytes)
    )]
    TooSmall {
        /// The disk.
        path: PathBuf,
        /// Its size, in bytes.
        disk_bytes: u64,
        /// Smallest disk that would do, in bytes.
        needed_bytes: u64,
    },
    /// The partition tables do not fit the disk. Nothing has been written.
    #[error("disk {}: {cause}", path.display())]
    Fit {
        /// The disk.
        path: PathBuf,
        /// Why.
        cause: FitError,
    },
    /// Single partitions cannot be written. Nothing has been written.
    #[error("disk {}: {cause}", path.display())]
    Layout {
        /// The disk.
        path: PathBuf,
        /// Why.
        cause: LayoutError,
    },
    /// The image does not have all of the disk. Nothing has been written.
    #[error(
        "the image was made without the content of partition {number}; write only the others, keep it, or say that it \
         may be left empty"
    )]
    Incomplete {
        /// The first partition that was left out.
        number: u32,
    },
    /// The disk was opened to be compared only. Nothing has been written.
    #[error("disk {} was opened read-only", path.display())]
    ReadOnly {
        /// The disk.
        path: PathBuf,
    },
    /// The disk did not give its content.
    #[error("disk {} is failing, replace it: read error at byte {offset}: {cause}", path.display())]
    Read {
        /// The disk.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// What the kernel said.
        cause: Arc<io::Error>,
    },
    /// The disk did not take what was written.
    #[error("disk {} is failing, replace it: write error at byte {offset}: {cause}", path.display())]
    Write {
        /// The disk.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// What the kernel said.
        cause: Arc<io::Error>,
    },
    /// The disk did not confirm that its cache is on the medium.
    #[error("disk {} is failing, replace it: its cache cannot be flushed: {cause}", path.display())]
    Flush {
        /// The disk.
        path: PathBuf,
        /// What the kernel said.
        cause: Arc<io::Error>,
    },
    /// The disk gives back something else than was written, and did so again.
    #[error("disk {}: byte {offset} reads back differently than written; replace the disk", path.display())]
    ReadBack {
        /// The disk.
        path: PathBuf,
        /// Where, in bytes: the start of the run that differs.
        offset: u64,
    },
    /// The commit was asked for too early.
    #[error("{frames} frames are still wanted or not yet read back, the first is {first}")]
    Unsettled {
        /// How many frames.
        frames: usize,
        /// The first of them.
        first: FrameId,
    },
    /// The system gives no more threads or memory.
    #[error("starting a writer thread: {cause}")]
    Threads {
        /// What the kernel said.
        cause: Arc<io::Error>,
    },
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

/// A size as disks are labelled: decimal units, at least two digits.
fn size(bytes: u64) -> String {
    match bytes {
        10_000_000_000.. => format!("{} GB", bytes / 1_000_000_000),
        10_000_000.. => format!("{} MB", bytes / 1_000_000),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_too_small_is_told_in_the_words_on_its_label() {
        let error = DeployError::TooSmall {
            path: "/dev/sda".into(),
            disk_bytes: 120_034_123_776,
            needed_bytes: 240_057_409_536,
        };
        let text = "disk /dev/sda of 120 GB is smaller than the image, which needs 240 GB \
                    (120034123776 bytes against 240057409536); choose another disk";
        assert_eq!(error.to_string(), text);
    }
}
