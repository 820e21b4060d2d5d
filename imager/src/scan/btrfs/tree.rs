//! The trees of btrfs, read from left to right.

use super::chunk::Chunks;
use crate::read_at::{Fields, ReadAt};
use crate::scan::checksum::crc32c;
use crate::scan::volume::Obstacle;

const CHECKSUM_BYTES: usize = 32;
const HEADER_BYTES: usize = 101;
const KEY_BYTES: usize = 17;
const ITEM_BYTES: usize = 25;
const POINTER_BYTES: usize = 33;
/// Highest level of a root.
const LEVEL_MAX: u8 = 7;

/// What an item is called, and by what items are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    fn parse(fields: Fields<'_>, at: usize) -> Key {
        Key {
            object: fields.u64(at),
            kind: fields.bytes(at + 8, 1).first().copied().unwrap_or(0),
            offset: fields.u64(at + 9),
        }
    }

    /// The key that `bytes` begin with, and what follows.
    pub(super) fn split_from(bytes: &[u8]) -> Option<(Key, &[u8])> {
        let rest = bytes.get(KEY_BYTES..)?;
        Some((Key::parse(Fields(bytes), 0), rest))
    }

    /// The end of `bytes` bytes from its offset on.
    pub(super) fn object_end(self, bytes: u64) -> Option<u64> {
        self.offset.checked_add(bytes)
    }
}

/// Where a tree begins, and what its root must say of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub(super) owner: u64,
    /// Logical address.
    pub(super) place: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
}

impl Root {
    /// The root of tree `owner`, from its item in the root tree.
    pub(super) fn parse(owner: u64, item: &[u8]) -> Option<Root> {
        let fields = Fields(item);
        Some(Root {
            owner,
            place: fields.u64(176),
            level: *item.get(238)?,
            generation: fields.u64(160),
        })
    }
}

type Visit<'v> = &'v mut dyn FnMut(Key, &[u8]) -> Result<(), Obstacle>;

/// The trees of a file system, as far as `chunks` reach.
pub(super) struct Trees<'a> {
    pub(super) volume: &'a dyn ReadAt,
    pub(super) chunks: &'a Chunks,
    pub(super) node_bytes: usize,
    /// What every node bears.
    pub(super) uuid: [u8; 16],
}

impl Trees<'_> {
    /// Shows all items to `visit`, in order.
    ///
    /// Keys must rise from each item to the next through the whole tree. So no node is read twice,
    /// and a tree that loops comes to an end.
    pub(super) fn walk(&self, root: &Root, visit: Visit<'_>) -> Result<(), Obstacle> {
        if root.level > LEVEL_MAX {
            return Err(self.damaged(root.place));
        }
        self.walk_node(root, None, &mut None, visit)
    }

    fn walk_node(
        &self,
        expected: &Root,
        first: Option<Key>,
        last: &mut Option<Key>,
        visit: Visit<'_>,
    ) -> Result<(), Obstacle> {
        let damaged = || self.damaged(expected.place);
        let node = self.node(expected).ok_or_else(damaged)??;
        let fields = Fields(&node);
        let count = fields.u32(0x60) as usize;
        let entry_bytes = if expected.level == 0 {
            ITEM_BYTES
        } else {
            POINTER_BYTES
        };
        let entries_end = count
            .checked_mul(entry_bytes)
            .map(|bytes| HEADER_BYTES + bytes)
            .filter(|&end| end <= node.len())
            .ok_or_else(damaged)?;
        // Only a whole tree may be empty.
        if count == 0 && (first.is_some() || expected.level > 0) {
            return Err(damaged());
        }
        for index in 0..count {
            let at = HEADER_BYTES + index * entry_bytes;
            let key = Key::parse(fields, at);
            if index == 0 && first.is_some_and(|first| first != key) {
                return Err(damaged());
            }
            if expected.level > 0 {
                let child = Root {
                    owner: expected.owner,
                    place: fields.u64(at + KEY_BYTES),
                    level: expected.level - 1,
                    generation: fields.u64(at + KEY_BYTES + 8),
                };
                self.walk_node(&child, Some(key), last, visit)?;
                continue;
            }
            if last.is_some_and(|last| last >= key) {
                return Err(damaged());
            }
            *last = Some(key);
            let start = HEADER_BYTES + fields.u32(at + KEY_BYTES) as usize;
            let item = fields.u32(at + KEY_BYTES + 4) as usize;
            let item = (start >= entries_end)
                .then(|| node.get(start..)?.get(..item))
                .flatten()
                .ok_or_else(damaged)?;
            visit(key, item)?;
        }
        Ok(())
    }

    /// The first copy of a node that is what it should be; none when no chunk has its address.
    fn node(&self, expected: &Root) -> Option<Result<Vec<u8>, Obstacle>> {
        let end = expected.place.checked_add(self.node_bytes as u64)?;
        let logical = expected.place..end;
        let chunk = self.chunks.holding(&logical)?;
        let mut node = vec![0; self.node_bytes];
        for place in chunk.places(&logical) {
            match self.volume.read_exact_at(place.start, &mut node) {
                Ok(()) if self.is_expected(expected, &node) => return Some(Ok(node)),
                Ok(()) => {}
                Err(error) => return Some(Err(error.into())),
            }
        }
        None
    }

    fn is_expected(&self, expected: &Root, node: &[u8]) -> bool {
        let fields = Fields(node);
        fields.bytes(0x20, 16) == self.uuid
            && fields.u64(0x30) == expected.place
            && fields.u64(0x50) == expected.generation
            && fields.u64(0x58) == expected.owner
            && node[0x64] == expected.level
            && !crc32c(!0, &node[CHECKSUM_BYTES..]) == fields.u32(0)
    }

    fn damaged(&self, place: u64) -> Obstacle {
        Obstacle::Unknown(format!("the node of its trees at {place} is damaged"))
    }
}
