//! The program that takes UEFI machines back to their disk, where their iPXE cannot: a GRUB that knows disks and
//! nothing else, put together from the distribution's.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use netflash_pxe::{DISK_LOADER, grub_disk};
use tempfile::{Builder, NamedTempFile};

use super::tftp;
use crate::data_dir::DataDir;

/// Where Debian's `grub-efi-amd64-bin` keeps the parts.
const PARTS: &str = "/usr/lib/grub/x86_64-efi";

/// Partition tables, the file system of EFI system partitions, and the commands of [`grub_disk`].
const MODULES: [&str; 7] = [
    "part_gpt",
    "part_msdos",
    "fat",
    "search_fs_file",
    "chain",
    "boot",
    "minicmd",
];

/// Make it anew, so that it is of this version. Without GRUB's parts a server does without.
pub(super) fn prepare(dir: &DataDir) -> anyhow::Result<()> {
    if !Path::new(PARTS).is_dir() {
        log::info!(
            "boot file={DISK_LOADER} state=absent; with the packages grub-efi-amd64-bin and grub-common UEFI machines \
             find back to their disk faster"
        );
        return Ok(());
    }
    let root = tftp::root(dir);
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    let image = Builder::new()
        .prefix(".disk-")
        .tempfile_in(&root)
        .with_context(|| format!("writing to {}", root.display()))?;
    if let Err(error) = put_together(image.path()) {
        log::warn!("boot file={DISK_LOADER} error={error:#}");
        return Ok(());
    }
    let place = root.join(DISK_LOADER);
    image
        .persist(&place)
        .map(drop)
        .with_context(|| format!("writing {}", place.display()))
}

fn put_together(image: &Path) -> anyhow::Result<()> {
    let mut script = NamedTempFile::new().context("making a temporary file")?;
    script
        .write_all(grub_disk().as_bytes())
        .context("writing GRUB's script")?;
    let made = Command::new("grub-mkimage")
        .args(["--format", "x86_64-efi", "--directory", PARTS])
        .args(["--prefix", "/", "--config"])
        .arg(script.path())
        .arg("--output")
        .arg(image)
        .args(MODULES)
        .output()
        .context("starting grub-mkimage (package grub-common)")?;
    if !made.status.success() {
        bail!("{}", String::from_utf8_lossy(&made.stderr).trim());
    }
    Ok(())
}
