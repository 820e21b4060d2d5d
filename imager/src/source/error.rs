//! Why there is no disk to make an image of.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a source cannot be captured.
#[derive(Debug, Error)]
pub enum SourceError {
    /// It cannot be opened or read.
    #[error("{}", path.display())]
    Io {
        /// The source.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is neither a file, nor a block device, nor a pipe.
    #[error("{} is no file, block device or pipe", path.display())]
    Kind {
        /// The source.
        path: PathBuf,
    },
    /// It is a disk in a format that is not read.
    #[error("{} is {format}, not a raw disk; convert or unpack it first", path.display())]
    Format {
        /// The source.
        path: PathBuf,
        /// What it looks like.
        format: &'static str,
    },
    /// It is an image of this program.
    #[error(
        "{} is an image already; its disk comes out with `netflash image extract`",
        path.display()
    )]
    Image {
        /// The source.
        path: PathBuf,
    },
    /// A qcow2 image that is refused or could not be converted.
    #[error("qcow2 image {}: {reason}", path.display())]
    Qcow2 {
        /// The source.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It is cut short, or not what it claims to be.
    #[error("{format} {}: at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The source.
        path: PathBuf,
        /// What it claims to be.
        format: &'static str,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// A kind of its format that is not taken, with what to do instead.
    #[error("{format} {}: {reason}", path.display())]
    Refused {
        /// The source.
        path: PathBuf,
        /// What it is.
        format: &'static str,
        /// Why, and the remedy.
        reason: String,
    },
    /// There is no room for what is unpacked.
    #[error("unpacking into {}", directory.display())]
    Spool {
        /// Where the spool file is.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// The source.
        path: PathBuf,
    },
    /// The stop flag was set.
    #[error("interrupted")]
    Interrupted,
}
