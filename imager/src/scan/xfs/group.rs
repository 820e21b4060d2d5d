//! One allocation group: its header of free space and the tree that this names.

use super::Geometry;
use crate::read_at::{Fields, ReadAt};
use crate::scan::checksum::crc32c_around;
use crate::scan::volume::{Free, Obstacle};

const AGF_MAGIC: u32 = 0x5841_4746;
const AGF_VERSION: u32 = 1;
const AGF_CHECKSUM_AT: usize = 216;
const AGF_UUID_AT: usize = 64;

const TREE_MAGIC_4: u32 = 0x4142_5442;
const TREE_MAGIC_5: u32 = 0x4142_3342;
const TREE_HEADER_4: usize = 16;
const TREE_HEADER_5: usize = 56;
const TREE_CHECKSUM_AT: usize = 52;
const RECORD_BYTES: usize = 8;
const POINTER_BYTES: usize = 4;
const NULL_BLOCK: u32 = u32::MAX;
/// Nine levels of the narrowest nodes hold more records than a group has blocks.
const LEVELS_MAX: u32 = 9;
/// Disk addresses count sectors of this size, whatever the disk has.
const ADDRESS_BYTES: u64 = 512;

/// Reads what is free in `group` into `free`. Gives the blocks that count as free: those, and those
/// kept for the trees of free space.
pub(super) fn read(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    group: u64,
    free: &mut Free,
) -> Result<u64, Obstacle> {
    let header = Header::read(volume, geometry, group)?;
    let mut leaves = Leaves {
        geometry,
        header: &header,
        group,
        end: 0,
        blocks: 0,
        longest: 0,
        free,
    };
    let mut level = header.levels;
    let mut row = vec![header.root];
    while level > 0 {
        level -= 1;
        row = read_row(volume, geometry, &header, group, level, &row, &mut leaves)?;
    }
    let (blocks, longest) = (leaves.blocks, leaves.longest);
    if (blocks, longest) != (header.free_blocks, header.longest) {
        return Err(Obstacle::Unknown(format!(
            "its group {group} says {} blocks are free, {blocks} are",
            header.free_blocks
        )));
    }
    Ok(blocks + header.list_blocks + header.tree_blocks)
}

/// The header of free space (AGF) of a group.
struct Header {
    blocks: u32,
    root: u32,
    levels: u32,
    free_blocks: u64,
    longest: u64,
    list_blocks: u64,
    tree_blocks: u64,
}

impl Header {
    fn read(volume: &dyn ReadAt, geometry: &Geometry, group: u64) -> Result<Header, Obstacle> {
        let range = geometry.group_range(group);
        let mut sector = vec![0; geometry.sector_bytes as usize];
        let place = range.start * geometry.block_bytes + geometry.sector_bytes;
        volume.read_exact_at(place, &mut sector)?;
        let fields = Fields(&sector);
        let identified = geometry.meta_uuid.is_none_or(|uuid| {
            fields.bytes(AGF_UUID_AT, 16) == uuid
                && crc32c_around(&sector, AGF_CHECKSUM_AT) == fields.u32(AGF_CHECKSUM_AT)
        });
        let header = Header {
            blocks: fields.be32(12),
            root: fields.be32(16),
            levels: fields.be32(28),
            free_blocks: u64::from(fields.be32(52)),
            longest: u64::from(fields.be32(56)),
            list_blocks: u64::from(fields.be32(48)),
            tree_blocks: u64::from(fields.be32(60)),
        };
        let sane = identified
            && fields.be32(0) == AGF_MAGIC
            && fields.be32(4) == AGF_VERSION
            && u64::from(fields.be32(8)) == group
            && u64::from(header.blocks) == range.end - range.start
            && (1..=LEVELS_MAX).contains(&header.levels);
        sane.then_some(header)
            .ok_or_else(|| Obstacle::Unknown(format!("the header of its group {group} is damaged")))
    }
}

/// Reads the nodes `row` of one level, left to right. Gives the row below; records of the lowest
/// level go to `leaves`.
fn read_row(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    header: &Header,
    group: u64,
    level: u32,
    row: &[u32],
    leaves: &mut Leaves<'_>,
) -> Result<Vec<u32>, Obstacle> {
    let damaged = || Obstacle::Unknown(format!("the free space of its group {group} is damaged"));
    let header_bytes = match geometry.meta_uuid {
        Some(_) => TREE_HEADER_5,
        None => TREE_HEADER_4,
    };
    let mut node = vec![0; geometry.block_bytes as usize];
    let room = node.len() - header_bytes;
    let most = match level {
        0 => room / RECORD_BYTES,
        _ => room / (RECORD_BYTES + POINTER_BYTES),
    };
    let mut below = Vec::new();
    for (index, &block) in row.iter().enumerate() {
        if u64::from(block) < geometry.header_blocks() || block >= header.blocks {
            return Err(damaged());
        }
        let place = (geometry.group_range(group).start + u64::from(block)) * geometry.block_bytes;
        volume.read_exact_at(place, &mut node)?;
        let fields = Fields(&node);
        let left = if index == 0 {
            NULL_BLOCK
        } else {
            row[index - 1]
        };
        let right = row.get(index + 1).copied().unwrap_or(NULL_BLOCK);
        let records = usize::from(fields.be16(6));
        let identified = match geometry.meta_uuid {
            None => fields.be32(0) == TREE_MAGIC_4,
            Some(uuid) => {
                fields.be32(0) == TREE_MAGIC_5
                    && fields.be64(16) == place / ADDRESS_BYTES
                    && fields.bytes(32, 16) == uuid
                    && u64::from(fields.be32(48)) == group
                    && crc32c_around(&node, TREE_CHECKSUM_AT) == fields.u32(TREE_CHECKSUM_AT)
            }
        };
        // Only the one leaf of a full group may be empty.
        let sane = identified
            && u32::from(fields.be16(4)) == level
            && (fields.be32(8), fields.be32(12)) == (left, right)
            && records <= most
            && (records > 0 || header.levels == 1);
        if !sane {
            return Err(damaged());
        }
        for record in 0..records {
            let at = header_bytes + record * RECORD_BYTES;
            if level == 0 {
                leaves.add(fields.be32(at), fields.be32(at + 4))?;
            } else {
                let at = header_bytes + most * RECORD_BYTES + record * POINTER_BYTES;
                below.push(fields.be32(at));
            }
        }
        // More nodes than blocks: some of them twice.
        if below.len() > header.blocks as usize {
            return Err(damaged());
        }
    }
    Ok(below)
}

/// The records of a tree, as they come.
struct Leaves<'a> {
    geometry: &'a Geometry,
    header: &'a Header,
    group: u64,
    /// Where the record before ended.
    end: u64,
    blocks: u64,
    longest: u64,
    free: &'a mut Free,
}

impl Leaves<'_> {
    fn add(&mut self, start: u32, count: u32) -> Result<(), Obstacle> {
        let (start, count) = (u64::from(start), u64::from(count));
        let base = self.geometry.group_range(self.group).start;
        let range = base + start..base + start + count;
        let log = &self.geometry.log;
        let sane = count > 0
            && start >= self.end.max(self.geometry.header_blocks())
            && start + count <= u64::from(self.header.blocks)
            && (range.end <= log.start || log.end <= range.start);
        if !sane {
            return Err(Obstacle::Unknown(format!(
                "the free space of its group {} overlaps itself or what is in use",
                self.group
            )));
        }
        self.end = start + count;
        self.blocks += count;
        self.longest = self.longest.max(count);
        let bytes = self.geometry.block_bytes;
        self.free.push(range.start * bytes..range.end * bytes);
        Ok(())
    }
}
