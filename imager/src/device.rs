//! A disk as bytes: aligned reads and writes past the page cache, zeroing, discarding, flushing.
//!
//! This is the one file of the crate that speaks to the kernel by ioctl. Reads and writes use `O_DIRECT`; where the
//! kernel refuses it (some file systems, odd alignment) they go through the page cache, which is then kept small and
//! dropped before anything is read back.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::unistd::{Whence, lseek64};

/// Alignment of buffers for `O_DIRECT`, in bytes: enough for every logical sector size in use.
pub(crate) const ALIGNMENT: usize = 4096;
/// What may be dirty in the page cache before it is written out, where `O_DIRECT` is refused, in bytes.
const BUFFERED_DIRTY_MAX: u64 = 32 << 20;
/// The longest range handed to one zeroing or discarding ioctl, in bytes: so that a stop is noticed in between.
pub(crate) const RANGE_MAX: u64 = 256 << 20;
/// Zeros written where the kernel cannot zero a range itself, in bytes at a time.
const ZEROS_BYTES: usize = 1 << 20;

mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_none_bad!(blkrrpart, 0x125f);
    nix::ioctl_none_bad!(blkflsbuf, 0x1261);
    nix::ioctl_write_ptr_bad!(blkdiscard, 0x1277, [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
}

/// A buffer of fixed length that `O_DIRECT` accepts.
pub(crate) struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// A zeroed buffer of `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let storage = vec![0; bytes + ALIGNMENT];
        // The storage is never grown, so its address and with it the offset stays.
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        Self {
            storage,
            start,
            bytes,
        }
    }

    /// An aligned copy of `data`, padded with zeros to a multiple of `sector_bytes`.
    pub(crate) fn padded(data: &[u8], sector_bytes: u32) -> Self {
        let mut buffer = Self::new(data.len().next_multiple_of(sector_bytes as usize));
        buffer[..data.len()].copy_from_slice(data);
        buffer
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.bytes]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.bytes]
    }
}

/// What an open device may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read only; neither locked nor claimed.
    Read,
    /// Read and write; claimed exclusively.
    Write,
    /// As `Write`; a missing regular file is created.
    Create,
}

/// An open block device or regular file. All methods may be called from several threads.
pub(crate) struct Device {
    /// Opened with `O_DIRECT`, and on a block device with the exclusive claim (`O_EXCL`).
    direct: Option<File>,
    /// The same device through the page cache, under an advisory lock: udev leaves a locked disk alone.
    buffered: Buffered,
    /// Cleared once the kernel has refused a well-aligned direct transfer.
    direct_works: AtomicBool,
    /// Bytes written through the page cache since it was last written out.
    dirty_bytes: AtomicU64,
    block: bool,
}

enum Buffered {
    Locked(Flock<File>),
    Plain(File),
}

impl Deref for Buffered {
    type Target = File;
    fn deref(&self) -> &File {
        match self {
            Buffered::Locked(file) => file,
            Buffered::Plain(file) => file,
        }
    }
}

impl Device {
    /// Opens a block device or regular file. For writing, a block device is claimed exclusively: `EBUSY` when it is
    /// mounted, swapped to or held; `EWOULDBLOCK` when another program holds the advisory lock.
    pub(crate) fn open(path: &Path, access: Access) -> io::Result<Self> {
        let block = path
            .metadata()
            .is_ok_and(|meta| meta.file_type().is_block_device());
        let write = access != Access::Read;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(write)
            .create(access == Access::Create && !block)
            .truncate(false);
        let claim = if block && write { libc::O_EXCL } else { 0 };

        // The claiming descriptor first: nothing else is touched when it is refused.
        let claimed = |flags| {
            options
                .clone()
                .custom_flags(flags | libc::O_CLOEXEC)
                .open(path)
        };
        let direct = match claimed(libc::O_DIRECT | claim) {
            Ok(file) => Some(file),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                // A claim is needed all the same, for as long as the device is open.
                if claim != 0 {
                    Some(claimed(claim)?)
                } else {
                    None
                }
            }
            Err(error) => return Err(error),
        };
        let plain = claimed(0)?;
        let buffered = if write {
            Buffered::Locked(
                Flock::lock(plain, FlockArg::LockExclusiveNonblock)
                    .map_err(|(_, errno)| io::Error::from(errno))?,
            )
        } else {
            Buffered::Plain(plain)
        };
        let direct_works = AtomicBool::new(direct.is_some());
        Ok(Self {
            direct,
            buffered,
            direct_works,
            dirty_bytes: AtomicU64::new(0),
            block,
        })
    }

    /// Whether this is a block device (not a regular file).
    pub(crate) fn is_block(&self) -> bool {
        self.block
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        if !self.block {
            return Ok(self.buffered.metadata()?.len());
        }
        let mut bytes = 0usize;
        // SAFETY: BLKGETSIZE64 writes one u64 to the pointer, which is a live usize on the 64-bit machines we run on.
        unsafe { ioctl::blkgetsize64(self.buffered.as_raw_fd(), &raw mut bytes) }?;
        Ok(bytes as u64)
    }

    /// Logical sector size in bytes of a block device; `None` for a regular file, which has none.
    pub(crate) fn sector_bytes(&self) -> io::Result<Option<u32>> {
        if !self.block {
            return Ok(None);
        }
        let mut bytes: libc::c_int = 0;
        // SAFETY: BLKSSZGET writes one int to the pointer, which is a live c_int.
        unsafe { ioctl::blksszget(self.buffered.as_raw_fd(), &raw mut bytes) }?;
        Ok(u32::try_from(bytes).ok().filter(|b| b.is_power_of_two()))
    }

    /// Sets the length of a regular file; a new part is a hole.
    pub(crate) fn resize(&self, bytes: u64) -> io::Result<()> {
        self.buffered.set_len(bytes)
    }

    /// Writes all of `data` at `offset`: whole sectors, from a place in an [`AlignedBuffer`] at which a sector begins.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let bytes = data.len();
        match self.direct_file() {
            Some(file) => match file.write_all_at(data, offset) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.direct_refused(offset, bytes);
                    self.write_buffered(data, offset)
                }
                done => done,
            },
            None => self.write_buffered(data, offset),
        }
    }

    /// Fills `data`, which is as [`Device::write_at`] wants it, from `offset`; never from the page cache if that can be
    /// avoided. Beyond the end of a regular file there are zeros.
    pub(crate) fn read_at(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = data.len();
        match self.direct_file() {
            Some(file) => match self.read_full(file, data, offset) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.direct_refused(offset, bytes);
                    self.read_buffered(data, offset)
                }
                done => done,
            },
            None => self.read_buffered(data, offset),
        }
    }

    /// Makes a range read as zeros, by the device's own command where it has one.
    pub(crate) fn zero(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let zeroed = if self.block {
            // SAFETY: BLKZEROOUT reads two u64 (start, length) from the pointer, which is a live array of two.
            unsafe { ioctl::blkzeroout(self.buffered.as_raw_fd(), &[offset, bytes]) }.map(drop)
        } else if self.is_hole(offset, bytes) {
            Ok(())
        } else {
            let range = FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&*self.buffered, range, offset as i64, bytes as i64)
        };
        match zeroed {
            Ok(()) => Ok(()),
            Err(Errno::EIO | Errno::ENOSPC | Errno::ENODEV | Errno::ENXIO) => {
                zeroed.map_err(io::Error::from)
            }
            Err(_) => self.write_zeros(offset, bytes),
        }
    }

    /// Tells the device that a range holds nothing. Its content is undefined afterwards; a device that cannot
    /// discard is not an error.
    pub(crate) fn discard(&self, offset: u64, bytes: u64) {
        let discarded = if self.block {
            // SAFETY: BLKDISCARD reads two u64 (start, length) from the pointer, which is a live array of two.
            unsafe { ioctl::blkdiscard(self.buffered.as_raw_fd(), &[offset, bytes]) }.map(drop)
        } else {
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&*self.buffered, hole, offset as i64, bytes as i64)
        };
        if let Err(errno) = discarded {
            log::debug!("discard offset={offset} bytes={bytes} refused={errno}");
        }
    }

    /// Waits until everything written so far would survive a power cut, and forgets what the page cache holds.
    pub(crate) fn flush(&self) -> io::Result<()> {
        // Both descriptors: an error of a write-back is reported once to each.
        if let Some(file) = &self.direct {
            file.sync_all()?;
        }
        self.buffered.sync_all()?;
        self.dirty_bytes.store(0, Ordering::Relaxed);
        // Advice only: a refusal means a read-back may come from memory where O_DIRECT is refused as well.
        let _ = posix_fadvise(
            &*self.buffered,
            0,
            0,
            PosixFadviseAdvice::POSIX_FADV_DONTNEED,
        );
        Ok(())
    }

    /// Asks the kernel to read the partition table again. A regular file and a device without partitions have none.
    pub(crate) fn reread_table(&self) -> io::Result<()> {
        if !self.block {
            return Ok(());
        }
        // The descriptor with the exclusive claim: with the other one the kernel would claim the disk itself, and fail.
        let claimed = self.direct.as_ref().unwrap_or(&self.buffered).as_raw_fd();
        // SAFETY: neither ioctl takes an argument.
        unsafe { ioctl::blkflsbuf(claimed) }?;
        // SAFETY: as above.
        match unsafe { ioctl::blkrrpart(claimed) } {
            Ok(_) | Err(Errno::EINVAL | Errno::ENOTTY) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether transfers pass the page cache by.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct_works.load(Ordering::Relaxed)
    }

    fn direct_file(&self) -> Option<&File> {
        self.direct.as_ref().filter(|_| self.is_direct())
    }

    /// A refusal of a transfer aligned as well as can be means that no other will be accepted.
    fn direct_refused(&self, offset: u64, bytes: usize) {
        if offset.is_multiple_of(ALIGNMENT as u64) && bytes.is_multiple_of(ALIGNMENT) {
            self.direct_works.store(false, Ordering::Relaxed);
        }
    }

    fn write_buffered(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.buffered.write_all_at(data, offset)?;
        let dirty = self
            .dirty_bytes
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        if dirty >= BUFFERED_DIRTY_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn read_buffered(&self, data: &mut [u8], offset: u64) -> io::Result<()> {
        let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        let _ = posix_fadvise(&*self.buffered, offset as i64, data.len() as i64, advice);
        self.read_full(&self.buffered, data, offset)
    }

    /// Reads until `data` is full. What lies beyond the end of a regular file reads as zeros: its last sector may be
    /// cut short.
    fn read_full(&self, file: &File, data: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            let read = match file.read_at(&mut data[done..], offset + done as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            done += read;
            if done < data.len() && !self.block && offset + done as u64 >= self.bytes()? {
                data[done..].fill(0);
                break;
            }
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Writes zeros over a range of whole sectors.
    pub(crate) fn write_zeros(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let zeros = AlignedBuffer::new(ZEROS_BYTES);
        let end = offset + bytes;
        let mut at = offset;
        while at < end {
            let step = (end - at).min(ZEROS_BYTES as u64);
            self.write_at(&zeros[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }

    /// Whether a range of a regular file has never been written: then it reads as zeros already. Never so on a block
    /// device.
    pub(crate) fn is_hole(&self, offset: u64, bytes: u64) -> bool {
        match lseek64(&*self.buffered, offset as i64, Whence::SeekData) {
            Ok(data) => data as u64 >= offset + bytes,
            Err(Errno::ENXIO) => self.bytes().is_ok_and(|end| offset + bytes <= end),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(bytes: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn a_buffer_is_aligned_and_padded_with_zeros() {
        let buffer = AlignedBuffer::padded(&[7; 700], 512);
        assert_eq!(buffer.as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(buffer.len(), 1024);
        assert!(buffer[700..].iter().all(|b| *b == 0));
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (_dir, path) = file_of(1 << 20);
        let device = Device::open(&path, Access::Write).unwrap();
        let data = AlignedBuffer::padded(&[0xa5; 512 * 3], 512);
        device.write_at(&data, 512 * 5).unwrap();
        device.flush().unwrap();
        let mut back = AlignedBuffer::new(512 * 5);
        device.read_at(&mut back, 512 * 4).unwrap();
        assert_eq!(back[..512], [0; 512]);
        assert_eq!(back[512..512 * 4], [0xa5; 512 * 3]);
        assert_eq!(back[512 * 4..], [0; 512]);
    }

    #[test]
    fn a_zeroed_range_reads_as_zeros_and_leaves_its_neighbours() {
        let (_dir, path) = file_of(4 << 20);
        let device = Device::open(&path, Access::Write).unwrap();
        let ones = AlignedBuffer::padded(&vec![1; 4 << 20], 512);
        device.write_at(&ones, 0).unwrap();
        device.zero(1 << 20, (2 << 20) + 512).unwrap();
        device.write_zeros((3 << 20) + 1024, 512).unwrap();
        device.flush().unwrap();
        let disk = std::fs::read(&path).unwrap();
        let zeros: Vec<usize> = (0..disk.len())
            .step_by(512)
            .filter(|at| disk[*at] == 0)
            .collect();
        let expected: Vec<usize> = ((1 << 20)..(3 << 20) + 512)
            .step_by(512)
            .chain([(3 << 20) + 1024])
            .collect();
        assert_eq!(zeros, expected);
    }

    #[test]
    fn zeroing_a_hole_allocates_nothing() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, path) = file_of(8 << 20);
        let device = Device::open(&path, Access::Write).unwrap();
        device.zero(0, 8 << 20).unwrap();
        device.flush().unwrap();
        assert_eq!(path.metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn a_second_writer_is_refused() {
        let (_dir, path) = file_of(4096);
        let _first = Device::open(&path, Access::Write).unwrap();
        let second = Device::open(&path, Access::Write).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        assert!(Device::open(&path, Access::Read).is_ok());
    }
}
