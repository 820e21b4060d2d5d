//! A small disk to be imaged: GPT, a boot sector that says its name, an ext4 file
//! system with files in it. Made in a second, flashed in a few.

use std::{fs, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result};

use super::shell;

/// What the boot sector prints on the firmware's console.
pub const SMALL_DISK_SAYS: &str = "NETFLASH LAB DISK";

/// Size of the small disk in bytes.
pub const SMALL_DISK_BYTES: u64 = 64 << 20;

/// Where its file system begins, in sectors, and its size in KiB.
const ROOT_SECTOR: u64 = 4096;
const ROOT_KIB: u64 = 60 * 1024;

/// Files and bytes in each; they do not compress.
const FILES: u64 = 24;
const FILE_BYTES: usize = 1 << 20;

/// Makes the disk at `path`.
pub fn small_disk(path: &Path) -> Result<()> {
    let disk = fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    disk.set_len(SMALL_DISK_BYTES)
        .context("sizing the small disk")?;
    let shown = path.display();
    shell::sh(&format!(
        "sgdisk -n 1:2048:4095 -t 1:ef02 -n 2:{ROOT_SECTOR}:+{ROOT_KIB}K -t 2:8300 {shown}"
    ))?;
    let tree = tempfile::tempdir().context("making room for files")?;
    for number in 0..FILES {
        fs::write(tree.path().join(format!("file{number}")), noise(number))
            .context("writing a file")?;
    }
    shell::sh(&format!(
        "mke2fs -q -t ext4 -F -d {} -E offset={} {shown} {ROOT_KIB}K",
        tree.path().display(),
        ROOT_SECTOR * 512
    ))?;
    disk.write_all_at(&boot_code(), 0)
        .context("writing the boot sector")?;
    Ok(())
}

/// Bytes without a pattern that a compressor would find, the same each time.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    while bytes.len() < FILE_BYTES {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes
}

/// Real-mode code that prints [`SMALL_DISK_SAYS`] by the BIOS and halts.
fn boot_code() -> Vec<u8> {
    const ORIGIN: u16 = 0x7c00;
    let mut code = vec![
        0xfb, // sti: the firmware's serial console sends from the timer interrupt
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0, 0,    // mov si, text
        0xfc, // cld
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x09, // jz done
        0xb4, 0x0e, // mov ah, 0x0e: teletype output
        0xbb, 0x07, 0x00, // mov bx, 7
        0xcd, 0x10, // int 0x10
        0xeb, 0xf2, // jmp next
        0xf4, // done: hlt
        0xeb, 0xfd, // jmp done
    ];
    let text = ORIGIN + code.len() as u16;
    code[6..8].copy_from_slice(&text.to_le_bytes());
    code.extend(SMALL_DISK_SAYS.as_bytes());
    code.extend(b"\r\n\0");
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_code_leaves_the_partition_table_alone() {
        assert!(boot_code().len() < 440);
    }

    #[test]
    fn noise_is_repeatable_and_does_not_compress() {
        assert_eq!(noise(3), noise(3));
        let packed = zstd::bulk::compress(&noise(3), 3).unwrap();
        assert!(packed.len() > FILE_BYTES * 99 / 100);
    }
}
