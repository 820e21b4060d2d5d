//! Which blocks of an XFS file system are free.
//!
//! Each allocation group keeps its free space in a B+tree sorted by block number. It is believed
//! when the log holds nothing that must be replayed, every checksum and identity of the way to it
//! is right, and group headers and superblock count the same free blocks as the trees do.
//!
//! Layout: "XFS Algorithms & Data Structures", 3rd edition, <https://docs.kernel.org/filesystems/xfs/>.

use std::ops::Range;

use crate::read_at::{Fields, ReadAt};
use crate::scan::checksum::crc32c_around;
use crate::scan::volume::{Free, Obstacle};

mod group;
mod log;

const MAGIC: &[u8] = b"XFSB";
const SUPERBLOCK_BYTES: usize = 512;
const CHECKSUM_AT: usize = 224;

const VERSION_MASK: u16 = 0xf;
const VERSION_SHARED: u16 = 0x200;
const VERSION_MORE: u16 = 0x8000;
const FEATURES2_LAZY_COUNT: u32 = 0x2;

// finobt, rmapbt, reflink, inobtcount: trees of their own, in blocks that are not free.
const RO_COMPAT_KNOWN: u32 = 0xf;
const INCOMPAT_META_UUID: u32 = 0x4;
const INCOMPAT_NEEDS_REPAIR: u32 = 0x10;
// ftype, sparse inodes, meta_uuid, bigtime, needsrepair, nrext64, exchange-range, parent pointers.
// Not metadir and what builds on it: realtime groups and zones.
const INCOMPAT_KNOWN: u32 = 0xff;
// Logged extended attributes: of no meaning when the log is clean.
const LOG_INCOMPAT_KNOWN: u32 = 0x1;

const BLOCK_LOG: Range<u32> = 9..17;
const SECTOR_LOG: Range<u32> = 9..16;
const GROUP_BLOCKS_MIN: u64 = 64;
/// Superblock, AGF, AGI and AGFL, a sector each, begin every group.
const HEADER_SECTORS: u64 = 4;

/// The free blocks of an XFS file system.
pub(super) fn free(volume: &dyn ReadAt) -> Result<Free, Obstacle> {
    let geometry = Geometry::read(volume)?;
    log::check_clean(volume, &geometry)?;
    let mut free = Free::default();
    let mut blocks = 0u64;
    for group in 0..geometry.groups {
        blocks = blocks.saturating_add(group::read(volume, &geometry, group, &mut free)?);
    }
    match geometry.free_blocks {
        Some(said) if said != blocks => Err(Obstacle::Unknown(format!(
            "its superblock says {said} blocks are free, its groups say {blocks}"
        ))),
        _ => Ok(free),
    }
}

/// What of the superblock the rest needs; every value is in its valid range.
struct Geometry {
    block_bytes: u64,
    sector_bytes: u64,
    blocks: u64,
    group_blocks: u64,
    groups: u64,
    /// Free blocks of all groups, with those of their lists and trees; when that is kept.
    free_blocks: Option<u64>,
    /// The log, blocks from the start of the volume.
    log: Range<u64>,
    uuid: [u8; 16],
    /// What metadata bears, when they bear it: version 5.
    meta_uuid: Option<[u8; 16]>,
}

impl Geometry {
    fn read(volume: &dyn ReadAt) -> Result<Geometry, Obstacle> {
        let mut head = [0; SUPERBLOCK_BYTES];
        volume.read_exact_at(0, &mut head)?;
        let fields = Fields(&head);
        let sector_bytes = u64::from(fields.be16(102));
        let sane = fields.bytes(0, 4) == MAGIC
            && sector_bytes.is_power_of_two()
            && SECTOR_LOG.contains(&sector_bytes.ilog2());
        if !sane {
            return Err(contradiction());
        }
        let mut sector = vec![0; sector_bytes as usize];
        volume.read_exact_at(0, &mut sector)?;
        let fields = Fields(&sector);
        let meta_uuid = check_features(fields)?;

        let block_bytes = u64::from(fields.be32(4));
        let (log_start, log_blocks) = (fields.be64(48), u64::from(fields.be32(96)));
        if fields.be64(16) != 0 {
            return Err(Obstacle::unknown("it has a realtime device"));
        }
        if log_start == 0 {
            return Err(Obstacle::unknown("its log lies on another device"));
        }
        let group_log = u32::from(sector[124]);
        let group_blocks = u64::from(fields.be32(84));
        let lazy = meta_uuid.is_some()
            || fields.be16(100) & VERSION_MORE != 0 && fields.be32(200) & FEATURES2_LAZY_COUNT != 0;
        let sane = block_bytes.is_power_of_two()
            && BLOCK_LOG.contains(&block_bytes.ilog2())
            && u32::from(sector[120]) == block_bytes.ilog2()
            && sector_bytes <= block_bytes
            && group_blocks >= GROUP_BLOCKS_MIN
            && group_log == group_blocks.next_power_of_two().ilog2();
        if !sane {
            return Err(contradiction());
        }
        // A block number is a group number above the bits of a block within its group.
        let place = |block: u64| {
            let within = block & ((1 << group_log) - 1);
            ((block >> group_log).checked_mul(group_blocks))
                .and_then(|start| start.checked_add(within))
                .filter(|_| within < group_blocks)
        };
        let log_start = place(log_start).ok_or_else(contradiction)?;
        let geometry = Geometry {
            block_bytes,
            sector_bytes,
            blocks: fields.be64(8),
            group_blocks,
            groups: u64::from(fields.be32(88)),
            free_blocks: lazy.then(|| fields.be64(144)),
            log: log_start..log_start.saturating_add(log_blocks),
            uuid: fields.bytes(32, 16).try_into().expect("within the sector"),
            meta_uuid,
        };
        // Below 2^64: a 32-bit count of groups, each of a 32-bit count of blocks.
        let end = geometry.groups * group_blocks;
        let fits = geometry.blocks.checked_mul(block_bytes);
        let sane = geometry.groups > 0
            && geometry.blocks <= end
            && geometry.blocks > end - group_blocks
            && fits.is_some_and(|bytes| bytes <= volume.raw_bytes())
            && log_blocks > 0
            && geometry.log.end <= geometry.blocks
            && (geometry.log.end - 1) / group_blocks == log_start / group_blocks;
        sane.then_some(geometry).ok_or_else(contradiction)
    }

    /// Blocks of `group`, from the start of the volume.
    fn group_range(&self, group: u64) -> Range<u64> {
        let start = group * self.group_blocks;
        start..(start + self.group_blocks).min(self.blocks)
    }

    fn header_blocks(&self) -> u64 {
        (HEADER_SECTORS * self.sector_bytes).div_ceil(self.block_bytes)
    }
}

/// Refuses what the trees of free space may not be believed with. Gives the UUID that metadata of
/// version 5 bear.
fn check_features(fields: Fields<'_>) -> Result<Option<[u8; 16]>, Obstacle> {
    let version = fields.be16(100);
    if fields.bytes(126, 1) != [0] {
        return Err(Obstacle::unknown("its making or growing was not finished"));
    }
    match version & VERSION_MASK {
        4 if version & VERSION_SHARED == 0 => Ok(None),
        5 => {
            if crc32c_around(fields.0, CHECKSUM_AT) != fields.u32(CHECKSUM_AT) {
                return Err(Obstacle::unknown("the checksum of its superblock is wrong"));
            }
            let (ro_compat, incompat, log_incompat) =
                (fields.be32(212), fields.be32(216), fields.be32(220));
            if incompat & INCOMPAT_NEEDS_REPAIR != 0 {
                return Err(Obstacle::unsafe_until(
                    "run `xfs_repair` on it",
                    "it is marked as in need of repair",
                ));
            }
            let unknown = (
                ro_compat & !RO_COMPAT_KNOWN,
                incompat & !INCOMPAT_KNOWN,
                log_incompat & !LOG_INCOMPAT_KNOWN,
            );
            if unknown != (0, 0, 0) {
                return Err(Obstacle::Unknown(format!(
                    "it has unknown features (ro_compat {:#x}, incompat {:#x}, log {:#x})",
                    unknown.0, unknown.1, unknown.2
                )));
            }
            let at = if incompat & INCOMPAT_META_UUID != 0 {
                248
            } else {
                32
            };
            Ok(fields.bytes(at, 16).try_into().ok())
        }
        _ => Err(Obstacle::Unknown(format!(
            "it is of unknown version {version:#x}"
        ))),
    }
}

fn contradiction() -> Obstacle {
    Obstacle::unknown("its superblock contradicts itself or the partition")
}

#[cfg(test)]
mod tests;
