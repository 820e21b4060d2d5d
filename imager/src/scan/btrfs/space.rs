//! Accounts: which logical addresses no extent covers, and whether everybody agrees.

use std::ops::Range;

use super::chunk::Chunks;
use super::tree::Key;
use crate::read_at::Fields;
use crate::scan::volume::Obstacle;

/// Most gaps kept between extents; beyond, the rest of a chunk counts as used.
const GAPS_MAX: usize = 1 << 20;

/// Extents as they come, in order of their addresses.
pub(super) struct Space<'a> {
    chunks: &'a Chunks,
    /// For each chunk: bytes found in extents, and bytes that its block group says.
    found: Vec<u64>,
    said: Vec<Option<u64>>,
    /// The chunk of the last extent, and where that ended.
    current: usize,
    place: u64,
    gaps: Vec<Range<u64>>,
}

impl<'a> Space<'a> {
    pub(super) fn new(chunks: &'a Chunks) -> Space<'a> {
        let list = chunks.list();
        Space {
            chunks,
            found: vec![0; list.len()],
            said: vec![None; list.len()],
            current: 0,
            place: list.first().map_or(0, |chunk| chunk.logical.start),
            gaps: Vec::new(),
        }
    }

    /// A block group: as long as its chunk.
    pub(super) fn group(&mut self, key: Key, item: &[u8]) -> Result<(), Obstacle> {
        let list = self.chunks.list();
        let index = list.partition_point(|chunk| chunk.logical.start < key.object);
        let matching = list
            .get(index)
            .is_some_and(|chunk| chunk.logical.start == key.object && chunk.bytes() == key.offset);
        if !matching || item.len() < 8 || self.said[index].is_some() {
            return Err(Obstacle::unknown("its block groups are not its chunks"));
        }
        self.said[index] = Some(Fields(item).u64(0));
        Ok(())
    }

    /// An extent, behind all before.
    pub(super) fn extent(&mut self, start: u64, bytes: u64) -> Result<(), Obstacle> {
        let chunks = self.chunks;
        while chunks
            .list()
            .get(self.current)
            .is_some_and(|chunk| chunk.logical.end <= start)
        {
            self.leave_chunk();
        }
        let end = start.checked_add(bytes);
        let (Some(chunk), Some(end)) = (chunks.list().get(self.current), end) else {
            return Err(outside(start));
        };
        if start < self.place || bytes == 0 || end > chunk.logical.end {
            return Err(outside(start));
        }
        self.gap(self.place..start);
        self.place = end;
        self.found[self.current] += bytes;
        Ok(())
    }

    /// What is free, on the device, when everybody counts the same; `used` is what the superblock
    /// says.
    pub(super) fn finish(mut self, used: u64) -> Result<Vec<Range<u64>>, Obstacle> {
        while self.current < self.chunks.list().len() {
            self.leave_chunk();
        }
        for (chunk, (found, said)) in self
            .chunks
            .list()
            .iter()
            .zip(self.found.iter().zip(&self.said))
        {
            if Some(*found) != *said {
                return Err(Obstacle::Unknown(format!(
                    "its block group at {} says {} bytes are used, {found} are",
                    chunk.logical.start,
                    said.unwrap_or(0),
                )));
            }
        }
        let found: u64 = self.found.iter().sum();
        if found != used {
            return Err(Obstacle::Unknown(format!(
                "its superblock says {used} bytes are used, {found} are"
            )));
        }
        Ok(self.gaps)
    }

    fn leave_chunk(&mut self) {
        let list = self.chunks.list();
        self.gap(self.place..list[self.current].logical.end);
        self.current += 1;
        self.place = list
            .get(self.current)
            .map_or(self.place, |chunk| chunk.logical.start);
    }

    fn gap(&mut self, logical: Range<u64>) {
        let chunk = &self.chunks.list()[self.current];
        if !logical.is_empty() && self.gaps.len() + chunk.copies.len() <= GAPS_MAX {
            self.gaps.extend(chunk.places(&logical));
        }
    }
}

fn outside(start: u64) -> Obstacle {
    Obstacle::Unknown(format!(
        "its extent at {start} overlaps another or leaves its chunk"
    ))
}
