//! What lies on a volume, by the signatures of file systems and containers, and who reads it.

use std::io;

use crate::read_at::{Fields, ReadAt};
use crate::scan::volume::{Free, FreeReader, Obstacle};
use crate::scan::{bitlocker, btrfs, exfat, ext, fat, lvm, ntfs, swap, xfs};

/// Bytes from the start of a volume that hold all signatures looked for (btrfs is the last).
const HEAD_BYTES: usize = 68 << 10;

/// What was found on a volume.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) facts: Facts,
    pub(super) reader: FreeReader,
}

/// What is said of a volume in the manifest.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// In the words of `blkid`; empty when nothing or more than one thing was found.
    pub(super) fs: &'static str,
    pub(super) label: String,
    pub(super) uuid: String,
}

struct Signature {
    at: usize,
    magic: &'static [u8],
    /// From the head of the volume.
    facts: fn(Fields<'_>) -> Facts,
    reader: FreeReader,
}

const fn signature(
    at: usize,
    magic: &'static [u8],
    facts: fn(Fields<'_>) -> Facts,
    reader: FreeReader,
) -> Signature {
    Signature {
        at,
        magic,
        facts,
        reader,
    }
}

/// One line for each kind of volume, or two when it has two signatures.
#[rustfmt::skip]
static SIGNATURES: [Signature; 28] = [
    signature(1080, &[0x53, 0xef], ext::facts, ext::free),
    signature(0, b"XFSB", |f| facts("xfs", f.text(108, 12), f.uuid(32)), xfs::free),
    signature(0x1_0040, b"_BHRfS_M", |f| facts("btrfs", f.text(0x1_012b, 256), f.uuid(0x1_0020)), btrfs::free),
    signature(4086, b"SWAPSPACE2", |f| facts("swap", f.text(1052, 16), f.uuid(1036)), swap::free),
    signature(8182, b"SWAPSPACE2", |f| facts("swap", f.text(1052, 16), f.uuid(1036)), swap::free),
    signature(16374, b"SWAPSPACE2", |f| facts("swap", f.text(1052, 16), f.uuid(1036)), swap::free),
    signature(32758, b"SWAPSPACE2", |f| facts("swap", f.text(1052, 16), f.uuid(1036)), swap::free),
    signature(65526, b"SWAPSPACE2", |f| facts("swap", f.text(1052, 16), f.uuid(1036)), swap::free),
    signature(4086, b"S1SUSPEND\0", |f| facts("swsuspend", f.text(1052, 16), f.uuid(1036)), swap::hibernated),
    signature(4086, b"S2SUSPEND\0", |f| facts("swsuspend", f.text(1052, 16), f.uuid(1036)), swap::hibernated),
    signature(4086, b"ULSUSPEND\0", |f| facts("swsuspend", f.text(1052, 16), f.uuid(1036)), swap::hibernated),
    signature(4086, b"LINHIB0001", |f| facts("swsuspend", f.text(1052, 16), f.uuid(1036)), swap::hibernated),
    signature(82, b"FAT32   ", |f| facts("vfat", fat_label(f.text(71, 11)), serial(f, 67)), fat::free),
    signature(54, b"FAT16   ", |f| facts("vfat", fat_label(f.text(43, 11)), serial(f, 39)), fat::free),
    signature(54, b"FAT12   ", |f| facts("vfat", fat_label(f.text(43, 11)), serial(f, 39)), fat::free),
    signature(3, b"EXFAT   ", |f| facts("exfat", String::new(), serial(f, 100)), exfat::free),
    signature(3, b"NTFS    ", |f| facts("ntfs", String::new(), format!("{:016X}", f.u64(72))), ntfs::free),
    signature(3, b"-FVE-FS-", |_| name("BitLocker"), bitlocker::free),
    signature(0, b"LUKS\xba\xbe\0\x01", |f| facts("crypto_LUKS", String::new(), f.text(168, 40)), encrypted),
    signature(0, b"LUKS\xba\xbe\0\x02", |f| facts("crypto_LUKS", f.text(24, 48), f.text(168, 40)), encrypted),
    signature(512, b"LABELONE", |_| name(lvm::KIND), lvm::free),
    signature(0, b"LABELONE", |_| name(lvm::KIND), lvm::free),
    signature(4096, &[0xfc, 0x4e, 0x2b, 0xa9], |f| facts("linux_raid_member", f.text(4096 + 32, 32), f.uuid(4096 + 16)), raid_member),
    signature(0, &[0xfc, 0x4e, 0x2b, 0xa9], |f| facts("linux_raid_member", f.text(32, 32), f.uuid(16)), raid_member),
    signature(0, b"hsqs", |_| name("squashfs"), unread),
    signature(0x8001, b"CD001", |f| facts("iso9660", f.text(0x8028, 32), String::new()), unread),
    signature(1024, &[0x10, 0x20, 0xf5, 0xf2], |f| facts("f2fs", String::new(), f.uuid(1024 + 108)), unread),
    signature(4096 + 24, &[0xc6, 0x85, 0x73, 0xf6], |f| facts("bcachefs", String::new(), f.uuid(4096 + 56)), unread),
];

/// Looks at the start of `volume`. Beside another signature either may be a leftover, and nothing
/// is known.
pub(super) fn identify(volume: &dyn ReadAt) -> io::Result<Found> {
    let bytes = usize::try_from(volume.raw_bytes()).unwrap_or(usize::MAX);
    let mut head = vec![0; HEAD_BYTES.min(bytes)];
    volume.peek_exact_at(0, &mut head)?;
    let fields = Fields(&head);
    let mut found = SIGNATURES
        .iter()
        .filter(|signature| fields.bytes(signature.at, signature.magic.len()) == signature.magic);
    Ok(match (found.next(), found.next()) {
        (Some(only), None) => Found {
            facts: (only.facts)(fields),
            reader: only.reader,
        },
        (None, _) => Found {
            facts: Facts::default(),
            reader: nothing_known,
        },
        (Some(_), Some(_)) => Found {
            facts: Facts::default(),
            reader: ambiguous,
        },
    })
}

pub(super) fn facts(fs: &'static str, label: String, uuid: String) -> Facts {
    Facts { fs, label, uuid }
}

fn name(fs: &'static str) -> Facts {
    facts(fs, String::new(), String::new())
}

fn unread(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unknown("its free space is not read"))
}

fn nothing_known(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unknown("no file system is recognised on it"))
}

fn ambiguous(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unknown(
        "it has signatures of more than one file system",
    ))
}

fn encrypted(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unknown(
        "it is encrypted, so free space cannot be told from data, and nothing compresses",
    ))
}

fn raid_member(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unknown(
        "it is one disk of a RAID array, and means nothing alone",
    ))
}

fn serial(fields: Fields<'_>, at: usize) -> String {
    format!("{:04X}-{:04X}", fields.u16(at + 2), fields.u16(at))
}

fn fat_label(label: String) -> String {
    if label == "NO NAME" {
        String::new()
    } else {
        label
    }
}
