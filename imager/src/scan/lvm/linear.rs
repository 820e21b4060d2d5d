//! A linear logical volume, read as if it were a disk.

use std::io;
use std::ops::Range;

use crate::read_at::ReadAt;

/// A logical volume over the pieces of a physical one.
pub(super) struct Linear<'a> {
    physical: &'a dyn ReadAt,
    /// Where each piece begins in the logical volume, and where it lies; in order, without gaps.
    pieces: Vec<(u64, Range<u64>)>,
    bytes: u64,
}

impl<'a> Linear<'a> {
    /// The volume that `pieces` of `physical`, one behind the other, are.
    pub(super) fn new(physical: &'a dyn ReadAt, pieces: &[Range<u64>]) -> Linear<'a> {
        let mut bytes = 0;
        let pieces = pieces
            .iter()
            .map(|piece| {
                let start = bytes;
                bytes += piece.end - piece.start;
                (start, piece.clone())
            })
            .collect();
        Linear {
            physical,
            pieces,
            bytes,
        }
    }

    /// Where `logical`, a part of the volume, lies.
    pub(super) fn places(&self, logical: &Range<u64>) -> Vec<Range<u64>> {
        let first = self
            .pieces
            .partition_point(|(start, piece)| start + (piece.end - piece.start) <= logical.start);
        self.pieces[first..]
            .iter()
            .take_while(|(start, _)| *start < logical.end)
            .map(|(start, piece)| {
                let from = logical.start.max(*start) - start;
                let to = logical.end.min(start + (piece.end - piece.start)) - start;
                piece.start + from..piece.start + to
            })
            .collect()
    }
}

impl Linear<'_> {
    /// Fills `buffer` piece by piece.
    fn by_pieces(
        &self,
        offset: u64,
        buffer: &mut [u8],
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset
            .checked_add(buffer.len() as u64)
            .filter(|&end| end <= self.bytes)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut rest = buffer;
        for place in self.places(&(offset..end)) {
            let (piece, others) = rest.split_at_mut((place.end - place.start) as usize);
            read(place.start, piece)?;
            rest = others;
        }
        Ok(())
    }
}

impl ReadAt for Linear<'_> {
    fn raw_bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.by_pieces(offset, buffer, |place, piece| {
            self.physical.read_exact_at(place, piece)
        })
    }

    fn peek_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.by_pieces(offset, buffer, |place, piece| {
            self.physical.peek_exact_at(place, piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    #[test]
    fn pieces_read_as_one() {
        let physical: Vec<u8> = (0..100).collect();
        let memory = Memory(&physical);
        let linear = Linear::new(&memory, &[50..60, 10..20, 80..85]);
        let mut all = [0; 25];
        linear.read_exact_at(0, &mut all).unwrap();
        let expected: Vec<u8> = (50..60).chain(10..20).chain(80..85).collect();
        assert_eq!(all.to_vec(), expected);
        assert_eq!(linear.places(&(9..21)), [59..60, 10..20, 80..81]);
        assert!(linear.read_exact_at(20, &mut [0; 6]).is_err());
    }
}
