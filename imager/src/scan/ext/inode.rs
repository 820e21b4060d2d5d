//! One inode, and which blocks hold its content.
//!
//! Whatever is not exactly as it should be gives nothing: who asks then leaves nothing out.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/inodes.html>, and `ifork.html` beside it.

use std::ops::Range;

use super::{Checksums, Geometry};
use crate::read_at::{Fields, ReadAt};
use crate::scan::checksum::crc32c;
use crate::scan::volume::Obstacle;

const KIND: u16 = 0xf000;
const KIND_DIRECTORY: u16 = 0x4000;
const KIND_FILE: u16 = 0x8000;
const FLAG_EXTENTS: u32 = 0x8_0000;
// compressed, encrypted, verity, value of an attribute, inline data, names without case.
const FLAGS_STRANGE: u32 = 0x4 | 0x800 | 0x10_0000 | 0x20_0000 | 0x1000_0000 | 0x4000_0000;

const MAP_AT: usize = 0x28;
const MAP_BYTES: usize = 60;
const CHECKSUM_LOW_AT: usize = 0x7c;
const CHECKSUM_HIGH_AT: usize = 0x82;

const EXTENT_MAGIC: u16 = 0xf30a;
const EXTENT_BYTES: usize = 12;
const EXTENT_DEPTH_MAX: u16 = 5;
/// A longer extent was never written; its length counts from here.
const EXTENT_WRITTEN_MAX: u32 = 1 << 15;

const DIRECT_BLOCKS: usize = 12;
const INDIRECTIONS: usize = 3;

/// Blocks of a map that are read at most: those of a file of a TiB in extents, of 8 GiB without.
const MAP_BLOCKS_MAX: u32 = 1 << 12;
/// Runs of a file at most; 1 MiB of memory.
const RUNS_MAX: usize = 1 << 16;

/// An inode whose checksum holds.
pub(super) struct Inode {
    raw: Vec<u8>,
    /// What checksums of its blocks begin with.
    seed: Option<u32>,
}

/// The blocks of a file, in its order and without a hole.
pub(super) struct Content {
    pub(super) runs: Vec<Range<u64>>,
    blocks: u64,
}

impl Inode {
    /// Inode `number`, whose table begins at the block `table`; none when it is damaged.
    pub(super) fn read(
        volume: &dyn ReadAt,
        geometry: &Geometry,
        table: u64,
        number: u32,
    ) -> Result<Option<Inode>, Obstacle> {
        let index = u64::from((number - 1) % geometry.inodes_per_group);
        let mut raw = vec![0; geometry.inode_bytes as usize];
        let at = table * geometry.block_bytes + index * u64::from(geometry.inode_bytes);
        volume.read_exact_at(at, &mut raw)?;
        let seed = match geometry.checksums {
            Checksums::Crc32c { seed } => {
                let seed = crc32c(seed, &number.to_le_bytes());
                Some(crc32c(seed, Fields(&raw).bytes(0x64, 4)))
            }
            _ => None,
        };
        let inode = Inode { raw, seed };
        Ok(inode.checks().then_some(inode))
    }

    fn checks(&self) -> bool {
        let Some(seed) = self.seed else { return true };
        let fields = Fields(&self.raw);
        let is_wide = self.raw.len() > 128 && fields.u16(0x80) >= 4;
        let mut raw = self.raw.clone();
        raw[CHECKSUM_LOW_AT..CHECKSUM_LOW_AT + 2].fill(0);
        let mut stored = u32::from(fields.u16(CHECKSUM_LOW_AT));
        let mut mask = 0xffff;
        if is_wide {
            raw[CHECKSUM_HIGH_AT..CHECKSUM_HIGH_AT + 2].fill(0);
            stored |= u32::from(fields.u16(CHECKSUM_HIGH_AT)) << 16;
            mask = u32::MAX;
        }
        crc32c(seed, &raw) & mask == stored
    }

    fn fields(&self) -> Fields<'_> {
        Fields(&self.raw)
    }

    fn is_plain(&self, kind: u16) -> bool {
        self.fields().u16(0) & KIND == kind && self.fields().u32(0x20) & FLAGS_STRANGE == 0
    }

    /// A directory whose names can be read.
    pub(super) fn is_directory(&self) -> bool {
        self.is_plain(KIND_DIRECTORY)
    }

    /// A file of one name whose bytes are those in its blocks.
    pub(super) fn is_file(&self) -> bool {
        self.is_plain(KIND_FILE) && self.fields().u16(0x1a) == 1
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.fields().u32(0x04)) | u64::from(self.fields().u32(0x6c)) << 32
    }

    /// Its blocks; none when there are holes, or too many, or something is damaged.
    pub(super) fn content(
        &self,
        volume: &dyn ReadAt,
        geometry: &Geometry,
    ) -> Result<Option<Content>, Obstacle> {
        let map = self.fields().bytes(MAP_AT, MAP_BYTES);
        let mut walk = Walk {
            volume,
            geometry,
            seed: self.seed,
            map_blocks: 0,
            wanted: self.bytes().div_ceil(geometry.block_bytes),
            content: Content {
                runs: Vec::new(),
                blocks: 0,
            },
        };
        let whole = if self.fields().u32(0x20) & FLAG_EXTENTS != 0 {
            walk.extents(map, None)?
        } else {
            walk.pointers(map)?
        };
        let complete = whole.is_some() && walk.content.blocks >= walk.wanted;
        Ok(complete.then_some(walk.content))
    }
}

impl Content {
    /// Its blocks from the `skip`th on.
    pub(super) fn after(&self, skip: u64) -> Vec<Range<u64>> {
        let mut left = skip;
        let mut rest = Vec::new();
        for run in &self.runs {
            let start = run.start + left.min(run.end - run.start);
            left -= start - run.start;
            if start < run.end {
                rest.push(start..run.end);
            }
        }
        rest
    }
}

/// On the way through the map of a file. `None` from its steps: this is not for us.
struct Walk<'a> {
    volume: &'a dyn ReadAt,
    geometry: &'a Geometry,
    seed: Option<u32>,
    map_blocks: u32,
    wanted: u64,
    content: Content,
}

impl Walk<'_> {
    fn block(&mut self, number: u64) -> Result<Option<Vec<u8>>, Obstacle> {
        self.map_blocks += 1;
        if self.map_blocks > MAP_BLOCKS_MAX || !self.is_ours(&(number..number + 1)) {
            return Ok(None);
        }
        let mut block = vec![0; self.geometry.block_bytes as usize];
        let at = number * self.geometry.block_bytes;
        self.volume.read_exact_at(at, &mut block)?;
        Ok(Some(block))
    }

    fn is_ours(&self, blocks: &Range<u64>) -> bool {
        blocks.start > self.geometry.first_block && blocks.end <= self.geometry.blocks
    }

    /// The next blocks of the file.
    fn take(&mut self, run: Range<u64>) -> Option<()> {
        let Content { runs, blocks } = &mut self.content;
        *blocks += run.end - run.start;
        let is_full = runs.len() == RUNS_MAX;
        match runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ if is_full => return None,
            _ => runs.push(run),
        }
        Some(())
    }

    /// A node of the tree of extents; `above` is the depth of its parent.
    fn extents(&mut self, node: &[u8], above: Option<u16>) -> Result<Option<()>, Obstacle> {
        let head = Fields(node);
        let (entries, room, depth) = (head.u16(2), head.u16(4), head.u16(6));
        let fits = EXTENT_BYTES * (1 + usize::from(room)) <= node.len();
        let descends = above.map_or(depth <= EXTENT_DEPTH_MAX, |above| depth + 1 == above);
        if head.u16(0) != EXTENT_MAGIC || entries > room || !fits || !descends {
            return Ok(None);
        }
        if let (Some(seed), Some(_)) = (self.seed, above) {
            let end = EXTENT_BYTES * (1 + usize::from(room));
            if crc32c(seed, &node[..end]) != head.u32(end) {
                return Ok(None);
            }
        }
        for entry in node[EXTENT_BYTES..]
            .chunks_exact(EXTENT_BYTES)
            .take(usize::from(entries))
        {
            let entry = Fields(entry);
            let first = u64::from(entry.u32(0));
            if first != self.content.blocks {
                return Ok(None);
            }
            let step = if depth == 0 {
                let length = match u32::from(entry.u16(4)) {
                    long if long > EXTENT_WRITTEN_MAX => long - EXTENT_WRITTEN_MAX,
                    length => length,
                };
                let start = u64::from(entry.u16(6)) << 32 | u64::from(entry.u32(8));
                let run = start..start + u64::from(length);
                let taken = length > 0 && self.is_ours(&run);
                taken.then(|| self.take(run)).flatten()
            } else {
                let child = u64::from(entry.u32(4)) | u64::from(entry.u16(8)) << 32;
                match self.block(child)? {
                    Some(block) => self.extents(&block, Some(depth))?,
                    None => None,
                }
            };
            if step.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// The map of ext2 and ext3: blocks, and blocks of blocks.
    fn pointers(&mut self, map: &[u8]) -> Result<Option<()>, Obstacle> {
        let roots = map.chunks_exact(4).take(DIRECT_BLOCKS + INDIRECTIONS);
        for (index, pointer) in roots.enumerate() {
            let depth = (index + 1).saturating_sub(DIRECT_BLOCKS);
            if self.pointer(Fields(pointer).u32(0), depth)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    fn pointer(&mut self, number: u32, depth: usize) -> Result<Option<()>, Obstacle> {
        if self.content.blocks >= self.wanted {
            return Ok(Some(()));
        }
        let number = u64::from(number);
        if depth == 0 {
            let run = number..number + 1;
            let taken = self.is_ours(&run);
            return Ok(taken.then(|| self.take(run)).flatten());
        }
        let Some(block) = self.block(number)? else {
            return Ok(None);
        };
        for pointer in block.chunks_exact(4) {
            if self.pointer(Fields(pointer).u32(0), depth - 1)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }
}
