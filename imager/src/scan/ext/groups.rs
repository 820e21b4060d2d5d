//! Block groups: descriptors, bitmaps, and what is used without a bitmap saying so.

use std::ops::Range;

use super::swap_file;
use super::{Backups, Checksums, Geometry};
use crate::read_at::{Fields, ReadAt};
use crate::scan::checksum::{crc16, crc32c};
use crate::scan::volume::{Free, Obstacle};

const FLAG_BLOCK_UNINIT: u16 = 2;

/// A group descriptor.
struct Group {
    index: u64,
    flags: u16,
    free_blocks: u32,
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    bitmap_checksum: u32,
    checksum_bits: u32,
}

/// The free blocks, or why the bitmaps are not to be trusted.
pub(super) fn free(partition: &dyn ReadAt, geometry: &Geometry) -> Result<Free, Obstacle> {
    let groups = read_groups(partition, geometry)?;
    let metadata = metadata_blocks(geometry, &groups);
    let mut bitmap = vec![0u8; geometry.block_bytes as usize];
    let mut free = Free::default();
    let mut total = 0u64;
    for group in &groups {
        let blocks = geometry.group_blocks(group.index);
        if group.flags & FLAG_BLOCK_UNINIT != 0 {
            bitmap.fill(0);
            for taken in overlapping(&metadata, &blocks) {
                (taken.start..taken.end).for_each(|block| set(&mut bitmap, block - blocks.start));
            }
        } else {
            partition.read_exact_at(group.block_bitmap * geometry.block_bytes, &mut bitmap)?;
            if !geometry.bitmap_checks(group, &bitmap) {
                return Err(Obstacle::Unknown(format!(
                    "the bitmap of its group {} has a wrong checksum",
                    group.index
                )));
            }
            let claimed = overlapping(&metadata, &blocks).any(|taken| {
                (taken.start..taken.end).any(|block| !is_set(&bitmap, block - blocks.start))
            });
            if claimed {
                return Err(Obstacle::Unknown(format!(
                    "the bitmap of its group {} calls its own tables free",
                    group.index
                )));
            }
        }
        let before = total;
        for block in blocks
            .clone()
            .filter(|block| !is_set(&bitmap, block - blocks.start))
        {
            total += 1;
            free.push(block * geometry.block_bytes..(block + 1) * geometry.block_bytes);
        }
        if total - before != u64::from(group.free_blocks) {
            let found = total - before;
            return Err(Obstacle::Unknown(format!(
                "its group {} says {} blocks are free, {found} are",
                group.index, group.free_blocks
            )));
        }
    }
    // The count in the superblock of a mounted file system lags; a clean one has it right.
    if total != geometry.free_blocks {
        return Err(Obstacle::Unknown(format!(
            "its superblock says {} blocks are free, {total} are",
            geometry.free_blocks
        )));
    }
    leave_out_swap(partition, geometry, &groups, &metadata, &mut free)?;
    Ok(free)
}

/// Whose blocks are free already, or the file system's own, was no file: `free` finds the former out by itself.
fn leave_out_swap(
    partition: &dyn ReadAt,
    geometry: &Geometry,
    groups: &[Group],
    metadata: &[Range<u64>],
    free: &mut Free,
) -> Result<(), Obstacle> {
    let table = |inode: u32| {
        let group = inode.checked_sub(1)? / geometry.inodes_per_group;
        groups.get(group as usize).map(|group| group.inode_table)
    };
    for file in swap_file::find(partition, geometry, &table)? {
        let honest = |run: &Range<u64>| overlapping(metadata, run).next().is_none();
        if file.blocks.is_empty() || !file.blocks.iter().all(honest) {
            continue;
        }
        for run in file.blocks {
            free.push(run.start * geometry.block_bytes..run.end * geometry.block_bytes);
        }
        let name = file.name;
        free.notes
            .push(format!("the contents of /{name} are left out"));
    }
    Ok(())
}

fn read_groups(partition: &dyn ReadAt, geometry: &Geometry) -> Result<Vec<Group>, Obstacle> {
    let per_block = geometry.descriptors_per_block();
    let mut block = vec![0u8; geometry.block_bytes as usize];
    let mut groups = Vec::new();
    for index in 0..geometry.groups() {
        if index.is_multiple_of(per_block) {
            let place = geometry.descriptor_block(index / per_block);
            if place >= geometry.blocks {
                return Err(Obstacle::unknown(
                    "its group descriptors lie beyond its end",
                ));
            }
            partition.read_exact_at(place * geometry.block_bytes, &mut block)?;
        }
        let at = (index % per_block) as usize * geometry.descriptor_bytes;
        let raw = &block[at..at + geometry.descriptor_bytes];
        if !geometry.descriptor_checks(index, raw) {
            return Err(Obstacle::Unknown(format!(
                "the descriptor of its group {index} has a wrong checksum"
            )));
        }
        let group = Group::parse(index, Fields(raw));
        let tables = group.tables(geometry);
        if tables
            .iter()
            .any(|range| range.start <= geometry.first_block || range.end > geometry.blocks)
        {
            return Err(Obstacle::Unknown(format!(
                "the tables of its group {index} lie beyond its end"
            )));
        }
        groups.push(group);
    }
    Ok(groups)
}

impl Group {
    fn parse(index: u64, fields: Fields<'_>) -> Group {
        // A descriptor of 32 bytes has no upper halves; beyond its end everything reads as zero.
        let wide = |low, high| u64::from(fields.u32(low)) | u64::from(fields.u32(high)) << 32;
        let has_upper_halves = fields.0.len() >= 0x3a;
        Group {
            index,
            flags: fields.u16(0x12),
            free_blocks: u32::from(fields.u16(0x0c)) | u32::from(fields.u16(0x2c)) << 16,
            block_bitmap: wide(0x00, 0x20),
            inode_bitmap: wide(0x04, 0x24),
            inode_table: wide(0x08, 0x28),
            bitmap_checksum: u32::from(fields.u16(0x18)) | u32::from(fields.u16(0x38)) << 16,
            checksum_bits: if has_upper_halves { u32::MAX } else { 0xffff },
        }
    }

    /// Both bitmaps and the inode table, which with flex_bg may lie in other groups.
    fn tables(&self, geometry: &Geometry) -> [Range<u64>; 3] {
        let run = |start: u64, count: u64| start..start.saturating_add(count);
        [
            run(self.block_bitmap, 1),
            run(self.inode_bitmap, 1),
            run(self.inode_table, geometry.inode_table_blocks()),
        ]
    }
}

impl Geometry {
    fn groups(&self) -> u64 {
        (self.blocks - self.first_block).div_ceil(u64::from(self.blocks_per_group))
    }

    fn group_blocks(&self, group: u64) -> Range<u64> {
        let start = self.first_block + group * u64::from(self.blocks_per_group);
        start..(start + u64::from(self.blocks_per_group)).min(self.blocks)
    }

    fn descriptors_per_block(&self) -> u64 {
        self.block_bytes / self.descriptor_bytes as u64
    }

    fn inode_table_blocks(&self) -> u64 {
        (u64::from(self.inodes_per_group) * u64::from(self.inode_bytes)).div_ceil(self.block_bytes)
    }

    fn has_superblock(&self, group: u64) -> bool {
        let is_power = |base: u64| {
            std::iter::successors(Some(base), |p| Some(p * base))
                .take_while(|&p| p <= group)
                .any(|p| p == group)
        };
        match self.backups {
            _ if group == 0 => true,
            Backups::Every => true,
            Backups::Powers => group == 1 || [3, 5, 7].into_iter().any(is_power),
            Backups::Two(two) => two.contains(&group),
        }
    }

    /// Where block number `index` of the group descriptors lies.
    fn descriptor_block(&self, index: u64) -> u64 {
        match self.first_meta_group {
            Some(first) if index >= first => {
                let group = index * self.descriptors_per_block();
                self.group_blocks(group).start + u64::from(self.has_superblock(group))
            }
            _ => self.first_block + 1 + index,
        }
    }

    /// Superblock and descriptors that lie at the start of `group`.
    fn head_blocks(&self, group: u64) -> Range<u64> {
        let start = self.group_blocks(group).start;
        let superblock = u64::from(self.has_superblock(group));
        let descriptor_blocks = self.groups().div_ceil(self.descriptors_per_block());
        let meta_group = group / self.descriptors_per_block();
        let descriptors = match self.first_meta_group {
            Some(first) if meta_group >= first => {
                let place = group % self.descriptors_per_block();
                u64::from(place <= 1 || place + 1 == self.descriptors_per_block())
            }
            Some(first) => superblock * first.min(descriptor_blocks),
            None => superblock * (descriptor_blocks + self.reserved_descriptor_blocks),
        };
        start..start + superblock + descriptors
    }

    fn descriptor_checks(&self, group: u64, raw: &[u8]) -> bool {
        let stored = Fields(raw).u16(0x1e);
        let number = (group as u32).to_le_bytes();
        let after = &raw[0x20..];
        match &self.checksums {
            Checksums::None => true,
            Checksums::Crc16 { uuid } => {
                let crc = crc16(crc16(crc16(!0, uuid), &number), &raw[..0x1e]);
                crc16(crc, after) == stored
            }
            Checksums::Crc32c { seed } => {
                let crc = crc32c(crc32c(crc32c(*seed, &number), &raw[..0x1e]), &[0; 2]);
                crc32c(crc, after) as u16 == stored
            }
        }
    }

    fn bitmap_checks(&self, group: &Group, bitmap: &[u8]) -> bool {
        match self.checksums {
            Checksums::Crc32c { seed } => {
                let crc = crc32c(seed, &bitmap[..self.blocks_per_group as usize / 8]);
                crc & group.checksum_bits == group.bitmap_checksum & group.checksum_bits
            }
            _ => true,
        }
    }
}

/// Every block the file system keeps for itself, in order and joined.
fn metadata_blocks(geometry: &Geometry, groups: &[Group]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = groups
        .iter()
        .flat_map(|group| {
            group
                .tables(geometry)
                .into_iter()
                .chain([geometry.head_blocks(group.index)])
        })
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, last| {
        let touches = next.start <= last.end;
        last.end = if touches {
            last.end.max(next.end)
        } else {
            last.end
        };
        touches
    });
    ranges
}

fn overlapping<'a>(
    sorted: &'a [Range<u64>],
    blocks: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let Range { start, end } = *blocks;
    let first = sorted.partition_point(|range| range.end <= start);
    sorted[first..]
        .iter()
        .take_while(move |range| range.start < end)
        .map(move |range| range.start.max(start)..range.end.min(end))
}

fn set(bitmap: &mut [u8], index: u64) {
    bitmap[index as usize / 8] |= 1 << (index % 8);
}

fn is_set(bitmap: &[u8], index: u64) -> bool {
    bitmap[index as usize / 8] >> (index % 8) & 1 == 1
}
