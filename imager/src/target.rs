//! A disk chosen to be written, opened only when nothing speaks against it.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::device::{Access, Device};
use crate::in_use::{DiskUse, Kernel};

/// Sector size of a regular file, in bytes, when nothing else is said.
const FILE_SECTOR_BYTES: u32 = 512;

/// Why a disk is refused. Nothing has been written to it.
#[derive(Debug, Error)]
pub enum TargetError {
    /// There is no such disk.
    #[error("disk {} does not exist; `lsblk` lists the disks", path.display())]
    Absent {
        /// What was asked for.
        path: PathBuf,
    },
    /// Neither a block device nor a regular file.
    #[error("{} is not a disk: it is neither a block device nor a regular file", path.display())]
    NotADisk {
        /// What was asked for.
        path: PathBuf,
    },
    /// A partition; images are of whole disks.
    #[error("{} is a partition; name the whole disk, /dev/{disk}", path.display())]
    Partition {
        /// What was asked for.
        path: PathBuf,
        /// The disk it is on.
        disk: String,
    },
    /// It cannot be written.
    #[error("disk {} is read-only; check its write-protect switch, or `blockdev --setrw`", path.display())]
    ReadOnly {
        /// What was asked for.
        path: PathBuf,
    },
    /// It is in use.
    #[error("disk {} is in use: {usage}", path.display())]
    InUse {
        /// What was asked for.
        path: PathBuf,
        /// By whom.
        usage: DiskUse,
    },
    /// The kernel would not open it.
    #[error("opening disk {}", path.display())]
    Open {
        /// What was asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How a disk is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetOptions {
    /// A regular file is created when absent, and lengthened to the image's size when shorter. Never a block device.
    pub create: bool,
    /// Opened to be compared only: neither claimed nor locked, and not refused when in use.
    pub read_only: bool,
    /// Sector size of a regular file, in bytes; 512 when not given. A block device has its own.
    pub sector_bytes: Option<u32>,
}

/// An opened disk: a block device, or a regular file that stands for one.
pub struct Target {
    pub(crate) device: Device,
    path: PathBuf,
    bytes: u64,
    sector_bytes: u32,
    options: TargetOptions,
}

impl Target {
    /// Opens the disk at `path` for writing and claims it.
    ///
    /// # Errors
    /// When it is absent, a partition, read-only, or in use (mounted, swapped to, part of LVM, RAID or encryption,
    /// open exclusively elsewhere). Nothing has been written then.
    pub fn open(path: &Path, options: TargetOptions) -> Result<Target, TargetError> {
        Self::open_by(path, options, &Kernel::default())
    }

    fn open_by(
        path: &Path,
        options: TargetOptions,
        kernel: &Kernel,
    ) -> Result<Target, TargetError> {
        let refuse = |source: io::Error| match source.raw_os_error() {
            Some(libc::EBUSY | libc::EWOULDBLOCK) => TargetError::InUse {
                path: path.into(),
                usage: DiskUse::Busy,
            },
            Some(libc::EROFS) => TargetError::ReadOnly { path: path.into() },
            Some(libc::ENOENT | libc::ENXIO | libc::ENOMEDIUM) => {
                TargetError::Absent { path: path.into() }
            }
            _ => TargetError::Open {
                path: path.into(),
                source,
            },
        };
        match path.metadata() {
            Ok(meta) => check(path, &meta, options, kernel)?,
            // Absent devices are not created as files: that would fill the memory of a live system.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !options.create || path.starts_with("/dev") {
                    return Err(TargetError::Absent { path: path.into() });
                }
            }
            Err(error) => return Err(refuse(error)),
        }
        let access = match options {
            TargetOptions {
                read_only: true, ..
            } => Access::Read,
            TargetOptions { create: true, .. } => Access::Create,
            _ => Access::Write,
        };
        let device = Device::open(path, access).map_err(refuse)?;
        let bytes = device.bytes().map_err(refuse)?;
        let sector_bytes = device.sector_bytes().map_err(refuse)?;
        let sector_bytes = sector_bytes
            .or(options.sector_bytes)
            .unwrap_or(FILE_SECTOR_BYTES);
        Ok(Target {
            device,
            path: path.into(),
            bytes,
            sector_bytes,
            options,
        })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Logical sector size in bytes.
    pub fn sector_bytes(&self) -> u32 {
        self.sector_bytes
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        !self.device.is_block()
    }

    /// Whether it may be compared only.
    pub(crate) fn is_read_only(&self) -> bool {
        self.options.read_only
    }

    /// Whether it may be lengthened.
    pub(crate) fn can_grow(&self) -> bool {
        self.is_file() && self.options.create
    }

    /// A file has the sectors of the image that is put on it, unless it was opened with others.
    pub(crate) fn adopt_sectors(&mut self, sector_bytes: u32) {
        if self.is_file() && self.options.sector_bytes.is_none() {
            self.sector_bytes = sector_bytes;
        }
    }

    /// Sets the length of a file to `bytes`.
    pub(crate) fn resize(&mut self, bytes: u64) -> io::Result<()> {
        self.device.resize(bytes)?;
        self.bytes = bytes;
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("path", &self.path)
            .field("bytes", &self.bytes)
            .field("sector_bytes", &self.sector_bytes)
            .finish_non_exhaustive()
    }
}

fn check(
    path: &Path,
    meta: &Metadata,
    options: TargetOptions,
    kernel: &Kernel,
) -> Result<(), TargetError> {
    let kind = meta.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if !kind.is_block_device() {
        return Err(TargetError::NotADisk { path: path.into() });
    }
    let number = format!("{}:{}", libc::major(meta.rdev()), libc::minor(meta.rdev()));
    if let Some(disk) = kernel.disk_of_partition(&number) {
        return Err(TargetError::Partition {
            path: path.into(),
            disk,
        });
    }
    if options.read_only {
        return Ok(());
    }
    if kernel.is_read_only(&number) {
        return Err(TargetError::ReadOnly { path: path.into() });
    }
    match kernel.use_of(&number) {
        Some(usage) => Err(TargetError::InUse {
            path: path.into(),
            usage,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_disk_is_refused_and_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let refused = Target::open(&path, TargetOptions::default()).unwrap_err();
        assert!(matches!(refused, TargetError::Absent { .. }), "{refused}");
        assert!(!path.exists());
    }

    #[test]
    fn a_name_below_dev_is_never_created_as_a_file() {
        let path = Path::new("/dev/netflash-no-such-disk");
        let options = TargetOptions {
            create: true,
            ..TargetOptions::default()
        };
        assert!(matches!(
            Target::open(path, options),
            Err(TargetError::Absent { .. })
        ));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_created_and_grown_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let options = TargetOptions {
            create: true,
            ..TargetOptions::default()
        };
        let mut target = Target::open(&path, options).unwrap();
        assert_eq!(
            (target.bytes(), target.sector_bytes(), target.can_grow()),
            (0, 512, true)
        );
        target.resize(1 << 20).unwrap();
        assert_eq!(path.metadata().unwrap().len(), 1 << 20);
        drop(target);
        assert!(
            !Target::open(&path, TargetOptions::default())
                .unwrap()
                .can_grow()
        );
    }

    #[test]
    fn directories_and_character_devices_are_no_disks() {
        for path in ["/dev", "/dev/null"] {
            let refused = Target::open(Path::new(path), TargetOptions::default()).unwrap_err();
            assert!(matches!(refused, TargetError::NotADisk { .. }), "{refused}");
        }
    }

    #[test]
    fn two_writers_do_not_share_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 4096]).unwrap();
        let _first = Target::open(&path, TargetOptions::default()).unwrap();
        let refused = Target::open(&path, TargetOptions::default()).unwrap_err();
        assert!(
            matches!(
                refused,
                TargetError::InUse {
                    usage: DiskUse::Busy,
                    ..
                }
            ),
            "{refused}"
        );
        assert!(
            Target::open(
                &path,
                TargetOptions {
                    read_only: true,
                    ..Default::default()
                }
            )
            .is_ok()
        );
    }
}
