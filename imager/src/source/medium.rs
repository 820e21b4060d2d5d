//! What a disk is read from: a part of a file as it is, or a map of chunks into one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::device::ALIGNMENT;
use crate::read_at::ReadAt;

/// A raw disk that may know where it is empty.
pub(crate) trait Medium: ReadAt + Send + Sync {
    /// Whether it is known without reading that nothing but zeros is there.
    fn is_hole(&self, _offset: u64, _bytes: u64) -> bool {
        false
    }
}

/// A run of bytes of a file: the file itself, or one disk in an archive.
#[derive(Clone)]
pub(crate) struct Extract {
    file: Arc<File>,
    /// The same file past the page cache, for large reads.
    direct: Option<Arc<Direct>>,
    start: u64,
    bytes: u64,
}

/// A file opened with `O_DIRECT`: what is read once need not be copied, nor push out what others need.
struct Direct {
    file: File,
    /// Cleared once the kernel has refused a well-aligned read.
    works: AtomicBool,
}

impl Extract {
    /// The first `bytes` of `file`.
    pub(super) fn new(file: File, bytes: u64) -> Extract {
        Extract {
            file: Arc::new(file),
            direct: None,
            start: 0,
            bytes,
        }
    }

    /// The same, read past the page cache where memory, place and length allow it; `path` is that of the file.
    pub(super) fn past_cache(mut self, path: &Path) -> Extract {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_DIRECT);
        // What cannot be opened so is read as any other.
        self.direct = options.open(path).ok().map(|file| {
            Arc::new(Direct {
                file,
                works: AtomicBool::new(true),
            })
        });
        self
    }

    /// The `bytes` from `start` on; none when they are not all here.
    pub(super) fn part(&self, start: u64, bytes: u64) -> Option<Extract> {
        let end = start.checked_add(bytes)?;
        (end <= self.bytes).then(|| Extract {
            file: Arc::clone(&self.file),
            direct: self.direct.clone(),
            start: self.start + start,
            bytes,
        })
    }

    /// The file it is part of.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Reads it front to back.
    pub(super) fn front_to_back(&self) -> FrontToBack {
        FrontToBack {
            from: self.clone(),
            position: 0,
        }
    }
}

impl ReadAt for Extract {
    fn raw_bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        end.filter(|&end| end <= self.bytes)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let place = self.start + offset;
        if let Some(direct) = self
            .direct
            .as_ref()
            .filter(|direct| direct.takes(buffer, place))
        {
            match direct.file.read_exact_at(buffer, place) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    direct.works.store(false, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        self.file.read_exact_at(buffer, place)
    }
}

impl Direct {
    fn takes(&self, buffer: &[u8], place: u64) -> bool {
        let aligned = buffer.as_ptr().addr().is_multiple_of(ALIGNMENT)
            && buffer.len().is_multiple_of(ALIGNMENT)
            && place.is_multiple_of(ALIGNMENT as u64);
        aligned && self.works.load(Ordering::Relaxed)
    }
}

impl Medium for Extract {
    fn is_hole(&self, offset: u64, bytes: u64) -> bool {
        let Ok(from) = i64::try_from(self.start.saturating_add(offset)) else {
            return false;
        };
        match lseek(self.file.as_fd(), from, Whence::SeekData) {
            Ok(data) => data as u64 >= self.start + offset + bytes,
            Err(Errno::ENXIO) => offset.saturating_add(bytes) <= self.bytes,
            // A device, or a file system that cannot tell.
            Err(_) => false,
        }
    }
}

/// Reads an [`Extract`] from its beginning to its end.
pub(super) struct FrontToBack {
    from: Extract,
    position: u64,
}

impl Read for FrontToBack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.from.bytes - self.position;
        let wanted = left.min(buffer.len() as u64) as usize;
        let place = self.from.start + self.position;
        let count = self.from.file.read_at(&mut buffer[..wanted], place)?;
        self.position += count as u64;
        Ok(count)
    }
}
