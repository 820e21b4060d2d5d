//! Mends the checksums of volumes, so that changes get past them.

const BTRFS_SUPERBLOCK: usize = 64 << 10;
const BTRFS_MAGIC: &[u8] = b"_BHRfS_M";
const BTRFS_NODE: usize = 16 << 10;
const LVM_AREA: usize = 4096;
const LVM_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
const XFS_TREE: u32 = 0x4142_3342;
const XFS_GROUP: u32 = 0x5841_4746;
const XFS_BLOCK: usize = 4096;

/// Mends what covers `places`; what was there before goes to `undo`.
pub fn mend(raw: &mut [u8], places: &[usize], undo: &mut Vec<(usize, u8)>) {
    if raw[BTRFS_SUPERBLOCK + 0x40..][..8] == *BTRFS_MAGIC {
        for &place in places {
            let (start, length) = match place / 4096 * 4096 {
                BTRFS_SUPERBLOCK => (BTRFS_SUPERBLOCK, 4096),
                _ => (place / BTRFS_NODE * BTRFS_NODE, BTRFS_NODE),
            };
            let crc = !crc(0x82f6_3b78, !0, &raw[start + 32..start + length]);
            put(raw, start, crc.to_le_bytes(), undo);
        }
    } else if raw[LVM_AREA + 4..][..16] == *LVM_MAGIC {
        let field = |raw: &[u8], at: usize| {
            u64::from_le_bytes(raw[LVM_AREA + at..][..8].try_into().expect("eight bytes")) as usize
        };
        let (offset, length) = (field(raw, 40), field(raw, 48));
        if let Some(text) = raw
            .get(LVM_AREA.saturating_add(offset)..)
            .and_then(|rest| rest.get(..length))
        {
            let sum = crc(0xedb8_8320, 0xf597_a6cf, text);
            put(raw, LVM_AREA + 56, sum.to_le_bytes(), undo);
        }
        let sum = crc(0xedb8_8320, 0xf597_a6cf, &raw[LVM_AREA + 4..LVM_AREA + 512]);
        put(raw, LVM_AREA, sum.to_le_bytes(), undo);
        let sum = crc(0xedb8_8320, 0xf597_a6cf, &raw[512 + 20..1024]);
        put(raw, 512 + 16, sum.to_le_bytes(), undo);
    } else if raw[..4] == *b"XFSB" && raw[101] & 0xf == 5 {
        for &place in places {
            let word =
                |at: usize| u32::from_be_bytes(raw[at..at + 4].try_into().expect("four bytes"));
            let (sector, block) = (place / 512 * 512, place / XFS_BLOCK * XFS_BLOCK);
            let (start, length, hole) = if word(sector) == XFS_GROUP {
                (sector, 512, 216)
            } else if word(block) == XFS_TREE {
                (block, XFS_BLOCK, 52)
            } else if sector == 0 {
                (0, 512, 224)
            } else {
                continue;
            };
            let before = crc(0x82f6_3b78, !0, &raw[start..start + hole]);
            let gap = crc(0x82f6_3b78, before, &[0; 4]);
            let sum = !crc(0x82f6_3b78, gap, &raw[start + hole + 4..start + length]);
            put(raw, start + hole, sum.to_le_bytes(), undo);
        }
    }
}

fn put(raw: &mut [u8], at: usize, bytes: [u8; 4], undo: &mut Vec<(usize, u8)>) {
    for (place, byte) in (at..).zip(bytes) {
        undo.push((place, raw[place]));
        raw[place] = byte;
    }
}

fn crc(polynomial: u32, start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { polynomial } else { 0 }
        })
    })
}
