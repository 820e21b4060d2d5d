//! Disks that are kept in chunks of one size, each somewhere in a file or nowhere: the common
//! part of VMDK, VHDX and VHD.

use std::io;

use crate::read_at::ReadAt;
use crate::source::medium::{Extract, Medium};

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it is zeros.
    Zero,
    /// As it is, from this byte of the file on.
    At(u64),
    /// Compressed, from this byte of the file on.
    Packed(u64),
}

/// The map of a disk.
pub(super) trait Chunks: Send + Sync {
    /// Bytes of the disk.
    fn raw_bytes(&self) -> u64;

    /// Bytes of a chunk; the last may go beyond the disk.
    fn chunk_bytes(&self) -> u64;

    /// Where chunk `index` is.
    fn place(&self, index: u64) -> io::Result<Place>;

    /// The file the chunks are in.
    fn file(&self) -> &Extract;

    /// Fills `buffer` from byte `within` of the compressed chunk `index` at `at`.
    fn unpack(&self, _index: u64, _at: u64, _within: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("chunks of this format are not compressed"))
    }
}

/// A disk read through its map.
pub(super) struct Mapped<C>(pub(super) C);

impl<C: Chunks> ReadAt for Mapped<C> {
    fn raw_bytes(&self) -> u64 {
        self.0.raw_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        end.filter(|&end| end <= self.0.raw_bytes())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let chunk_bytes = self.0.chunk_bytes();
        let (mut offset, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let (index, within) = (offset / chunk_bytes, offset % chunk_bytes);
            let count = (chunk_bytes - within).min(rest.len() as u64) as usize;
            let (part, tail) = rest.split_at_mut(count);
            match self.0.place(index)? {
                Place::Zero => part.fill(0),
                Place::At(at) => {
                    let at = at.checked_add(within).ok_or(io::ErrorKind::UnexpectedEof)?;
                    self.0.file().read_exact_at(at, part)?;
                }
                Place::Packed(at) => self.0.unpack(index, at, within, part)?,
            }
            offset += count as u64;
            rest = tail;
        }
        Ok(())
    }
}

impl<C: Chunks> Medium for Mapped<C> {
    fn is_hole(&self, offset: u64, bytes: u64) -> bool {
        let chunk_bytes = self.0.chunk_bytes();
        let last = offset.saturating_add(bytes.max(1) - 1) / chunk_bytes;
        (offset / chunk_bytes..=last).all(|index| matches!(self.0.place(index), Ok(Place::Zero)))
    }
}

/// Media one after another.
pub(super) struct Concatenated {
    parts: Vec<(u64, Box<dyn Medium>)>,
    bytes: u64,
}

impl Concatenated {
    pub(super) fn new() -> Concatenated {
        Concatenated {
            parts: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a part that is not empty; false when the disk would be larger than any.
    pub(super) fn push(&mut self, part: Box<dyn Medium>) -> bool {
        let start = self.bytes;
        let Some(end) = start.checked_add(part.raw_bytes()) else {
            return false;
        };
        self.parts.push((start, part));
        self.bytes = end;
        end < i64::MAX as u64
    }

    /// Each part with a piece of `offset..offset + bytes`: the part, the place in it, how much.
    fn pieces(&self, offset: u64, bytes: u64) -> impl Iterator<Item = (&dyn Medium, u64, u64)> {
        let end = offset.saturating_add(bytes);
        let first = self
            .parts
            .partition_point(|(start, part)| start + part.raw_bytes() <= offset);
        self.parts[first..]
            .iter()
            .take_while(move |(start, _)| *start < end)
            .map(move |(start, part)| {
                let from = offset.max(*start);
                let to = end.min(start + part.raw_bytes());
                (&**part, from - start, to - from)
            })
    }
}

impl ReadAt for Concatenated {
    fn raw_bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        end.filter(|&end| end <= self.bytes)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut rest = &mut buffer[..];
        for (part, place, bytes) in self.pieces(offset, rest.len() as u64) {
            let (piece, tail) = rest.split_at_mut(bytes as usize);
            part.read_exact_at(place, piece)?;
            rest = tail;
        }
        Ok(())
    }
}

impl Medium for Concatenated {
    fn is_hole(&self, offset: u64, bytes: u64) -> bool {
        self.pieces(offset, bytes)
            .all(|(part, place, bytes)| part.is_hole(place, bytes))
    }
}

/// A disk, or a part of one, with nothing in it.
pub(super) struct Nothing(pub(super) u64);

impl ReadAt for Nothing {
    fn raw_bytes(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        end.filter(|&end| end <= self.0)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.fill(0);
        Ok(())
    }
}

impl Medium for Nothing {
    fn is_hole(&self, _offset: u64, _bytes: u64) -> bool {
        true
    }
}
