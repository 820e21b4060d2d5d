//! What is free on a btrfs of one device.
//!
//! Space of the device belongs to chunks or to nobody; within a chunk, what no item of the extent
//! tree covers is free. That is believed when every node on the way has the checksum, identity and
//! generation that is expected of it, and block groups, superblock and device count the same bytes
//! as are found. What lies near a copy of the superblock, or in the first MiB, is never free.
//!
//! Layout: <https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html>.

use std::ops::Range;

use crate::read_at::{Fields, ReadAt, read_array};
use crate::scan::checksum::crc32c;
use crate::scan::volume::{Free, Obstacle};

use chunk::{CHUNK_ITEM, Chunk, Chunks};
use space::Space;
use tree::{Key, Root, Trees};

mod chunk;
mod space;
mod tree;

/// Where copies of the superblock lie, and how much around each is left alone.
const SUPERBLOCKS_AT: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SUPERBLOCK_BYTES: usize = 4096;
const SUPERBLOCK_ROOM: u64 = 64 << 10;
/// The kernel allocates nothing here: boot loaders may.
const HEAD_BYTES: u64 = 1 << 20;

const MAGIC: &[u8] = b"_BHRfS_M";
const CHECKSUM_BYTES: usize = 32;
const CHECKSUM_CRC32C: u16 = 0;
const FLAG_WRITTEN: u64 = 1;
const FLAG_ERROR: u64 = 4;
const INCOMPAT_METADATA_UUID: u64 = 0x400;
// All that leave chunks and extents what they are. Not zoned (0x1000), extent-tree-v2 (0x2000),
// raid-stripe-tree (0x4000).
const INCOMPAT_KNOWN: u64 = 0xfff | 0x1_0000;
const COMPAT_RO_BLOCK_GROUP_TREE: u64 = 8;
// Free space tree and its validity, verity, block group tree.
const COMPAT_RO_KNOWN: u64 = 0xf;

const ROOT_TREE: u64 = 1;
const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const BLOCK_GROUP_TREE: u64 = 11;
const ROOT_ITEM: u8 = 132;
const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
const BLOCK_GROUP_ITEM: u8 = 192;
/// Items of the extent tree that say who refers to an extent: owner, tree block, data, shared.
const REFERENCES: [u8; 6] = [172, 176, 178, 180, 182, 184];

/// What is free on a btrfs.
pub(super) fn free(volume: &dyn ReadAt) -> Result<Free, Obstacle> {
    let superblock = Superblock::read(volume)?;
    superblock.check_copies(volume)?;
    let system = superblock.system_chunks()?;
    let mut all = Vec::new();
    superblock.trees(volume, &system).walk(
        &superblock.root(CHUNK_TREE, 0x58, 0xc7, 0xa4),
        &mut |key, item| {
            if key.kind == CHUNK_ITEM {
                all.push(Chunk::parse(key, item, superblock.device())?);
            }
            Ok(())
        },
    )?;
    let chunks = Chunks::new(all, superblock.device_bytes())?;
    if chunks.device_bytes() != superblock.fields().u64(0xd9) {
        return Err(Obstacle::unknown(
            "its chunks are not what its device says is allocated",
        ));
    }

    let trees = superblock.trees(volume, &chunks);
    let (extents, groups) = superblock.roots(&trees)?;
    let mut space = Space::new(&chunks);
    if let Some(groups) = groups {
        trees.walk(&groups, &mut |key, item| space.group(key, item))?;
    }
    let node_bytes = superblock.node_bytes();
    trees.walk(&extents, &mut |key, item| match key.kind {
        EXTENT_ITEM => space.extent(key.object, key.offset),
        METADATA_ITEM => space.extent(key.object, node_bytes),
        BLOCK_GROUP_ITEM => space.group(key, item),
        kind if REFERENCES.contains(&kind) => Ok(()),
        kind => Err(Obstacle::Unknown(format!(
            "its extent tree has an unknown item {kind}"
        ))),
    })?;
    let used = superblock.fields().u64(0x78);
    let mut free = Free::default();
    let gaps = space.finish(used)?;
    for gap in gaps
        .into_iter()
        .chain(chunks.unallocated(superblock.device_bytes()))
    {
        push_outside_superblocks(&mut free, gap);
    }
    Ok(free)
}

fn push_outside_superblocks(free: &mut Free, gap: Range<u64>) {
    let mut start = gap.start.max(HEAD_BYTES);
    for place in SUPERBLOCKS_AT {
        let kept = place..place + SUPERBLOCK_ROOM;
        if kept.start < gap.end && start < kept.end {
            if start < kept.start {
                free.push(start..kept.start);
            }
            start = kept.end;
        }
    }
    if start < gap.end {
        free.push(start..gap.end);
    }
}

/// A superblock whose checksum is right and whose features are known.
struct Superblock {
    raw: [u8; SUPERBLOCK_BYTES],
}

impl Superblock {
    fn read(volume: &dyn ReadAt) -> Result<Superblock, Obstacle> {
        let raw = read_array(volume, SUPERBLOCKS_AT[0])?;
        let superblock = Superblock {
            raw: raw.ok_or_else(|| Obstacle::unknown("it has no superblock"))?,
        };
        let fields = superblock.fields();
        if fields.u16(0xc4) != CHECKSUM_CRC32C {
            return Err(Obstacle::unknown("its checksums are not crc32c"));
        }
        if !superblock.checks(SUPERBLOCKS_AT[0]) {
            return Err(Obstacle::unknown("its superblock is damaged"));
        }
        let unknown = (
            fields.u64(0xbc) & !INCOMPAT_KNOWN,
            fields.u64(0xb4) & !COMPAT_RO_KNOWN,
        );
        if unknown != (0, 0) {
            return Err(Obstacle::Unknown(format!(
                "it has unknown features (incompat {:#x}, compat_ro {:#x})",
                unknown.0, unknown.1
            )));
        }
        let flags = fields.u64(0x38);
        if flags & FLAG_ERROR != 0 {
            return Err(Obstacle::unsafe_until(
                "run `btrfs check` on it",
                "it is marked as damaged",
            ));
        }
        if flags & !FLAG_WRITTEN != 0 {
            return Err(Obstacle::Unknown(format!(
                "its state {flags:#x} is unknown"
            )));
        }
        if fields.u64(0x88) != 1 {
            return Err(Obstacle::Unknown(format!(
                "it lies on {} devices, of which this is one",
                fields.u64(0x88)
            )));
        }
        // Its blocks are not in the extent tree before it is replayed.
        if fields.u64(0x60) != 0 {
            return Err(Obstacle::unsafe_until(
                "unmount it, or mount and unmount it once",
                "its log tree was not replayed: it is mounted or was not shut down cleanly",
            ));
        }
        let sane = superblock.node_bytes().is_power_of_two()
            && (4096..=65_536).contains(&superblock.node_bytes())
            && superblock.device_bytes() <= volume.raw_bytes();
        sane.then_some(superblock)
            .ok_or_else(|| Obstacle::unknown("its superblock contradicts itself or the partition"))
    }

    fn fields(&self) -> Fields<'_> {
        Fields(&self.raw)
    }

    fn checks(&self, place: u64) -> bool {
        let fields = self.fields();
        fields.bytes(0x40, 8) == MAGIC
            && fields.u64(0x30) == place
            && !crc32c(!0, &self.raw[CHECKSUM_BYTES..]) == fields.u32(0)
    }

    /// The copies are written with every commit; one that lags means that the last was cut.
    fn check_copies(&self, volume: &dyn ReadAt) -> Result<(), Obstacle> {
        for &place in &SUPERBLOCKS_AT[1..] {
            if place + SUPERBLOCK_BYTES as u64 > self.device_bytes() {
                break;
            }
            let same = read_array(volume, place)?.is_some_and(|raw| {
                let copy = Superblock { raw };
                copy.checks(place) && copy.fields().u64(0x48) == self.fields().u64(0x48)
            });
            if !same {
                return Err(Obstacle::Unknown(format!(
                    "the copy of its superblock at byte {place} is another"
                )));
            }
        }
        Ok(())
    }

    fn node_bytes(&self) -> u64 {
        u64::from(self.fields().u32(0x94))
    }

    /// The number of its only device.
    fn device(&self) -> u64 {
        self.fields().u64(0xc9)
    }

    fn device_bytes(&self) -> u64 {
        self.fields().u64(0xd1)
    }

    /// The chunks without which the chunk tree cannot be read.
    fn system_chunks(&self) -> Result<Chunks, Obstacle> {
        let count = self.fields().u32(0xa0) as usize;
        let mut rest = self.fields().bytes(0x32b, count);
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let (key, item) = Key::split_from(rest).ok_or_else(chunk::damaged)?;
            let chunk = Chunk::parse(key, item, self.device())?;
            rest = item.get(chunk.item_bytes()..).ok_or_else(chunk::damaged)?;
            chunks.push(chunk);
        }
        Chunks::new(chunks, self.device_bytes())
    }

    fn trees<'a>(&self, volume: &'a dyn ReadAt, chunks: &'a Chunks) -> Trees<'a> {
        let other = self.fields().u64(0xbc) & INCOMPAT_METADATA_UUID != 0;
        let at = if other { 0x23b } else { 0x20 };
        let uuid = self.fields().bytes(at, 16);
        Trees {
            volume,
            chunks,
            node_bytes: self.node_bytes() as usize,
            uuid: uuid
                .try_into()
                .expect("sixteen bytes within the superblock"),
        }
    }

    /// A root that the superblock names: its place, level and generation stand at these bytes.
    fn root(&self, owner: u64, place_at: usize, level_at: usize, generation_at: usize) -> Root {
        Root {
            owner,
            place: self.fields().u64(place_at),
            level: self.raw[level_at],
            generation: self.fields().u64(generation_at),
        }
    }

    /// The roots of the extent tree, and of the tree of block groups when that is one of its own.
    fn roots(&self, trees: &Trees<'_>) -> Result<(Root, Option<Root>), Obstacle> {
        let (mut extents, mut groups) = (None, None);
        let root_tree = self.root(ROOT_TREE, 0x50, 0xc6, 0x48);
        trees.walk(&root_tree, &mut |key, item| {
            let root = || Root::parse(key.object, item);
            match (key.object, key.kind) {
                (EXTENT_TREE, ROOT_ITEM) => extents = root(),
                (BLOCK_GROUP_TREE, ROOT_ITEM) => groups = root(),
                _ => {}
            }
            Ok(())
        })?;
        let own_tree = self.fields().u64(0xb4) & COMPAT_RO_BLOCK_GROUP_TREE != 0;
        match (extents, groups) {
            (Some(extents), groups) if groups.is_some() == own_tree => Ok((extents, groups)),
            _ => Err(Obstacle::unknown("its root tree lacks a tree")),
        }
    }
}
