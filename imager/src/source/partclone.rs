//! Partclone files: one file system, its used blocks only, front to back.
//!
//! ```text
//!   header │ map: a bit (0002) or a byte (0001) for each block │ blocks … checksum … blocks …
//! ```
//!
//! Format after `IMAGE_FORMATS.md` of partclone. The map may be large and its claims false, so it
//! goes to a spool file of its own and is read along with the blocks: memory does not depend on
//! what a header says.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use crate::source::fault::Fault;
use crate::source::partclone::checksum::{Checksum, CrcState};
use crate::source::partclone::header::{Header, Map};
use crate::source::spool::{Spool, Workshop, read_full};

mod checksum;
mod header;
#[cfg(test)]
mod tests;

/// What a partclone file begins with.
pub(super) const MAGIC: &[u8] = b"partclone-image";

/// What ends the map of format 0001.
const MAP_END: &[u8; 8] = b"BiTmAgIc";
/// Bytes read ahead, and of blocks kept before they are written.
const RUN_BYTES: usize = 1 << 20;
/// Blocks between two looks at the stop flag.
const STEP_BLOCKS: u64 = 2048;
/// Stray bytes behind a checksum of format 0001 that was written on a 64-bit machine.
const STRAY_BYTES: usize = 4;

/// How far a source is read.
pub(super) struct Progress<'a> {
    /// Bytes read so far.
    pub(super) read_bytes: &'a dyn Fn() -> u64,
    /// Bytes there are.
    pub(super) total_bytes: u64,
}

/// Writes the file system that `reader` holds into `spool` from `start` on; gives its size, which
/// is at most `room`.
///
/// # Errors
/// When it is damaged, cut short, or larger than `room`.
pub(super) fn restore(
    reader: &mut dyn Read,
    spool: &Spool,
    start: u64,
    room: u64,
    progress: &Progress,
    workshop: &mut Workshop,
) -> Result<u64, Fault> {
    let reader = BufReader::with_capacity(RUN_BYTES, reader);
    let mut input = Input { reader, progress };
    let header = Header::read(&mut input)?;
    let (bytes, block_bytes) = (header.device_bytes, u64::from(header.block_bytes));
    if bytes > room {
        return Err(Fault::refuse(format!(
            "its file system has {bytes} bytes, there is room for {room}"
        )));
    }
    let mut map = BlockMap::read(&mut input, &header, workshop)?;
    let mut strips = Strips::new(&header);
    let mut run = Run {
        spool,
        place: start,
        bytes: Vec::with_capacity(RUN_BYTES),
    };
    let mut block = vec![0; header.block_bytes as usize];
    let mut left = map.used;
    for index in 0..header.blocks {
        if map.next()? {
            left -= 1;
            strips.read(&mut input, &mut block, left == 0)?;
            run.push(start + index * block_bytes, &block)?;
        }
        if index % STEP_BLOCKS == 0 || left == 0 {
            workshop.step((progress.read_bytes)(), progress.total_bytes)?;
        }
        if left == 0 {
            break;
        }
    }
    run.flush()?;
    Ok(bytes)
}

/// The image as a stream, whose errors say where.
struct Input<'r, 'p> {
    reader: BufReader<&'r mut dyn Read>,
    progress: &'p Progress<'p>,
}

impl Input<'_, '_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        match read_full(&mut self.reader, buffer) {
            Ok(count) if count == buffer.len() => Ok(()),
            Ok(_) => Err(self.refuse("it ends too early: the file is cut short")),
            Err(error) => Err(Fault::decoding((self.progress.read_bytes)(), error)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn refuse(&self, reason: impl Into<String>) -> Fault {
        Fault::at((self.progress.read_bytes)(), reason)
    }
}

/// Which blocks are in the image, in order.
struct BlockMap {
    kind: Map,
    used: u64,
    stored: BufReader<File>,
    bits: u8,
    position: u64,
}

impl BlockMap {
    /// Takes the map off the input into a spool file of its own.
    fn read(
        input: &mut Input,
        header: &Header,
        workshop: &mut Workshop,
    ) -> Result<BlockMap, Fault> {
        let bytes = match header.map {
            Map::Whole => 0,
            Map::Bits => header.blocks.div_ceil(8),
            Map::Bytes => header.blocks,
        };
        let spool = workshop.spool()?;
        let mut used = match header.map {
            Map::Whole => header.blocks,
            _ => 0,
        };
        let mut crc = CrcState::default();
        let mut buffer = vec![0; RUN_BYTES];
        let mut place = 0;
        while place < bytes {
            let count = (bytes - place).min(RUN_BYTES as u64) as usize;
            let piece = &mut buffer[..count];
            input.fill(piece)?;
            crc.update(piece);
            if header.map == Map::Bits && place + count as u64 == bytes {
                // Bits behind the last block mean nothing.
                piece[count - 1] &= 0xff >> (bytes * 8 - header.blocks);
            }
            used += match header.map {
                Map::Bits => piece.iter().map(|byte| u64::from(byte.count_ones())).sum(),
                _ => piece.iter().filter(|&&byte| byte == 1).count() as u64,
            };
            spool.write(place, piece)?;
            place += count as u64;
            let progress = input.progress;
            workshop.step((progress.read_bytes)(), progress.total_bytes)?;
        }
        match header.map {
            Map::Bits if u32::from_le_bytes(input.array()?) != crc.value() => {
                return Err(input.refuse("the checksum of its block map is wrong"));
            }
            Map::Bytes if &input.array()? != MAP_END => {
                return Err(input.refuse("its block map does not end where it should"));
            }
            _ => {}
        }
        let mut file = spool.into_file(bytes)?;
        file.seek(SeekFrom::Start(0)).map_err(Fault::Spool)?;
        Ok(BlockMap {
            kind: header.map,
            used,
            stored: BufReader::with_capacity(RUN_BYTES, file),
            bits: 0,
            position: 0,
        })
    }

    /// Whether the next block is in the image.
    fn next(&mut self) -> Result<bool, Fault> {
        let stored = &mut self.stored;
        let mut byte = || {
            let mut byte = [0];
            let read = stored.read_exact(&mut byte);
            read.map(|()| byte[0]).map_err(Fault::Spool)
        };
        let used = match self.kind {
            Map::Whole => true,
            Map::Bytes => byte()? == 1,
            Map::Bits => {
                if self.position.is_multiple_of(8) {
                    self.bits = byte()?;
                }
                self.bits >> (self.position % 8) & 1 == 1
            }
        };
        self.position += 1;
        Ok(used)
    }
}

/// Reads blocks and checks the checksum behind each strip of them.
struct Strips {
    checksum: Checksum,
    blocks_per_strip: u32,
    reseed: bool,
    blocks: u32,
    /// Whether stray bytes follow each checksum; the second block tells.
    stray: Option<bool>,
    first: bool,
}

impl Strips {
    fn new(header: &Header) -> Strips {
        Strips {
            checksum: header.checksum.start(),
            blocks_per_strip: header.blocks_per_strip,
            reseed: header.reseed,
            blocks: 0,
            stray: (!header.may_stray).then_some(false),
            first: true,
        }
    }

    fn read(&mut self, input: &mut Input, block: &mut [u8], last: bool) -> Result<(), Fault> {
        if self.stray == Some(true) {
            input.array::<STRAY_BYTES>()?;
        }
        input.fill(block)?;
        if self.blocks_per_strip == 0 {
            return Ok(());
        }
        let before = (self.stray.is_none() && !self.first).then(|| self.checksum.clone());
        self.checksum.update(block);
        self.blocks += 1;
        if self.blocks < self.blocks_per_strip && !last {
            return Ok(());
        }
        let mut stored = self.checksum.value();
        input.fill(&mut stored)?;
        let mut right = stored == self.checksum.value();
        if let Some(before) = before {
            self.stray = Some(!right);
            if !right {
                // What was taken for the block began with the stray bytes.
                block.rotate_left(STRAY_BYTES);
                let tail = block.len() - STRAY_BYTES;
                block[tail..].copy_from_slice(&stored);
                self.checksum = before;
                self.checksum.update(block);
                input.fill(&mut stored)?;
                right = stored == self.checksum.value();
            }
        }
        if !right {
            return Err(input.refuse("the checksum of its data is wrong"));
        }
        self.first = false;
        self.blocks = 0;
        if self.reseed {
            self.checksum.reset();
        }
        Ok(())
    }
}

/// Neighbouring blocks, written together.
struct Run<'a> {
    spool: &'a Spool,
    place: u64,
    bytes: Vec<u8>,
}

impl Run<'_> {
    fn push(&mut self, place: u64, block: &[u8]) -> Result<(), Fault> {
        let follows = self.place + self.bytes.len() as u64 == place;
        if !follows || self.bytes.len() + block.len() > RUN_BYTES {
            self.flush()?;
            self.place = place;
        }
        self.bytes.extend_from_slice(block);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.spool.write(self.place, &self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}
