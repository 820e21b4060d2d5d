//! Volumes that BitLocker encrypts: nothing in them can be told apart, and mostly nobody else can
//! read them.
//!
//! The key of a volume is kept with it, locked by protectors: the TPM of one machine, a password.
//! An image of it opens on that machine only. While protection is suspended the key lies there in
//! the clear, and an image of the volume starts anywhere.
//!
//! Layout: the "BitLocker Drive Encryption format" of the libbde project.

use crate::read_at::{Fields, ReadAt, read_array};
use crate::scan::volume::{Free, Obstacle};

const SIGNATURE: &[u8] = b"-FVE-FS-";
/// 4967d63b-2e29-4ad8-8399-f6a339e3d001, in front of the places of the metadata.
const IDENTIFIER: [u8; 16] = [
    0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01,
];
/// Where the identifier lies on a volume that was encrypted, and on a stick ("BitLocker To Go")
/// that poses as FAT before strangers.
const IDENTIFIER_AT: [usize; 2] = [160, 424];

const METADATA_BYTES: usize = 64 << 10;
const COPIES: usize = 3;
const HEADER_AT: usize = 64;
const ENTRY_BYTES_MIN: usize = 8;
const TYPE_VOLUME_KEY: u16 = 2;
const VALUE_VOLUME_KEY: u16 = 8;
const PROTECTED_BY_NOTHING: u16 = 0;

/// Whether the boot sector of what looks like a FAT volume belongs to a locked stick.
pub(super) fn poses_as_fat(boot: Fields<'_>) -> bool {
    boot.bytes(IDENTIFIER_AT[1], 16) == IDENTIFIER
}

/// Never any free space: whole when everybody can open it, else not without being asked.
pub(super) fn free(view: &dyn ReadAt) -> Result<Free, Obstacle> {
    let boot = read_array::<512>(view, 0)?.unwrap_or([0; 512]);
    let places = IDENTIFIER_AT
        .iter()
        .find(|&&at| boot[at..at + 16] == IDENTIFIER)
        .map_or(0, |&at| at + 16);
    for copy in (0..COPIES).filter(|_| places > 0) {
        let at = Fields(&boot).u64(places + 8 * copy);
        let bytes = view
            .raw_bytes()
            .saturating_sub(at)
            .min(METADATA_BYTES as u64);
        let mut metadata = vec![0; bytes as usize];
        view.read_exact_at(at, &mut metadata)?;
        if has_clear_key(&metadata) {
            return Err(Obstacle::unknown(
                "it is encrypted by BitLocker, whose protection is suspended: \
                 whoever has the image can read it",
            ));
        }
    }
    Err(Obstacle::unsafe_until(
        "decrypt it with `manage-bde -off`, or suspend protection with \
         `manage-bde -protectors -disable`",
        "it is locked by BitLocker: no other machine opens it without the recovery key",
    ))
}

/// Whether one of the copies of the volume's key is locked by nothing.
fn has_clear_key(metadata: &[u8]) -> bool {
    let header = Fields(metadata.get(HEADER_AT..).unwrap_or_default());
    let (end, start) = (header.u32(0) as usize, header.u32(8) as usize);
    if !metadata.starts_with(SIGNATURE) {
        return false;
    }
    let mut rest = header.0.get(start..end).unwrap_or_default();
    loop {
        let fields = Fields(rest);
        let bytes = usize::from(fields.u16(0));
        if bytes < ENTRY_BYTES_MIN || bytes > rest.len() {
            return false;
        }
        let entry = Fields(&rest[..bytes]);
        let is_key = (entry.u16(2), entry.u16(4)) == (TYPE_VOLUME_KEY, VALUE_VOLUME_KEY);
        // Identifier, time of change, an unknown number, and what protects the key.
        if is_key && bytes >= 36 && entry.u16(34) == PROTECTED_BY_NOTHING {
            return true;
        }
        rest = &rest[bytes..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    /// A volume with one copy of its metadata, whose key is protected in the ways given.
    fn volume(identifier_at: usize, protections: &[u16]) -> Vec<u8> {
        let mut raw = vec![0u8; 1 << 20];
        raw[3..11].copy_from_slice(SIGNATURE);
        raw[identifier_at..identifier_at + 16].copy_from_slice(&IDENTIFIER);
        for copy in 0..COPIES {
            let at = identifier_at + 16 + 8 * copy;
            raw[at..at + 8].copy_from_slice(&0x4_0000u64.to_le_bytes());
        }
        let mut entries = Vec::new();
        for protection in protections {
            let mut entry = vec![0u8; 80];
            entry[..8].copy_from_slice(&[80, 0, 2, 0, 8, 0, 1, 0]);
            entry[34..36].copy_from_slice(&protection.to_le_bytes());
            entries.extend(entry);
        }
        let at = 0x4_0000;
        raw[at..at + 8].copy_from_slice(SIGNATURE);
        raw[at + 64..at + 68].copy_from_slice(&(48 + entries.len() as u32).to_le_bytes());
        raw[at + 72..at + 76].copy_from_slice(&48u32.to_le_bytes());
        raw[at + 112..at + 112 + entries.len()].copy_from_slice(&entries);
        raw
    }

    fn told(raw: &[u8]) -> String {
        match free(&Memory(raw)).unwrap_err() {
            Obstacle::Unknown(reason) => reason,
            Obstacle::Unsafe { found, .. } => format!("unsafe: {found}"),
            Obstacle::Read(error) => panic!("{error}"),
        }
    }

    #[test]
    fn only_a_key_in_the_clear_opens_anywhere() {
        for at in IDENTIFIER_AT {
            assert!(told(&volume(at, &[0x100, 0x800])).contains("unsafe: it is locked"));
            assert!(told(&volume(at, &[0x100, 0x800, 0])).contains("suspended"));
        }
        assert!(told(&volume(160, &[])).contains("unsafe"));
        assert!(poses_as_fat(Fields(&volume(424, &[])[..512])));
        assert!(!poses_as_fat(Fields(&volume(160, &[])[..512])));
    }

    #[test]
    fn damaged_metadata_are_a_locked_volume() {
        let mut raw = volume(160, &[0]);
        raw[0x4_0000] = b'x';
        assert!(told(&raw).contains("unsafe"));
        let mut raw = volume(160, &[0]);
        raw[0x4_0000 + 67] = 0xff;
        assert!(told(&raw).contains("unsafe"));
        let mut raw = volume(160, &[0x100, 0]);
        raw[0x4_0000 + 112] = 0;
        assert!(told(&raw).contains("unsafe"));
    }
}
