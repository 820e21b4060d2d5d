//! Where an image is made from: a raw file, a block device, a stream, or a disk in the format of
//! another program.
//!
//! ```text
//!   file ── first bytes ──► raw, VMDK, VHD, VHDX ──────────────► read in place
//!                           OVA ────────► its disk, in place ─► first bytes ─► …
//!                           compressed ─► spool ─► first bytes ─► … (once more at most)
//!                           partclone ──► spool
//!                           qcow2 ──────► qemu-img ─► spool
//!   directory ─────────────► Clonezilla ─► spool
//! ```
//!
//! What a file is, its first bytes decide, never its name. What is not known to be a disk is
//! refused: a foreign image written to a disk as it is boots nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use nix::sys::stat::{major, minor};

use crate::device::{Access, Device};
use crate::in_use::{DiskUse, Kernel};
use crate::read_at::ReadAt;
use crate::source::format::{Format, HEAD_BYTES};
use crate::source::medium::{Extract, Medium};
use crate::source::opening::{Opening, Origin};
use crate::source::qcow2::Converted;
use crate::source::spool::{Workshop, read_full};

mod chunks;
mod clonezilla;
mod error;
mod fault;
mod format;
mod medium;
mod opening;
mod ova;
mod partclone;
mod qcow2;
mod spool;
mod unpack;
mod vhd;
mod vhdx;
mod vmdk;

pub use error::SourceError;

/// How a foreign image is opened.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Directory for what must be unpacked; it goes away with the source, whatever happens.
    pub scratch: PathBuf,
    /// Which disk, from 1, of a source that has several; the only or first one without.
    pub disk: Option<u32>,
}

/// How far unpacking is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportProgress {
    /// Bytes of the source read.
    pub read_bytes: u64,
    /// Bytes of the source there are.
    pub total_bytes: u64,
}

/// A disk to be captured.
pub struct Source {
    kind: Kind,
}

enum Kind {
    /// Can be read at any place.
    Disk(Disk),
    /// Can be read once, front to back; its size is not known.
    Stream(Box<dyn Read + Send>),
}

pub(crate) struct Disk {
    medium: Box<dyn Medium>,
    sector_bytes: Option<u32>,
    usage: Option<DiskUse>,
    notes: Vec<String>,
    // Removes the raw copy of a converted image in the end.
    _converted: Option<Converted>,
}

/// The two ways to read a source.
pub(crate) enum Reading<'a> {
    /// At any place, by several threads at once.
    Disk(&'a Disk),
    /// Front to back.
    Stream(&'a mut (dyn Read + Send)),
}

impl Source {
    /// Opens a file or block device; `-` and pipes are streams. What must be unpacked or
    /// converted goes into `scratch`, until the source is dropped.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn open(path: &Path, scratch: &Path) -> Result<Source, SourceError> {
        let options = ImportOptions {
            scratch: scratch.to_owned(),
            disk: None,
        };
        Source::import(path, &options, &mut |_| {}, &AtomicBool::new(false))
    }

    /// Like [`Source::open`], for a person who waits: unpacking tells `observer` how far it is,
    /// and ends soon when `stop` is set.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn import(
        path: &Path,
        options: &ImportOptions,
        observer: &mut dyn FnMut(ImportProgress),
        stop: &AtomicBool,
    ) -> Result<Source, SourceError> {
        if path == Path::new("-") {
            return Source::stream(io::stdin());
        }
        let refuse = |source| SourceError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(refuse)?;
        let metadata = file.metadata().map_err(refuse)?;
        let kind = metadata.file_type();
        if kind.is_fifo() || kind.is_char_device() {
            return Source::stream(file);
        }
        let mut workshop = Workshop {
            scratch: &options.scratch,
            disk: options.disk,
            observer,
            stop,
        };
        if kind.is_dir() {
            let assembled = clonezilla::assemble(path, &mut workshop)?;
            let mut disk = Disk::from(Box::new(assembled.disk) as Box<dyn Medium>);
            disk.sector_bytes = Some(assembled.sector_bytes);
            disk.notes = assembled.notes;
            return Ok(Source {
                kind: Kind::Disk(disk),
            });
        }
        if kind.is_block_device() {
            return Source::device(path);
        }
        if !kind.is_file() {
            return Err(SourceError::Kind {
                path: path.to_owned(),
            });
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(refuse)?;
        let mut opening = Opening {
            path,
            workshop,
            layers: 0,
        };
        let disk = opening.open(Extract::new(file, bytes), Origin::File)?;
        if disk.medium.raw_bytes() == 0 {
            return Err(SourceError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Source {
            kind: Kind::Disk(disk),
        })
    }

    /// A block device as it is: what its first bytes look like says nothing about a disk.
    ///
    /// # Errors
    /// [`SourceError::Io`] when it cannot be opened, [`SourceError::Kind`] when it is none, [`SourceError::Empty`]
    /// without a medium.
    pub fn device(path: &Path) -> Result<Source, SourceError> {
        let refuse = |source| SourceError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(refuse)?;
        let metadata = file.metadata().map_err(refuse)?;
        if !metadata.file_type().is_block_device() {
            return Err(SourceError::Kind {
                path: path.to_owned(),
            });
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(refuse)?;
        if bytes == 0 {
            return Err(SourceError::Empty {
                path: path.to_owned(),
            });
        }
        let number = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
        let medium = Extract::new(file, bytes).past_cache(path);
        let mut disk = Disk::from(Box::new(medium) as Box<dyn Medium>);
        disk.usage = Kernel::default().use_of(&number);
        disk.sector_bytes = Device::open(path, Access::Read)
            .and_then(|device| device.sector_bytes())
            .map_err(refuse)?;
        Ok(Source {
            kind: Kind::Disk(disk),
        })
    }

    /// A stream of unknown length: raw bytes, or raw bytes compressed.
    ///
    /// # Errors
    /// When its first bytes cannot be read, or are not those of a raw disk.
    pub fn stream(reader: impl Read + Send + 'static) -> Result<Source, SourceError> {
        let path = || PathBuf::from("the input");
        let fail = |source| SourceError::Io {
            path: path(),
            source,
        };
        let (head, mut reader) = peek(Box::new(reader)).map_err(fail)?;
        let mut format = Format::of(&head);
        if head.is_empty() {
            return Err(SourceError::Empty { path: path() });
        }
        if let Format::Packed(packing) = format {
            let (inner, unpacked) = packing.unpack(reader).and_then(peek).map_err(fail)?;
            (format, reader) = (Format::of(&inner), unpacked);
        }
        match format {
            Format::Raw => Ok(Source {
                kind: Kind::Stream(reader),
            }),
            Format::Other(format) => Err(SourceError::Format {
                path: path(),
                format,
            }),
            format => Err(SourceError::Refused {
                path: path(),
                format: format.name(),
                reason: "it cannot be read from a pipe; name the file".into(),
            }),
        }
    }

    /// Size of the disk, bytes; not known of a stream.
    pub fn raw_bytes(&self) -> Option<u64> {
        self.disk().map(|disk| disk.medium.raw_bytes())
    }

    /// Fills `buffer` with what lies at `offset` of the disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the disk ends before the buffer does,
    /// [`io::ErrorKind::Unsupported`] of a stream.
    pub fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let disk = self.disk().ok_or(io::ErrorKind::Unsupported)?;
        ReadAt::read_exact_at(disk, offset, buffer)
    }

    /// The disk, when it can be read at any place.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        match &self.kind {
            Kind::Disk(disk) => Some(disk),
            Kind::Stream(_) => None,
        }
    }

    /// How it is read.
    pub(crate) fn reading(&mut self) -> Reading<'_> {
        match &mut self.kind {
            Kind::Disk(disk) => Reading::Disk(disk),
            Kind::Stream(stream) => Reading::Stream(&mut **stream),
        }
    }
}

impl Disk {
    /// Logical sector size, bytes, where it is known: of a block device, and of some formats.
    pub(crate) fn sector_bytes(&self) -> Option<u32> {
        self.sector_bytes
    }

    /// Who uses the device, if anybody does.
    pub(crate) fn usage(&self) -> Option<&DiskUse> {
        self.usage.as_ref()
    }

    /// Whether it is known without reading that nothing but zeros is there.
    pub(crate) fn is_hole(&self, offset: u64, bytes: u64) -> bool {
        self.medium.is_hole(offset, bytes)
    }

    /// What a person should know about how it was read.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl From<Box<dyn Medium>> for Disk {
    fn from(medium: Box<dyn Medium>) -> Disk {
        Disk {
            medium,
            sector_bytes: None,
            usage: None,
            notes: Vec::new(),
            _converted: None,
        }
    }
}

impl ReadAt for Disk {
    fn raw_bytes(&self) -> u64 {
        self.medium.raw_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.medium.read_exact_at(offset, buffer)
    }
}

/// Why a qcow2 image that begins with `head` is refused. For fuzzing.
///
/// # Errors
/// The reason, when it is.
#[cfg(feature = "fuzzing")]
pub fn refuse_qcow2_header(head: &[u8]) -> Result<(), String> {
    qcow2::refuse_header(head)
}

/// The first bytes of `reader`, and the reader as if they had not been read.
fn peek(mut reader: Box<dyn Read + Send>) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = vec![0; HEAD_BYTES];
    let count = read_full(&mut reader, &mut head)?;
    head.truncate(count);
    let whole = io::Cursor::new(head.clone()).chain(reader);
    Ok((head, Box::new(whole)))
}
