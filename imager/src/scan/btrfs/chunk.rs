//! Chunks: which bytes of the device stand for which logical addresses.

use std::ops::Range;

use super::tree::Key;
use crate::read_at::Fields;
use crate::scan::volume::Obstacle;

pub(super) const CHUNK_ITEM: u8 = 228;

const HEADER_BYTES: usize = 48;
const STRIPE_BYTES: usize = 32;
/// A chunk has at least 1 MiB: these are on a device of 1 TiB.
const CHUNKS_MAX: usize = 1 << 20;

const KINDS: u64 = 0x7;
const RAID0: u64 = 0x8;
const DUP: u64 = 0x20;

/// A run of logical addresses and its copies on the device.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) logical: Range<u64>,
    /// Where each copy begins on the device: one, or two.
    pub(super) copies: Vec<u64>,
}

impl Chunk {
    /// The chunk that `item` begins with, which is of `device` alone.
    pub(super) fn parse(key: Key, item: &[u8], device: u64) -> Result<Chunk, Obstacle> {
        let fields = Fields(item);
        let (bytes, kind) = (fields.u64(0), fields.u64(24));
        let stripes = usize::from(fields.u16(44));
        let copies = match kind & !KINDS {
            0 | RAID0 => 1,
            DUP => 2,
            profile => {
                return Err(Obstacle::Unknown(format!(
                    "its profile {profile:#x} is unknown"
                )));
            }
        };
        let end = key.object_end(bytes);
        if key.kind != CHUNK_ITEM || stripes != copies || bytes == 0 {
            return Err(damaged());
        }
        let stripe = |index: usize| HEADER_BYTES + index * STRIPE_BYTES;
        let whole = item.len() >= stripe(copies);
        let own = (0..copies).all(|index| fields.u64(stripe(index)) == device);
        match end {
            Some(end) if whole && own => Ok(Chunk {
                logical: key.offset..end,
                copies: (0..copies)
                    .map(|index| fields.u64(stripe(index) + 8))
                    .collect(),
            }),
            _ => Err(damaged()),
        }
    }

    /// How long its item is.
    pub(super) fn item_bytes(&self) -> usize {
        HEADER_BYTES + self.copies.len() * STRIPE_BYTES
    }

    pub(super) fn bytes(&self) -> u64 {
        self.logical.end - self.logical.start
    }

    /// Where `logical`, a part of the chunk, lies on the device.
    pub(super) fn places(&self, logical: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let offset = logical.start - self.logical.start;
        let bytes = logical.end - logical.start;
        self.copies
            .iter()
            .map(move |copy| copy + offset..copy + offset + bytes)
    }
}

/// Chunks in order of their logical addresses; no two overlap, neither there nor on the device.
#[derive(Debug)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
    /// What they have of the device, in order.
    places: Vec<Range<u64>>,
}

impl Chunks {
    pub(super) fn new(mut list: Vec<Chunk>, device_bytes: u64) -> Result<Chunks, Obstacle> {
        list.sort_by_key(|chunk| chunk.logical.start);
        let mut places: Vec<Range<u64>> = list
            .iter()
            .flat_map(|chunk| {
                chunk
                    .copies
                    .iter()
                    .map(|&copy| copy..copy.saturating_add(chunk.bytes()))
            })
            .collect();
        places.sort_by_key(|place| place.start);
        let apart = list
            .windows(2)
            .all(|pair| pair[0].logical.end <= pair[1].logical.start)
            && places.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let inside = places.last().is_some_and(|last| last.end <= device_bytes);
        match list.len() <= CHUNKS_MAX && apart && inside {
            true => Ok(Chunks { list, places }),
            false => Err(damaged()),
        }
    }

    pub(super) fn list(&self) -> &[Chunk] {
        &self.list
    }

    /// The chunk that holds all of `logical`.
    pub(super) fn holding(&self, logical: &Range<u64>) -> Option<&Chunk> {
        let next = self
            .list
            .partition_point(|chunk| chunk.logical.end <= logical.start);
        self.list.get(next).filter(|chunk| {
            chunk.logical.start <= logical.start && logical.end <= chunk.logical.end
        })
    }

    /// Bytes they take of the device.
    pub(super) fn device_bytes(&self) -> u64 {
        self.places
            .iter()
            .map(|place| place.end - place.start)
            .sum()
    }

    /// What of a device of `bytes` no chunk has.
    pub(super) fn unallocated(&self, bytes: u64) -> Vec<Range<u64>> {
        let starts = std::iter::once(0).chain(self.places.iter().map(|place| place.end));
        let ends = self.places.iter().map(|place| place.start).chain([bytes]);
        starts
            .zip(ends)
            .map(|(start, end)| start..end)
            .filter(|gap| !gap.is_empty())
            .collect()
    }
}

pub(super) fn damaged() -> Obstacle {
    Obstacle::unknown("its chunks contradict each other or the device")
}
