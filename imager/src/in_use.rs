//! Who uses a disk: mounts, swap, and what is stacked on it (LVM, RAID, encryption), its partitions included.
//!
//! The kernel's exclusive open is the last guard (see `device`), but it only says "busy". Here the user is named,
//! so that the operator knows what to stop.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a disk cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskUse {
    /// A file system on it is mounted.
    Mounted {
        /// The disk or partition, as the kernel calls it.
        part: String,
        /// Where.
        on: String,
    },
    /// It is swapped to.
    Swap {
        /// The disk or partition, as the kernel calls it.
        part: String,
    },
    /// Another block device is built on it.
    Held {
        /// The disk or partition, as the kernel calls it.
        part: String,
        /// The device built on it, for example `dm-0` or `md127`.
        by: String,
    },
    /// Somebody has it open exclusively, or locked.
    Busy,
}

impl fmt::Display for DiskUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskUse::Mounted { part, on } => {
                write!(f, "{part} is mounted on {on}; unmount it first")
            }
            DiskUse::Swap { part } => write!(f, "{part} is used as swap; run `swapoff` first"),
            DiskUse::Held { part, by } => {
                write!(
                    f,
                    "{part} is part of {by} (LVM, RAID or encryption); stop {by} first"
                )
            }
            DiskUse::Busy => f.write_str("another program has it open for writing; end that first"),
        }
    }
}

/// Where the kernel tells about itself; another place in tests.
pub(crate) struct Kernel {
    pub(crate) sys: PathBuf,
    pub(crate) proc: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            proc: "/proc".into(),
        }
    }
}

/// A disk or partition in `/sys`: its directory and its device number.
struct Part {
    dir: PathBuf,
    name: String,
    number: String,
}

impl Kernel {
    /// Whether device `number` (`major:minor`) is a partition; then of which disk.
    pub(crate) fn disk_of_partition(&self, number: &str) -> Option<String> {
        let dir = self.dir_of(number)?;
        dir.join("partition")
            .exists()
            .then(|| name_of(dir.parent()?))
            .flatten()
    }

    /// Whether the disk with this device number is switched to read-only.
    pub(crate) fn is_read_only(&self, number: &str) -> bool {
        self.dir_of(number).is_some_and(|dir| {
            fs::read_to_string(dir.join("ro")).is_ok_and(|text| text.trim() == "1")
        })
    }

    /// The first use found of the disk with this device number (`major:minor`), or of one of its partitions.
    pub(crate) fn use_of(&self, number: &str) -> Option<DiskUse> {
        let parts = self.parts(number);
        let mounts = self.mounts();
        let swaps = self.swaps();
        parts.iter().find_map(|part| {
            let is_this = |other: &str, source: &str| {
                other == part.number || source.strip_prefix("/dev/") == Some(&part.name)
            };
            if let Some((_, _, on)) = mounts
                .iter()
                .find(|(other, source, _)| is_this(other, source))
            {
                return Some(DiskUse::Mounted {
                    part: part.name.clone(),
                    on: on.clone(),
                });
            }
            if swaps.iter().any(|source| is_this("", source)) {
                return Some(DiskUse::Swap {
                    part: part.name.clone(),
                });
            }
            let by = entries(&part.dir.join("holders")).into_iter().next()?;
            Some(DiskUse::Held {
                part: part.name.clone(),
                by: name_of(&by)?,
            })
        })
    }

    /// `/sys/dev/block/NUMBER`, resolved: the directory of the disk or partition.
    fn dir_of(&self, number: &str) -> Option<PathBuf> {
        fs::canonicalize(self.sys.join("dev/block").join(number)).ok()
    }

    fn parts(&self, number: &str) -> Vec<Part> {
        let Some(disk) = self.dir_of(number) else {
            return Vec::new();
        };
        let partitions = entries(&disk)
            .into_iter()
            .filter(|dir| dir.join("partition").exists());
        std::iter::once(disk.clone())
            .chain(partitions)
            .filter_map(|dir| {
                let number = fs::read_to_string(dir.join("dev")).ok()?.trim().to_owned();
                Some(Part {
                    name: name_of(&dir)?,
                    dir,
                    number,
                })
            })
            .collect()
    }

    /// Device number, source and mount point of every mount (proc(5), `mountinfo`).
    fn mounts(&self) -> Vec<(String, String, String)> {
        let text = fs::read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let (mount, fs) = line.split_once(" - ")?;
                let mut fields = mount.split(' ').skip(2);
                let number = fields.next()?.to_owned();
                let on = fields.nth(1)?.to_owned();
                // File systems over several devices (btrfs) have a number of their own: the source names the device.
                let source = fs.split(' ').nth(1)?.to_owned();
                Some((number, source, on))
            })
            .collect()
    }

    fn swaps(&self) -> Vec<String> {
        let text = fs::read_to_string(self.proc.join("swaps")).unwrap_or_default();
        text.lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    }
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .map(|found| found.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with one disk `sda` (8:0) of two partitions (8:1, 8:2).
    struct Fake {
        _dir: tempfile::TempDir,
        kernel: Kernel,
    }

    impl Fake {
        fn new(mountinfo: &str, swaps: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let kernel = Kernel {
                sys: dir.path().join("sys"),
                proc: dir.path().join("proc"),
            };
            for (part, number) in [("sda", "8:0"), ("sda/sda1", "8:1"), ("sda/sda2", "8:2")] {
                let part = kernel.sys.join("devices").join(part);
                fs::create_dir_all(part.join("holders")).unwrap();
                fs::write(part.join("dev"), format!("{number}\n")).unwrap();
                fs::write(part.join("ro"), "0\n").unwrap();
                if number != "8:0" {
                    fs::write(part.join("partition"), "1\n").unwrap();
                }
                let link = kernel.sys.join("dev/block");
                fs::create_dir_all(&link).unwrap();
                std::os::unix::fs::symlink(part, link.join(number)).unwrap();
            }
            fs::create_dir_all(kernel.proc.join("self")).unwrap();
            fs::write(kernel.proc.join("self/mountinfo"), mountinfo).unwrap();
            fs::write(kernel.proc.join("swaps"), swaps).unwrap();
            Self { _dir: dir, kernel }
        }

        fn hold(&self, part: &str, by: &str) {
            fs::create_dir_all(
                self.kernel
                    .sys
                    .join("devices")
                    .join(part)
                    .join("holders")
                    .join(by),
            )
            .unwrap();
        }
    }

    #[test]
    fn an_idle_disk_is_free() {
        let fake = Fake::new(
            "22 1 8:16 / / rw - ext4 /dev/sdb rw\n",
            "Filename Type\n/dev/sdb2 partition\n",
        );
        assert_eq!(fake.kernel.use_of("8:0"), None);
        assert!(!fake.kernel.is_read_only("8:0"));
    }

    #[test]
    fn a_mounted_partition_is_named_with_its_mount_point() {
        let fake = Fake::new("22 1 8:2 / /home rw shared:1 - ext4 /dev/root rw\n", "");
        let found = fake.kernel.use_of("8:0").unwrap();
        assert_eq!(
            found.to_string(),
            "sda2 is mounted on /home; unmount it first"
        );
    }

    #[test]
    fn a_mount_is_found_by_its_source_too() {
        let fake = Fake::new("22 1 0:35 /@ /srv rw - btrfs /dev/sda1 rw\n", "");
        assert!(
            matches!(fake.kernel.use_of("8:0"), Some(DiskUse::Mounted { part, .. }) if part == "sda1")
        );
    }

    #[test]
    fn swap_and_holders_are_found_on_partitions() {
        let fake = Fake::new("", "Filename Type Size\n/dev/sda1 partition 1 0 -2\n");
        assert_eq!(
            fake.kernel.use_of("8:0"),
            Some(DiskUse::Swap {
                part: "sda1".into()
            })
        );
        let fake = Fake::new("", "");
        fake.hold("sda/sda2", "dm-0");
        let held = fake.kernel.use_of("8:0").unwrap();
        assert_eq!(
            held,
            DiskUse::Held {
                part: "sda2".into(),
                by: "dm-0".into()
            }
        );
    }

    #[test]
    fn a_partition_knows_its_disk() {
        let fake = Fake::new("", "");
        assert_eq!(fake.kernel.disk_of_partition("8:1").as_deref(), Some("sda"));
        assert_eq!(fake.kernel.disk_of_partition("8:0"), None);
    }
}
