//! What lies on a partition, by the signatures of file systems and containers.

use std::io;

use crate::read_at::{Fields, ReadAt, Slice};
use crate::scan::ext::Superblock;

/// Bytes from the start of a partition that hold all signatures looked for (btrfs is the last).
const HEAD_BYTES: usize = 68 << 10;

/// What was found on a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// In the words of `blkid`; empty when nothing or more than one thing was found.
    pub(super) fs: &'static str,
    pub(super) label: String,
    pub(super) uuid: String,
}

type Facts = fn(Fields<'_>) -> (String, String);

struct Signature {
    fs: &'static str,
    at: usize,
    magic: &'static [u8],
    facts: Facts,
}

const fn signature(fs: &'static str, at: usize, magic: &'static [u8], facts: Facts) -> Signature {
    Signature {
        fs,
        at,
        magic,
        facts,
    }
}

const NO_FACTS: Facts = |_| (String::new(), String::new());

#[rustfmt::skip]
static SIGNATURES: [Signature; 19] = [
    signature("vfat", 82, b"FAT32   ", |f| (fat_label(f.text(71, 11)), serial(f, 67))),
    signature("vfat", 54, b"FAT16   ", |f| (fat_label(f.text(43, 11)), serial(f, 39))),
    signature("vfat", 54, b"FAT12   ", |f| (fat_label(f.text(43, 11)), serial(f, 39))),
    signature("exfat", 3, b"EXFAT   ", |f| (String::new(), serial(f, 100))),
    signature("ntfs", 3, b"NTFS    ", |f| (String::new(), format!("{:016X}", f.u64(72)))),
    signature("BitLocker", 3, b"-FVE-FS-", NO_FACTS),
    signature("xfs", 0, b"XFSB", |f| (f.text(108, 12), f.uuid(32))),
    signature("btrfs", 0x1_0040, b"_BHRfS_M", |f| (f.text(0x1_012b, 256), f.uuid(0x1_0020))),
    signature("crypto_LUKS", 0, b"LUKS\xba\xbe\0\x01", |f| (String::new(), f.text(168, 40))),
    signature("crypto_LUKS", 0, b"LUKS\xba\xbe\0\x02", |f| (f.text(24, 48), f.text(168, 40))),
    signature("LVM2_member", 512, b"LABELONE", NO_FACTS),
    signature("LVM2_member", 0, b"LABELONE", NO_FACTS),
    signature("linux_raid_member", 4096, &[0xfc, 0x4e, 0x2b, 0xa9], |f| (f.text(4096 + 32, 32), f.uuid(4096 + 16))),
    signature("linux_raid_member", 0, &[0xfc, 0x4e, 0x2b, 0xa9], |f| (f.text(32, 32), f.uuid(16))),
    signature("swap", 4086, b"SWAPSPACE2", |f| (f.text(1052, 16), f.uuid(1036))),
    signature("squashfs", 0, b"hsqs", NO_FACTS),
    signature("iso9660", 0x8001, b"CD001", |f| (f.text(0x8028, 32), String::new())),
    signature("f2fs", 1024, &[0x10, 0x20, 0xf5, 0xf2], |f| (String::new(), f.uuid(1024 + 108))),
    signature("bcachefs", 4096 + 24, &[0xc6, 0x85, 0x73, 0xf6], |f| (String::new(), f.uuid(4096 + 56))),
];

/// Looks at the start of `partition`. An ext superblock is given along when it is the only thing
/// there: beside another signature either may be a leftover, and nothing is proved.
pub(super) fn identify(partition: &Slice<'_>) -> io::Result<(Found, Option<Superblock>)> {
    let mut head =
        vec![0; HEAD_BYTES.min(usize::try_from(partition.raw_bytes()).unwrap_or(usize::MAX))];
    partition.read_exact_at(0, &mut head)?;
    let fields = Fields(&head);
    let found: Vec<&Signature> = SIGNATURES
        .iter()
        .filter(|signature| fields.bytes(signature.at, signature.magic.len()) == signature.magic)
        .collect();
    let ext = Superblock::read(partition)?;
    Ok(match (found.as_slice(), ext) {
        ([], Some(ext)) => (
            Found {
                fs: ext.version(),
                label: ext.label(),
                uuid: ext.uuid(),
            },
            Some(ext),
        ),
        ([only], None) => {
            let (label, uuid) = (only.facts)(fields);
            (
                Found {
                    fs: only.fs,
                    label,
                    uuid,
                },
                None,
            )
        }
        _ => (Found::default(), None),
    })
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
