//! VHD disks: fixed (raw with a footer) and dynamic (blocks found through a table).
//!
//! After Microsoft's "Virtual Hard Disk Image Format Specification" 1.0; numbers are big-endian.
//! A differencing disk is half a disk, and refused.

use std::io;

use crate::read_at::{ReadAt, read_array};
use crate::source::chunks::{Chunks, Mapped, Place};
use crate::source::fault::Fault;
use crate::source::medium::{Extract, Medium};

/// What a dynamic disk begins with, and every disk's footer.
pub(super) const MAGIC: &[u8] = b"conectix";

const HEADER_MAGIC: &[u8] = b"cxsparse";
const SECTOR_BYTES: u64 = 512;
const FOOTER_BYTES: usize = 512;
const HEADER_BYTES: usize = 1024;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
/// A block that is nowhere.
const NOWHERE: u32 = u32::MAX;
/// Smallest and largest block, bytes; the usual one has 2 MiB.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 4096..=256 << 20;
/// Blocks of the largest VHD, 2040 GiB, in the smallest of the usual sizes.
const BLOCKS_MAX: u64 = 1 << 22;

/// The disk before the footer at the end of `extract`; none when it is no fixed VHD.
pub(super) fn fixed(extract: &Extract) -> io::Result<Option<Extract>> {
    let Some(at) = extract.raw_bytes().checked_sub(FOOTER_BYTES as u64) else {
        return Ok(None);
    };
    let footer: Option<[u8; FOOTER_BYTES]> = read_array(extract, at)?;
    let fixed = footer.is_some_and(|footer| {
        footer.starts_with(MAGIC)
            && sum_is_right(&footer, 64)
            && u32_at(&footer, 60) == FIXED
            && u64_at(&footer, 48) == at
    });
    Ok(fixed.then(|| extract.part(0, at)).flatten())
}

/// Opens a dynamic disk.
///
/// # Errors
/// When it is damaged or has a parent.
pub(super) fn open(extract: Extract) -> Result<Box<dyn Medium>, Fault> {
    let footer = read::<FOOTER_BYTES>(&extract, 0)?;
    if !sum_is_right(&footer, 64) {
        return Err(Fault::at(64, "the checksum of its footer is wrong"));
    }
    match u32_at(&footer, 60) {
        DYNAMIC => {}
        DIFFERENCING => {
            return Err(Fault::refuse(
                "it is a differencing disk that needs its parent; merge it first (Hyper-V: edit \
                 disk, merge)",
            ));
        }
        other => return Err(Fault::at(60, format!("a disk of kind {other}"))),
    }
    let at = u64_at(&footer, 16);
    let header = read::<HEADER_BYTES>(&extract, at)?;
    if !header.starts_with(HEADER_MAGIC) || !sum_is_right(&header, 36) {
        return Err(Fault::at(at, "its dynamic header is damaged"));
    }
    let block_bytes = u32_at(&header, 32);
    if !block_bytes.is_power_of_two() || !BLOCK_BYTES.contains(&block_bytes) {
        return Err(Fault::at(at + 32, format!("blocks of {block_bytes} bytes")));
    }
    let raw_bytes = u64_at(&footer, 48);
    let blocks = raw_bytes.div_ceil(u64::from(block_bytes));
    if raw_bytes == 0 || blocks > u64::from(u32_at(&header, 28)) || blocks > BLOCKS_MAX {
        return Err(Fault::at(48, format!("a disk of {raw_bytes} bytes")));
    }
    let table_at = u64_at(&header, 16);
    let table = extract.part(table_at, blocks * 4);
    let table = table.ok_or_else(|| {
        Fault::at(
            table_at,
            "its block table lies outside: the file is cut short",
        )
    })?;
    let mut bytes = vec![0; table.raw_bytes() as usize];
    table.read_exact_at(0, &mut bytes).map_err(Fault::Read)?;
    let table = bytes.chunks_exact(4).map(|entry| u32_at(entry, 0));
    let bitmap = u64::from(block_bytes) / SECTOR_BYTES / 8;
    Ok(Box::new(Mapped(Dynamic {
        table: table.collect(),
        bitmap_bytes: bitmap.next_multiple_of(SECTOR_BYTES),
        block_bytes: u64::from(block_bytes),
        raw_bytes,
        extract,
    })))
}

/// A dynamic disk.
struct Dynamic {
    extract: Extract,
    raw_bytes: u64,
    block_bytes: u64,
    /// Bytes before each block that tell which of its sectors were ever written; the others are
    /// zeros in the block as well.
    bitmap_bytes: u64,
    /// First sector of each block's bitmap.
    table: Vec<u32>,
}

impl Chunks for Dynamic {
    fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    fn chunk_bytes(&self) -> u64 {
        self.block_bytes
    }

    fn place(&self, index: u64) -> io::Result<Place> {
        Ok(match self.table.get(index as usize) {
            None | Some(&NOWHERE) => Place::Zero,
            Some(&sector) => Place::At(u64::from(sector) * SECTOR_BYTES + self.bitmap_bytes),
        })
    }

    fn file(&self) -> &Extract {
        &self.extract
    }
}

/// Whether the sum of all bytes but those of the sum itself, at `at`, is right.
fn sum_is_right(bytes: &[u8], at: usize) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    !(sum(bytes) - sum(&bytes[at..at + 4])) == u32_at(bytes, at)
}

fn read<const N: usize>(extract: &Extract, at: u64) -> Result<[u8; N], Fault> {
    let bytes = read_array(extract, at).map_err(Fault::Read)?;
    bytes.ok_or_else(|| Fault::at(at, "it ends too early: the file is cut short"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
