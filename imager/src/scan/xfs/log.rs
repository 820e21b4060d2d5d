//! Whether the log of an XFS file system is clean.
//!
//! The log is a ring of 512-byte blocks, each bearing the number of the round it was written in.
//! Where the rounds change is the head. The file system was unmounted when the record that ends
//! there is an unmount record; anything else may have to be replayed first.

use super::Geometry;
use crate::read_at::{Fields, ReadAt};
use crate::scan::volume::Obstacle;

const BLOCK_BYTES: u64 = 512;
const RECORD_MAGIC: u32 = 0xfeed_babe;
const VERSION_2: u32 = 2;
/// One header block holds the cycle data of this many bytes of a record.
const HEADER_SPAN: u32 = 32 << 10;
const RECORD_BYTES_MAX: u32 = 256 << 10;
/// Blocks of the longest record with its headers.
const RECORD_BLOCKS_MAX: u64 =
    (RECORD_BYTES_MAX / HEADER_SPAN) as u64 + RECORD_BYTES_MAX as u64 / BLOCK_BYTES;
const UNMOUNT: u8 = 0x20;

/// Refuses a log that is not clean.
pub(super) fn check_clean(volume: &dyn ReadAt, geometry: &Geometry) -> Result<(), Obstacle> {
    let log = Log {
        volume,
        start: geometry.log.start * geometry.block_bytes,
        blocks: (geometry.log.end - geometry.log.start) * (geometry.block_bytes / BLOCK_BYTES),
    };
    let head = log.head()?;
    match log.ends_unmounted(head, &geometry.uuid)? {
        true => Ok(()),
        false => Err(Obstacle::unsafe_until(
            "unmount it, or mount and unmount it once",
            "its log was not replayed: it is mounted or was not shut down cleanly",
        )),
    }
}

struct Log<'a> {
    volume: &'a dyn ReadAt,
    /// Bytes from the start of the volume.
    start: u64,
    blocks: u64,
}

impl Log<'_> {
    fn block(&self, number: u64) -> Result<[u8; BLOCK_BYTES as usize], Obstacle> {
        let mut block = [0; BLOCK_BYTES as usize];
        let place = self.start + number % self.blocks * BLOCK_BYTES;
        self.volume.read_exact_at(place, &mut block)?;
        Ok(block)
    }

    /// The round a block was written in; 0 for one never written.
    fn cycle(&self, number: u64) -> Result<u32, Obstacle> {
        let block = self.block(number)?;
        let fields = Fields(&block);
        Ok(match fields.be32(0) {
            RECORD_MAGIC => fields.be32(4),
            cycle => cycle,
        })
    }

    /// The block behind the last one written.
    fn head(&self) -> Result<u64, Obstacle> {
        let (first, last) = (self.cycle(0)?, self.cycle(self.blocks - 1)?);
        if first == 0 {
            return Err(Obstacle::unknown("its log was never written"));
        }
        if first == last {
            return Ok(0);
        }
        // Of `new` the cycle is not that of the log's end, of `old` it is.
        let (mut new, mut old) = (0, self.blocks - 1);
        while old - new > 1 {
            let middle = new + (old - new) / 2;
            match self.cycle(middle)? == last {
                true => old = middle,
                false => new = middle,
            }
        }
        Ok(old)
    }

    /// Whether the record that ends at `head` says that `uuid` was unmounted.
    fn ends_unmounted(&self, head: u64, uuid: &[u8; 16]) -> Result<bool, Obstacle> {
        for back in 1..=RECORD_BLOCKS_MAX.min(self.blocks) {
            let number = (head + self.blocks - back) % self.blocks;
            let block = self.block(number)?;
            let fields = Fields(&block);
            if fields.be32(0) != RECORD_MAGIC {
                continue;
            }
            let (version, length, span) = (fields.be32(8), fields.be32(12), fields.be32(320));
            let headers = match version & VERSION_2 {
                0 => 1,
                _ => u64::from(span.div_ceil(HEADER_SPAN).max(1)),
            };
            let ends_here = headers + u64::from(length).div_ceil(BLOCK_BYTES) == back;
            let operation = self.block(number + headers)?;
            return Ok(ends_here
                && length <= RECORD_BYTES_MAX
                && fields.be32(40) == 1
                && fields.bytes(304, 16) == uuid
                && operation[9] & UNMOUNT != 0);
        }
        Ok(false)
    }
}
