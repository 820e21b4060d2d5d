//! What the cases stand on: a disk with a file system full of files of this machine, devices, and an empty page cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tests::lab::sh;

/// Size of the disk, in MiB.
const DISK_MIB: u64 = 4096;
/// Bytes of files on it, about.
const FILE_BYTES: u64 = 800_000_000;
/// Where the one partition begins, in MiB.
const START_MIB: u64 = 1;
/// Images and manifests lie in memory: the disk is measured.
const MEMORY: &str = "/dev/shm";
/// Disks lie on a disk: large, and not where memory is a file system.
const DISKS: &str = "/var/tmp";

/// A 4 GB disk with one ext4 of which 1 GB is used, and room for images.
pub(super) struct Floor {
    disks: tempfile::TempDir,
    memory: tempfile::TempDir,
}

impl Floor {
    /// Fills a new disk with an even choice of the files of `/usr`.
    pub(super) fn lay() -> Result<Floor> {
        let floor = Floor {
            disks: tempfile::tempdir_in(DISKS).context("making room for disks")?,
            memory: tempfile::tempdir_in(MEMORY).context("making room for images")?,
        };
        let tree = floor.disks.path().join("tree");
        gather(Path::new("/usr"), &tree)?;
        let disk = floor.disk();
        fs::File::create(&disk)?.set_len(DISK_MIB << 20)?;
        let (disk, tree_path) = (disk.display(), tree.display());
        sh(&format!(
            "sgdisk --new=1:{START_MIB}M:0 --typecode=1:8300 {disk}"
        ))?;
        let kibibytes = (DISK_MIB - 2 * START_MIB) << 10;
        sh(&format!(
            "mke2fs -q -t ext4 -F -d {tree_path} -E offset={} {disk} {kibibytes}K",
            START_MIB << 20
        ))?;
        fs::remove_dir_all(&tree).context("removing the files")?;
        Ok(floor)
    }

    /// The disk.
    pub(super) fn disk(&self) -> PathBuf {
        self.disks.path().join("disk.raw")
    }

    /// A new file for a disk of `bytes` bytes, all hole.
    pub(super) fn empty_disk(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.disks.path().join(name);
        let _ = fs::remove_file(&path);
        fs::File::create(&path)?.set_len(bytes)?;
        Ok(path)
    }

    /// A file in memory.
    pub(super) fn in_memory(&self, name: &str) -> PathBuf {
        self.memory.path().join(name)
    }

    /// Bytes of the disk.
    pub(super) fn bytes(&self) -> u64 {
        DISK_MIB << 20
    }

    /// The partition of a disk as this one is, as a device of its own.
    pub(super) fn partition(&self, disk: &Path) -> Result<Device> {
        let bytes = (DISK_MIB - 2 * START_MIB) << 20;
        Device::attach(
            disk,
            &format!("--offset={} --sizelimit={bytes}", START_MIB << 20),
        )
    }
}

/// A loop device that reads and writes its file past the page cache.
pub(super) struct Device {
    pub(super) path: String,
}

/// What a device did since it was attached, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) read: u64,
    pub(super) written: u64,
}

impl Device {
    /// All of `disk`.
    pub(super) fn whole(disk: &Path) -> Result<Device> {
        Device::attach(disk, "")
    }

    fn attach(disk: &Path, options: &str) -> Result<Device> {
        let disk = disk.display();
        let attached = sh(&format!(
            "losetup --find --show --direct-io=on {options} {disk}"
        ))?;
        let device = Device {
            path: attached.trim().to_owned(),
        };
        let direct = fs::read_to_string(device.about("loop/dio")).unwrap_or_default();
        ensure!(
            direct.trim() == "1",
            "{}: the file system of {DISKS} takes no direct reads",
            device.path
        );
        Ok(device)
    }

    /// What it did since the computer was started, whatever its file was.
    pub(super) fn traffic(&self) -> Result<Traffic> {
        let text = fs::read_to_string(self.about("stat")).context("reading its counters")?;
        let fields: Vec<u64> = text
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        ensure!(fields.len() > 6, "counters of another kernel: {text}");
        Ok(Traffic {
            read: fields[2] * 512,
            written: fields[6] * 512,
        })
    }

    fn about(&self, what: &str) -> PathBuf {
        let name = self.path.trim_start_matches("/dev/");
        Path::new("/sys/block").join(name).join(what)
    }
}

impl Traffic {
    /// What was done since `before`.
    pub(super) fn since(self, before: Traffic) -> Traffic {
        Traffic {
            read: self.read - before.read,
            written: self.written - before.written,
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = sh(&format!("losetup --detach {}", self.path));
    }
}

/// Writes out and forgets what the kernel holds of files.
pub(super) fn forget() -> Result<()> {
    sh("sync")?;
    fs::write("/proc/sys/vm/drop_caches", "1").context("dropping the page cache")
}

/// Copies every n-th file below `from`, in the order of their names, so that about [`FILE_BYTES`] come together.
fn gather(from: &Path, to: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(from, &mut files)?;
    files.sort();
    let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    ensure!(
        total > FILE_BYTES,
        "{} has too few files for the bench",
        from.display()
    );
    let (mut passed, mut taken) = (0, 0);
    for (path, bytes) in files {
        passed += bytes;
        // As much of what was passed as of all.
        let due = u128::from(passed) * u128::from(FILE_BYTES) / u128::from(total);
        if u128::from(taken + bytes) > due {
            continue;
        }
        taken += bytes;
        let place = to.join(path.strip_prefix("/").unwrap_or(&path));
        fs::create_dir_all(place.parent().context("a file lies in a directory")?)?;
        fs::copy(&path, &place).with_context(|| format!("copying {}", path.display()))?;
    }
    Ok(())
}

fn list(directory: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}
