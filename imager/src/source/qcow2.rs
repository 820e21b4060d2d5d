//! qcow2 images, through `qemu-img`.
//!
//! A qcow2 header can name other files of the host (a backing file, an external data file), whose
//! content would then be in the image. Such headers are refused before `qemu-img` sees the file,
//! and the format is named to it so that nothing is guessed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) const MAGIC: &[u8] = b"QFI\xfb";

const INCOMPAT_CORRUPT: u64 = 1 << 1;
const INCOMPAT_EXTERNAL_DATA: u64 = 1 << 2;

/// A raw copy of a qcow2 image; the file is removed on drop.
pub(super) struct Converted {
    path: PathBuf,
}

impl Converted {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Converted {
    fn drop(&mut self) {
        // Nobody is left to be told when it fails; the name says what the file is.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Converts `image`, an absolute path, which begins with `head`, into a sparse raw file in the
/// directory `scratch`.
pub(super) fn convert(image: &Path, head: &[u8], scratch: &Path) -> Result<Converted, String> {
    refuse_header(head)?;
    let path = scratch.join(format!(".netflash-qcow2-{}.raw.part", std::process::id()));
    let converted = Converted { path };
    let output = Command::new("qemu-img")
        .args(["convert", "-f", "qcow2", "-O", "raw", "--"])
        .args([image, &converted.path])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("starting qemu-img: {error}; it is in the package qemu-utils"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "qemu-img: {}",
            said.lines().next().unwrap_or("failed without a word")
        ));
    }
    Ok(converted)
}

/// Refuses what refers to other files, cannot be read without a key, or is known to be damaged.
pub(super) fn refuse_header(head: &[u8]) -> Result<(), String> {
    let u32_at = |at: usize| {
        head.get(at..at + 4)
            .map_or(0, |b| u32::from_be_bytes(b.try_into().expect("four bytes")))
    };
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    let version = u32_at(4);
    if !(2..=3).contains(&version) {
        return Err(format!("version {version} is not known"));
    }
    if u64_at(8) != 0 {
        return Err(
            "it has a backing file; flatten it with `qemu-img convert -O qcow2` first".into(),
        );
    }
    if u32_at(32) != 0 {
        return Err("it is encrypted".into());
    }
    let incompat = if version == 3 { u64_at(72) } else { 0 };
    if incompat & INCOMPAT_EXTERNAL_DATA != 0 {
        return Err("its data is in another file".into());
    }
    if incompat & INCOMPAT_CORRUPT != 0 {
        return Err("it is marked corrupt; repair it with `qemu-img check -r all` first".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u32, field: usize, value: u8) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(MAGIC);
        head[4..8].copy_from_slice(&version.to_be_bytes());
        head[field] = value;
        head
    }

    #[test]
    fn a_header_that_points_elsewhere_is_refused() {
        assert_eq!(refuse_header(&header(3, 100, 0)), Ok(()));
        assert_eq!(
            refuse_header(&header(2, 79, 4)),
            Ok(()),
            "version 2 has no feature bits"
        );
        for (field, value, word) in [
            (15, 1, "backing"),
            (35, 1, "encrypted"),
            (79, 4, "another file"),
            (79, 2, "corrupt"),
        ] {
            assert!(
                refuse_header(&header(3, field, value))
                    .unwrap_err()
                    .contains(word)
            );
        }
        assert!(refuse_header(&header(9, 100, 0)).is_err());
    }
}
