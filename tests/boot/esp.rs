//! A disk that UEFI firmware starts: an EFI system partition with a GRUB that carries out a script.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use tests::lab::sh;

/// Where the EFI system partition begins, in sectors of 512 bytes, and its size in KiB.
const ESP_SECTOR: u64 = 2048;
const ESP_KIB: u64 = 32 << 10;

/// Makes it in the file `path`, which is as long as the disk. `modules` are what GRUB needs for its `script`; `files`
/// are copied into `/EFI/BOOT`.
pub(crate) fn uefi_disk(path: &Path, script: &str, modules: &str, files: &[&str]) -> Result<()> {
    let directory = path.parent().context("a disk in a directory")?;
    let at = |name: &str| directory.join(name).display().to_string();
    let (esp, grub, config) = (at("esp.img"), at("grub.efi"), at("grub-early.cfg"));
    fs::write(&config, script)?;
    sh(&format!(
        "grub-mkimage -O x86_64-efi -p / -c {config} -o {grub} {modules}"
    ))?;
    fs::File::create(&esp)?.set_len(ESP_KIB << 10)?;
    sh(&format!("mkfs.fat {esp}"))?;
    sh(&format!("mmd -i {esp} ::/EFI ::/EFI/BOOT"))?;
    sh(&format!("mcopy -i {esp} {grub} ::/EFI/BOOT/BOOTX64.EFI"))?;
    for file in files {
        sh(&format!("mcopy -i {esp} {file} ::/EFI/BOOT/"))?;
    }
    let disk = path.display();
    sh(&format!(
        "sgdisk -n 1:{ESP_SECTOR}:+{ESP_KIB}K -t 1:ef00 {disk}"
    ))?;
    sh(&format!(
        "dd if={esp} of={disk} bs=512 seek={ESP_SECTOR} conv=notrunc status=none"
    ))
    .map(drop)
}
