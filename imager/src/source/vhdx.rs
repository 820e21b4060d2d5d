//! VHDX disks, after Microsoft's \[MS-VHDX\].
//!
//! ```text
//!   0 "vhdxfile" │ 64 KiB, 128 KiB headers │ 192 KiB, 256 KiB regions ─► metadata, block table ─► blocks
//! ```
//!
//! A disk that was not closed has changes in its log only; a differencing disk has half of its
//! content elsewhere. Both are refused.

use std::io;

use crate::read_at::{Fields, ReadAt};
use crate::source::chunks::{Chunks, Mapped, Place};
use crate::source::fault::Fault;
use crate::source::medium::{Extract, Medium};
use crate::source::vhdx::crc32c::crc32c;
use crate::source::vhdx::metadata::Metadata;

mod crc32c;
mod metadata;

/// What such a disk begins with.
pub(super) const MAGIC: &[u8] = b"vhdxfile";

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const HEADERS_AT: [u64; 2] = [64 * KIB, 128 * KIB];
const HEADER_BYTES: usize = 4096;
const REGIONS_AT: [u64; 2] = [192 * KIB, 256 * KIB];
const REGIONS_BYTES: usize = 64 << 10;
const REGIONS_MAX: u32 = 2047;
const BLOCK_TABLE: &str = "2dc27766-f623-4200-9d64-115e9bfd4a08";
const METADATA: &str = "8b7ca206-4790-4b9a-b8fe-575f050f886e";
/// Largest block table: 64 TiB, the most a VHDX can have, in blocks of 1 MiB, with room to spare.
const TABLE_BYTES_MAX: u64 = 1 << 30;
/// The two states in which a block is in the file.
const FULLY_PRESENT: u64 = 6;
const PARTIALLY_PRESENT: u64 = 7;

/// Opens a disk; gives its logical sector size, too.
///
/// # Errors
/// When it is damaged, was not closed, or has a parent.
pub(super) fn open(extract: Extract) -> Result<(Box<dyn Medium>, u32), Fault> {
    refuse_open_log(&extract)?;
    let regions = regions(&extract)?;
    let metadata = Metadata::read(&regions.metadata)?;
    let chunk_blocks = metadata.blocks_per_bitmap();
    let blocks = metadata
        .disk_bytes
        .div_ceil(u64::from(metadata.block_bytes));
    // Behind each chunk of blocks is an entry for its bitmap.
    let entries = blocks + blocks.saturating_sub(1) / chunk_blocks;
    let needed = entries
        .checked_mul(8)
        .filter(|&bytes| bytes <= regions.table.raw_bytes());
    let needed = needed
        .ok_or_else(|| Fault::refuse("it is damaged: its block table is smaller than its disk"))?;
    let table = regions.table.part(0, needed);
    let blocks = Blocks {
        extract,
        disk_bytes: metadata.disk_bytes,
        block_bytes: u64::from(metadata.block_bytes),
        chunk_blocks,
        table: table.expect("needed <= raw_bytes"),
    };
    Ok((Box::new(Mapped(blocks)), metadata.sector_bytes))
}

/// The blocks of the disk. The table is read where it is: it can be large.
struct Blocks {
    extract: Extract,
    disk_bytes: u64,
    block_bytes: u64,
    chunk_blocks: u64,
    table: Extract,
}

impl Chunks for Blocks {
    fn raw_bytes(&self) -> u64 {
        self.disk_bytes
    }

    fn chunk_bytes(&self) -> u64 {
        self.block_bytes
    }

    fn place(&self, index: u64) -> io::Result<Place> {
        let mut entry = [0; 8];
        let at = (index + index / self.chunk_blocks) * 8;
        self.table.read_exact_at(at, &mut entry)?;
        let entry = u64::from_le_bytes(entry);
        match entry & 7 {
            // Not present, undefined, zero, unmapped: without a parent all of them are zeros.
            0..=3 => Ok(Place::Zero),
            FULLY_PRESENT => Ok(Place::At(entry >> 20 << 20)),
            PARTIALLY_PRESENT => Err(wrong(index, "is partly in a parent")),
            _ => Err(wrong(index, "is in a state that is not known")),
        }
    }

    fn file(&self) -> &Extract {
        &self.extract
    }
}

fn wrong(block: u64, what: &str) -> io::Error {
    let text = format!("block {block} of the VHDX {what}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Refuses a disk whose newest header says that the log is in use.
fn refuse_open_log(extract: &Extract) -> Result<(), Fault> {
    let mut newest: Option<(u64, [u8; 16], u16)> = None;
    for at in HEADERS_AT {
        let mut header = vec![0; HEADER_BYTES];
        let read = extract.read_exact_at(at, &mut header);
        read.map_err(|error| Fault::decoding(at, error))?;
        if !is_right(&mut header, b"head") {
            continue;
        }
        let fields = Fields(&header);
        let log = fields.bytes(48, 16).try_into().expect("sixteen bytes");
        let header = (fields.u64(8), log, fields.u16(66));
        if newest.is_none_or(|(sequence, ..)| sequence < header.0) {
            newest = Some(header);
        }
    }
    let damaged = Fault::at(HEADERS_AT[0], "both of its headers are damaged");
    let (_, log, version) = newest.ok_or(damaged)?;
    if version != 1 {
        return Err(Fault::refuse(format!("version {version} is not known")));
    }
    match log == [0; 16] {
        true => Ok(()),
        false => Err(Fault::refuse(
            "it was not closed: changes are in its log only; shut the machine down, attach the \
             disk once where it came from, or repair it with `qemu-img check -r all`",
        )),
    }
}

/// The parts of the file that are needed.
struct Regions {
    table: Extract,
    metadata: Extract,
}

fn regions(extract: &Extract) -> Result<Regions, Fault> {
    for at in REGIONS_AT {
        let mut bytes = vec![0; REGIONS_BYTES];
        let read = extract.read_exact_at(at, &mut bytes);
        read.map_err(|error| Fault::decoding(at, error))?;
        if is_right(&mut bytes, b"regi") {
            return find_regions(extract, &bytes, at);
        }
    }
    let reason = "both of its region tables are damaged";
    Err(Fault::at(REGIONS_AT[0], reason))
}

fn find_regions(extract: &Extract, bytes: &[u8], table_at: u64) -> Result<Regions, Fault> {
    let fields = Fields(bytes);
    let count = fields.u32(8);
    if count > REGIONS_MAX {
        return Err(Fault::at(table_at + 8, format!("{count} regions")));
    }
    let (mut table, mut metadata) = (None, None);
    for index in 0..count as usize {
        let entry = Fields(fields.bytes(16 + index * 32, 32));
        let (at, length) = (entry.u64(16), u64::from(entry.u32(24)));
        let place = match entry.guid(0).as_str() {
            BLOCK_TABLE => &mut table,
            METADATA => &mut metadata,
            _ if entry.u32(28) & 1 == 0 => continue,
            other => {
                return Err(Fault::refuse(format!(
                    "it needs a region that is not known: {other}"
                )));
            }
        };
        let region = extract.part(at, length).filter(|_| at >= MIB);
        *place =
            Some(region.ok_or_else(|| {
                Fault::at(table_at, "a region lies outside: the file is cut short")
            })?);
    }
    match (table, metadata) {
        (Some(table), Some(metadata)) if table.raw_bytes() <= TABLE_BYTES_MAX => {
            Ok(Regions { table, metadata })
        }
        _ => Err(Fault::at(table_at, "it has no block table or no metadata")),
    }
}

/// Whether `bytes` begin with `magic` and have the checksum that stands behind it.
fn is_right(bytes: &mut [u8], magic: &[u8]) -> bool {
    let stored = Fields(bytes).u32(4);
    if !bytes.starts_with(magic) {
        return false;
    }
    bytes[4..8].fill(0);
    crc32c(bytes) == stored
}
