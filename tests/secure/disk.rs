//! A disk that a machine with Secure Boot starts: EFI system partition, shim, GRUB, and words to know it by.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use tests::lab::sh;

/// What its GRUB prints.
pub(crate) const DISK_SAYS: &str = "NETFLASH SIGNED DISK";

/// Its size in bytes.
pub(crate) const DISK_BYTES: u64 = 48 << 20;

/// Where the EFI system partition begins, in sectors, and its size in KiB.
const SYSTEM_SECTOR: u64 = 2048;
const SYSTEM_KIB: u64 = 16 * 1024;

/// Where a file system with something to flash begins, in sectors, and its size in KiB.
const DATA_SECTOR: u64 = SYSTEM_SECTOR + SYSTEM_KIB * 2;
const DATA_KIB: u64 = 24 * 1024;

/// Makes the disk at `path` with the signed loaders of an appliance.
pub(crate) fn signed_disk(path: &Path, appliance: &Path) -> Result<()> {
    let loader = |name: &str| {
        let path = appliance.join(name);
        ensure!(
            path.exists(),
            "{} is not there: netflash appliance build --secure-boot makes it",
            path.display()
        );
        Ok(path.display().to_string())
    };
    let (shim, grub) = (loader("shimx64.efi")?, loader("grubx64-disk.efi")?);
    let file = fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    file.set_len(DISK_BYTES).context("sizing the disk")?;
    let tree = tempfile::tempdir().context("making room for files")?;
    let words = tree.path().join("grub.cfg");
    fs::write(&words, format!("echo {DISK_SAYS}\nsleep 600\n")).context("writing grub.cfg")?;
    let data = tree.path().join("data");
    fs::create_dir(&data).context("making a directory")?;
    // Loaders do not compress: the image is more than a few packets.
    fs::copy(&grub, data.join("loader")).context("copying a loader")?;
    let shown = path.display();
    let words = words.display();
    let system = format!("{shown}@@{}", SYSTEM_SECTOR * 512);
    for line in [
        format!(
            "sgdisk -n 1:{SYSTEM_SECTOR}:+{SYSTEM_KIB}K -t 1:ef00 \
             -n 2:{DATA_SECTOR}:+{DATA_KIB}K -t 2:8300 {shown}"
        ),
        format!("mformat -i {system} -T {} -h 16 -s 32 ::", SYSTEM_KIB * 2),
        format!("mmd -i {system} ::/EFI ::/EFI/BOOT ::/EFI/debian"),
        format!("mcopy -i {system} {shim} ::/EFI/BOOT/BOOTX64.EFI"),
        format!("mcopy -i {system} {grub} ::/EFI/BOOT/grubx64.efi"),
        format!("mcopy -i {system} {words} ::/EFI/debian/grub.cfg"),
        format!(
            "mke2fs -q -t ext4 -F -d {} -E offset={} {shown} {DATA_KIB}K",
            data.display(),
            DATA_SECTOR * 512
        ),
    ] {
        sh(&line)?;
    }
    Ok(())
}
