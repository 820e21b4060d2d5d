//! Where an image is made from: a raw file, a block device, a qcow2 file, or a stream.
//!
//! What a file is, its first bytes decide, never its name. Anything but a raw disk and qcow2 is
//! refused: a compressed or foreign image written to a disk as it is boots nothing.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{major, minor};
use nix::unistd::{Whence, lseek};
use thiserror::Error;

use crate::device::{Access, Device};
use crate::in_use::{DiskUse, Kernel};
use crate::read_at::ReadAt;
use crate::source::qcow2::Converted;

mod qcow2;

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
    /// A qcow2 image that is refused or could not be converted.
    #[error("qcow2 image {}: {reason}", path.display())]
    Qcow2 {
        /// The source.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// The source.
        path: PathBuf,
    },
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
    file: File,
    raw_bytes: u64,
    sector_bytes: Option<u32>,
    usage: Option<DiskUse>,
    // Removes the raw copy of a converted image in the end.
    _converted: Option<Converted>,
}

impl Source {
    /// Opens a file or block device; `-` and pipes are streams. A qcow2 image is converted by
    /// `qemu-img` into a sparse raw file in `scratch`, which goes away with the source.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub fn open(path: &Path, scratch: &Path) -> Result<Source, SourceError> {
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
        if !kind.is_file() && !kind.is_block_device() {
            return Err(SourceError::Kind {
                path: path.to_owned(),
            });
        }
        let raw_bytes = file.seek(SeekFrom::End(0)).map_err(refuse)?;
        let mut head = vec![0; HEAD_BYTES.min(raw_bytes as usize)];
        file.read_exact_at(&mut head, 0).map_err(refuse)?;
        let disk = match format_of(&head) {
            Format::Raw => {
                let number = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
                let sector_bytes = Device::open(path, Access::Read)
                    .and_then(|device| device.sector_bytes())
                    .map_err(refuse)?;
                Disk {
                    file,
                    raw_bytes,
                    sector_bytes,
                    usage: Kernel::default().use_of(&number),
                    _converted: None,
                }
            }
            Format::Qcow2 => {
                let refuse_image = |reason| SourceError::Qcow2 {
                    path: path.to_owned(),
                    reason,
                };
                let converted = qcow2::convert(path, &head, scratch).map_err(refuse_image)?;
                let file = File::open(converted.path()).map_err(refuse)?;
                let raw_bytes = file.metadata().map_err(refuse)?.len();
                Disk {
                    file,
                    raw_bytes,
                    sector_bytes: None,
                    usage: None,
                    _converted: Some(converted),
                }
            }
            Format::Other(format) => {
                return Err(SourceError::Format {
                    path: path.to_owned(),
                    format,
                });
            }
        };
        if disk.raw_bytes == 0 {
            return Err(SourceError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Source {
            kind: Kind::Disk(disk),
        })
    }

    /// A stream of raw bytes of unknown length.
    ///
    /// # Errors
    /// When its first bytes cannot be read, or are not those of a raw disk.
    pub fn stream(mut reader: impl Read + Send + 'static) -> Result<Source, SourceError> {
        let path = || PathBuf::from("the input");
        let mut head = Vec::new();
        let first = reader
            .by_ref()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head);
        first.map_err(|source| SourceError::Io {
            path: path(),
            source,
        })?;
        match format_of(&head) {
            _ if head.is_empty() => Err(SourceError::Empty { path: path() }),
            Format::Raw => Ok(Source {
                kind: Kind::Stream(Box::new(io::Cursor::new(head).chain(reader))),
            }),
            Format::Qcow2 => Err(SourceError::Qcow2 {
                path: path(),
                reason: "cannot be read from a pipe; name the file".into(),
            }),
            Format::Other(format) => Err(SourceError::Format {
                path: path(),
                format,
            }),
        }
    }

    /// Size of the disk, bytes; not known of a stream.
    pub fn raw_bytes(&self) -> Option<u64> {
        self.disk().map(|disk| disk.raw_bytes)
    }

    /// The disk, when it can be read at any place.
    pub(crate) fn disk(&self) -> Option<&Disk> {
        match &self.kind {
            Kind::Disk(disk) => Some(disk),
            Kind::Stream(_) => None,
        }
    }

    /// Fills `buffer` with what lies at `offset`, as far as there is anything; `offset` must be
    /// where the last call ended.
    pub(crate) fn read_next(
        &mut self,
        offset: u64,
        buffer: &mut Vec<u8>,
        limit: usize,
    ) -> io::Result<()> {
        buffer.clear();
        match &mut self.kind {
            Kind::Stream(reader) => {
                reader.by_ref().take(limit as u64).read_to_end(buffer)?;
            }
            Kind::Disk(disk) => {
                let length = disk.raw_bytes.saturating_sub(offset).min(limit as u64) as usize;
                buffer.resize(length, 0);
                if !disk.is_hole(offset, length as u64) {
                    disk.file.read_exact_at(buffer, offset)?;
                }
            }
        }
        Ok(())
    }
}

impl Disk {
    /// Logical sector size, bytes, of a block device; a file has none.
    pub(crate) fn sector_bytes(&self) -> Option<u32> {
        self.sector_bytes
    }

    /// The same disk, to be read while somebody else reads it too.
    pub(crate) fn again(&self) -> io::Result<Disk> {
        Ok(Disk {
            file: self.file.try_clone()?,
            raw_bytes: self.raw_bytes,
            sector_bytes: self.sector_bytes,
            usage: None,
            _converted: None,
        })
    }

    /// Who uses the device, if anybody does.
    pub(crate) fn usage(&self) -> Option<&DiskUse> {
        self.usage.as_ref()
    }

    /// Whether a sparse file has nothing there. A device, or a file system that cannot tell, has.
    fn is_hole(&self, offset: u64, length: u64) -> bool {
        let Ok(from) = i64::try_from(offset) else {
            return false;
        };
        match lseek(self.file.as_fd(), from, Whence::SeekData) {
            Ok(data) => data as u64 >= offset + length,
            Err(Errno::ENXIO) => offset + length <= self.raw_bytes,
            Err(_) => false,
        }
    }
}

impl ReadAt for Disk {
    fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// Bytes from the start of a source that tell its format (VDI's magic is at 64).
const HEAD_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Raw,
    Qcow2,
    Other(&'static str),
}

/// What a disk that begins with `head` is.
fn format_of(head: &[u8]) -> Format {
    const OTHERS: [(usize, &[u8], &str); 13] = [
        (
            0,
            &[0x28, 0xb5, 0x2f, 0xfd],
            "a zstd file (perhaps an image already)",
        ),
        (0, &[0x1f, 0x8b, 0x08], "a gzip file"),
        (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "an xz file"),
        (0, b"BZh", "a bzip2 file"),
        (0, &[0x04, 0x22, 0x4d, 0x18], "an lz4 file"),
        (0, b"PK\x03\x04", "a zip file"),
        (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip file"),
        (0, b"KDMV", "a VMDK image"),
        (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
        (0, b"vhdxfile", "a VHDX image"),
        (0, b"conectix", "a VHD image"),
        (0, b"QED\0", "a QED image"),
        (64, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image"),
    ];
    if head.starts_with(qcow2::MAGIC) {
        return Format::Qcow2;
    }
    let found = OTHERS
        .iter()
        .find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    found.map_or(Format::Raw, |(.., name)| Format::Other(name))
}
