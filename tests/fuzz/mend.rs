//! Mends checksums and copies of volumes, so that changes get past them.

use std::collections::BTreeSet;

use crate::patched::Patched;

const CRC32C: u32 = 0x82f6_3b78;
const CRC32: u32 = 0xedb8_8320;
const SECTOR: u64 = 512;

const BTRFS_SUPERBLOCKS: [u64; 2] = [64 << 10, 64 << 20];
const BTRFS_MAGIC: &[u8] = b"_BHRfS_M";
const LVM_AREA: u64 = 4096;
const LVM_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
const LVM_TEXT_MAX: u64 = 1 << 20;
const XFS_TREE: u32 = 0x4142_3342;
const XFS_GROUP: u32 = 0x5841_4746;
const EXT_SUPERBLOCK: u64 = 1024;
/// Groups of an ext file system whose sums are mended.
const EXT_GROUPS_MAX: u64 = 32;
/// Records of an NTFS that are kept twice, and their size here.
const NTFS_MIRRORED: u64 = 4;
const NTFS_RECORD: u64 = 1024;

/// Mends what covers `places`, by what the volume now says of itself.
pub fn mend(volume: &mut Patched, places: &[u64]) {
    let is = |at: u64, magic: &[u8]| volume.get(at, magic.len()) == magic;
    if is(BTRFS_SUPERBLOCKS[0] + 0x40, BTRFS_MAGIC) {
        btrfs(volume, places);
    } else if is(LVM_AREA + 4, LVM_MAGIC) {
        lvm(volume);
    } else if is(0, b"XFSB") {
        xfs(volume, places);
    } else if is(EXT_SUPERBLOCK + 0x38, &[0x53, 0xef]) {
        ext(volume, places);
    } else if is(3, b"NTFS    ") {
        ntfs(volume, places);
    } else if is(3, b"EXFAT   ") {
        exfat(volume);
    } else if is(SECTOR, b"EFI PART") {
        gpt(volume, SECTOR);
        gpt(volume, volume.bytes() - SECTOR);
    }
}

fn btrfs(volume: &mut Patched, places: &[u64]) {
    // What the first superblock says, the others say as well.
    let first = volume.get(BTRFS_SUPERBLOCKS[0], 4096);
    for at in BTRFS_SUPERBLOCKS {
        let mut copy = first.clone();
        copy[0x30..0x38].copy_from_slice(&at.to_le_bytes());
        let sum = !crc(CRC32C, !0, &copy[32..]);
        copy[..4].copy_from_slice(&sum.to_le_bytes());
        volume.put(at, &copy);
    }
    let node = u64::from(word(&first, 0x94)).clamp(4096, 65_536);
    let nodes: BTreeSet<u64> = places.iter().map(|place| place / node * node).collect();
    for at in nodes {
        let bytes = volume.get(at, node as usize);
        if at >= 1 << 20 {
            volume.put(at, &(!crc(CRC32C, !0, &bytes[32..])).to_le_bytes());
        }
    }
}

fn lvm(volume: &mut Patched) {
    let sum = |bytes: &[u8]| crc(CRC32, 0xf597_a6cf, bytes).to_le_bytes();
    let header = volume.get(LVM_AREA, 512);
    let (offset, length) = (long(&header, 40), long(&header, 48).min(LVM_TEXT_MAX));
    let text = volume.get(LVM_AREA.saturating_add(offset), length as usize);
    volume.put(LVM_AREA + 56, &sum(&text));
    let header = volume.get(LVM_AREA + 4, 508);
    volume.put(LVM_AREA, &sum(&header));
    let label = volume.get(SECTOR + 20, 492);
    volume.put(SECTOR + 16, &sum(&label));
}

fn xfs(volume: &mut Patched, places: &[u64]) {
    let superblock = volume.get(0, 512);
    if superblock[101] & 0xf != 5 {
        return;
    }
    let block = u64::from(u32::from_be_bytes(
        superblock[4..8].try_into().expect("four bytes"),
    ));
    let block = block.clamp(512, 65_536);
    for &place in places {
        let magic = |at: u64| {
            let bytes = volume.get(at, 4);
            u32::from_be_bytes(bytes.try_into().expect("four bytes"))
        };
        let (at, node) = (place / SECTOR * SECTOR, place / block * block);
        let (start, length, hole) = if magic(at) == XFS_GROUP {
            (at, SECTOR, 216)
        } else if magic(node) == XFS_TREE {
            (node, block, 52)
        } else if at == 0 {
            (0, SECTOR, 224)
        } else {
            continue;
        };
        let mut bytes = volume.get(start, length as usize);
        bytes[hole..hole + 4].fill(0);
        let sum = !crc(CRC32C, !0, &bytes);
        volume.put(start + hole as u64, &sum.to_le_bytes());
    }
}

fn ext(volume: &mut Patched, places: &[u64]) {
    let superblock = volume.get(EXT_SUPERBLOCK, 1024);
    if word(&superblock, 0x64) & 0x400 == 0 {
        return;
    }
    let sum = crc(CRC32C, !0, &superblock[..0x3fc]);
    volume.put(EXT_SUPERBLOCK + 0x3fc, &sum.to_le_bytes());
    let (incompat, block) = (
        word(&superblock, 0x60),
        1024u64 << (word(&superblock, 0x18) & 7),
    );
    let seed = match incompat & 0x2000 {
        0 => crc(CRC32C, !0, &superblock[0x68..0x78]),
        _ => word(&superblock, 0x270),
    };
    let size = match incompat & 0x80 {
        0 => 32,
        _ => u64::from(word(&superblock, 0xfc) >> 16).clamp(32, 1024),
    };
    let table = (u64::from(word(&superblock, 0x14)) + 1).saturating_mul(block);
    let bitmap_bytes = (word(&superblock, 0x20) / 8).min(8192) as usize;
    for group in 0..EXT_GROUPS_MAX {
        let at = table.saturating_add(group * size);
        let mut descriptor = volume.get(at, size as usize);
        let bitmap = u64::from(word(&descriptor, 0)).saturating_mul(block);
        let changed = |start: u64, bytes: u64| {
            let range = start..start.saturating_add(bytes);
            places.iter().any(|place| range.contains(place))
        };
        if changed(bitmap, block) {
            let sum = crc(CRC32C, seed, &volume.get(bitmap, bitmap_bytes)).to_le_bytes();
            descriptor[0x18..0x1a].copy_from_slice(&sum[..2]);
            if size > 0x3a {
                descriptor[0x38..0x3a].copy_from_slice(&sum[2..]);
            }
        } else if !changed(at, size) {
            continue;
        }
        descriptor[0x1e..0x20].fill(0);
        let own = crc(CRC32C, seed, &(group as u32).to_le_bytes());
        let own = crc(CRC32C, own, &descriptor).to_le_bytes();
        descriptor[0x1e..0x20].copy_from_slice(&own[..2]);
        volume.put(at, &descriptor);
    }
}

fn ntfs(volume: &mut Patched, places: &[u64]) {
    let boot = volume.get(0, 512);
    let cluster = u64::from(boot[0x0d]) * u64::from(word(&boot, 0x0a) >> 8 & 0xffff);
    let (table, mirror) = (
        long(&boot, 0x30).wrapping_mul(cluster),
        long(&boot, 0x38).wrapping_mul(cluster),
    );
    let mirrored = table..table.saturating_add(NTFS_MIRRORED * NTFS_RECORD);
    for place in places.iter().filter(|place| mirrored.contains(place)) {
        let byte = volume.get(*place, 1);
        volume.put(mirror.saturating_add(place - table), &byte);
    }
}

fn exfat(volume: &mut Patched) {
    let sector = 1usize << volume.get(108, 1)[0].clamp(9, 12);
    let boot = volume.get(0, 11 * sector);
    let summed = boot.iter().enumerate();
    let sum = summed
        .filter(|(at, _)| ![106, 107, 112].contains(at))
        .fold(0u32, |sum, (_, &byte)| {
            sum.rotate_right(1).wrapping_add(byte.into())
        });
    volume.put(11 * sector as u64, &sum.to_le_bytes().repeat(sector / 4));
}

/// Both checksums of the table whose header is at `at`.
fn gpt(volume: &mut Patched, at: u64) {
    let mut header = volume.get(at, 512);
    let entries = long(&header, 72).saturating_mul(SECTOR);
    let bytes = word(&header, 80)
        .saturating_mul(word(&header, 84))
        .min(1 << 20);
    let sum = !crc(CRC32, !0, &volume.get(entries, bytes as usize));
    header[88..92].copy_from_slice(&sum.to_le_bytes());
    header[16..20].fill(0);
    let length = (word(&header, 12) as usize).min(512);
    let sum = !crc(CRC32, !0, &header[..length]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    volume.put(at, &header);
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A reflected CRC of 32 bits, continued from `start`.
fn crc(polynomial: u32, start: u32, bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 2] = [table(CRC32C), table(CRC32)];
    let table = &TABLES[usize::from(polynomial == CRC32)];
    bytes.iter().fold(start, |crc, &byte| {
        table[usize::from(crc as u8 ^ byte)] ^ crc >> 8
    })
}

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { polynomial } else { 0 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}
