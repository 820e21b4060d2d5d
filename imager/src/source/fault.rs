//! What can be wrong with a foreign image, before it is known which file it was.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::bytes::Malformed;
use crate::source::SourceError;

/// Why a foreign image is not read.
#[derive(Debug, Error)]
pub(super) enum Fault {
    /// The source cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// What is unpacked has no place.
    #[error("the spool file cannot be written")]
    Spool(#[source] io::Error),
    /// Its bytes are not what its format wants.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is whole, but of a kind that is not taken; with what to do instead.
    #[error("{0}")]
    Refused(String),
    /// The stop flag was set.
    #[error("interrupted")]
    Interrupted,
}

impl Fault {
    /// Bytes at `offset` that do not fit.
    pub(super) fn at(offset: u64, reason: impl Into<String>) -> Fault {
        Fault::Malformed(Malformed {
            offset,
            reason: reason.into(),
        })
    }

    /// Whole, but not taken.
    pub(super) fn refuse(reason: impl Into<String>) -> Fault {
        Fault::Refused(reason.into())
    }

    /// A decoder failed after `offset` bytes of its input: the disk's fault, or the file's.
    pub(super) fn decoding(offset: u64, error: io::Error) -> Fault {
        if error.raw_os_error().is_some() {
            return Fault::Read(error);
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Fault::at(offset, "it ends too early: the file is cut short")
            }
            _ => Fault::at(offset, error.to_string()),
        }
    }

    /// The error about the file `path`, which is (or contains) a `format`.
    pub(super) fn of(self, path: &Path, format: &'static str, scratch: &Path) -> SourceError {
        let owned = path.to_owned();
        match self {
            Fault::Read(source) => SourceError::Io {
                path: owned,
                source,
            },
            Fault::Spool(source) => SourceError::Spool {
                directory: scratch.to_owned(),
                source,
            },
            Fault::Malformed(fault) => SourceError::Damaged {
                path: owned,
                format,
                offset: fault.offset,
                reason: fault.reason,
            },
            Fault::Refused(reason) => SourceError::Refused {
                path: owned,
                format,
                reason,
            },
            Fault::Interrupted => SourceError::Interrupted,
        }
    }
}
