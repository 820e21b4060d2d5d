//! One frame on its way from the disk into the image.

use std::io::{self, Read};
use std::ops::Range;

use crate::device::AlignedBuffer;
use crate::extent::{ExtentKind, UNIT_BYTES};
use crate::manifest::FRAME_BYTES;
use crate::read_at::ReadAt;
use crate::seal::press::Press;
use crate::source::Disk;

/// Free space this long or shorter is read along with what lies around it: cheaper than a second read.
const GAP_BYTES: u64 = 64 << 10;
/// Reads begin and end at multiples of this, as reads past the page cache must.
const READ_STEP: u64 = 4096;

/// A frame; its buffers are used again.
pub(super) struct Piece {
    pub(super) index: u32,
    raw: AlignedBuffer,
    /// Bytes of `raw` that are the frame's: fewer than it holds in the disk's last frame.
    pub(super) raw_bytes: usize,
    /// Nothing but zeros and free space: `raw` was not touched and means nothing.
    blank: bool,
    /// The frame, compressed.
    pub(super) stored: Vec<u8>,
    /// What the frame is made of, in order.
    pub(super) runs: Vec<(ExtentKind, u64)>,
    /// Hash of the frame when it has a used byte.
    pub(super) hash: Option<[u8; 32]>,
}

impl Piece {
    pub(super) fn new() -> Piece {
        Piece {
            index: 0,
            raw: AlignedBuffer::new(FRAME_BYTES as usize),
            raw_bytes: 0,
            blank: false,
            stored: Vec::new(),
            runs: Vec::new(),
            hash: None,
        }
    }

    /// Where the frame begins on the disk.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.index) * u64::from(FRAME_BYTES)
    }

    /// Reads what is not free of frame `index` of `disk`, which has one.
    pub(super) fn read(
        &mut self,
        index: u32,
        disk: &Disk,
        free: &[Range<u64>],
    ) -> Result<(), (u64, io::Error)> {
        self.index = index;
        let offset = self.offset();
        let length = (disk.raw_bytes() - offset).min(u64::from(FRAME_BYTES));
        self.raw_bytes = length as usize;
        let frame = offset..offset + length;
        self.blank =
            free_within(free, &frame).any(|range| range == frame) || disk.is_hole(offset, length);
        if self.blank {
            return Ok(());
        }
        for range in reads(free, &frame) {
            let place = (range.start - offset) as usize..(range.end - offset) as usize;
            disk.read_exact_at(range.start, &mut self.raw[place])
                .map_err(|error| (range.start, error))?;
        }
        Ok(())
    }

    /// Takes the next frame, `index`, of a stream; it has no bytes when the stream is over.
    pub(super) fn take(
        &mut self,
        index: u32,
        stream: &mut (dyn Read + Send),
    ) -> Result<(), (u64, io::Error)> {
        self.index = index;
        self.blank = false;
        self.raw_bytes = 0;
        while self.raw_bytes < self.raw.len() {
            match stream.read(&mut self.raw[self.raw_bytes..]) {
                Ok(0) => break,
                Ok(count) => self.raw_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((self.offset() + self.raw_bytes as u64, error)),
            }
        }
        Ok(())
    }

    /// Finds out what the frame is made of, puts zeros into its free units, hashes, compresses.
    pub(super) fn press(&mut self, free: &[Range<u64>], press: &mut Press) -> io::Result<()> {
        let start = self.offset();
        let end = start + self.raw_bytes as u64;
        let raw = &mut self.raw[..self.raw_bytes];
        self.runs.clear();
        let mut ahead = free_within(free, &(start..end)).peekable();
        for (unit, offset) in raw
            .chunks(UNIT_BYTES as usize)
            .zip((start..).step_by(UNIT_BYTES as usize))
        {
            while ahead.next_if(|range| range.end <= offset).is_some() {}
            let kind = if ahead.peek().is_some_and(|range| range.start <= offset) {
                ExtentKind::Free
            } else if self.blank || is_zero(unit) {
                ExtentKind::Zero
            } else {
                ExtentKind::Used
            };
            match self.runs.last_mut() {
                Some((last, bytes)) if *last == kind => *bytes += unit.len() as u64,
                _ => self.runs.push((kind, unit.len() as u64)),
            }
        }
        if !self.runs.iter().any(|(kind, _)| *kind == ExtentKind::Used) {
            self.hash = None;
            return press.zeros(raw.len(), &mut self.stored);
        }
        for range in free_within(free, &(start..end)) {
            raw[(range.start - start) as usize..(range.end - start) as usize].fill(0);
        }
        self.hash = Some(*blake3::hash(raw).as_bytes());
        press.press(raw, &mut self.stored)
    }
}

/// What of `frame` is to be read: all but the free space that is worth leaving out.
fn reads(free: &[Range<u64>], frame: &Range<u64>) -> Vec<Range<u64>> {
    let mut reads = Vec::new();
    let mut from = frame.start;
    for gap in free_within(free, frame) {
        // Rounded inwards: a read that begins and ends at a step touches a little of the free space.
        let gap = gap.start.next_multiple_of(READ_STEP)..gap.end / READ_STEP * READ_STEP;
        if gap.end.saturating_sub(gap.start) <= GAP_BYTES {
            continue;
        }
        if from < gap.start {
            reads.push(from..gap.start);
        }
        from = gap.end;
    }
    if from < frame.end {
        reads.push(from..frame.end);
    }
    reads
}

/// The free ranges within `frame`, cut at its ends.
fn free_within<'a>(
    free: &'a [Range<u64>],
    frame: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let Range { start, end } = *frame;
    let first = free.partition_point(|range| range.end <= start);
    free[first..]
        .iter()
        .take_while(move |range| range.start < end)
        .map(move |range| range.start.max(start)..range.end.min(end))
}

fn is_zero(unit: &[u8]) -> bool {
    static ZEROS: [u8; UNIT_BYTES as usize] = [0; UNIT_BYTES as usize];
    unit == &ZEROS[..unit.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const FRAME: u64 = FRAME_BYTES as u64;

    /// What is read of the second frame, in bytes from its beginning, when these are free.
    fn read_when_free(free: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let free: Vec<Range<u64>> = free
            .iter()
            .map(|(from, to)| FRAME + from..FRAME + to)
            .collect();
        reads(&free, &(FRAME..2 * FRAME))
            .into_iter()
            .map(|range| (range.start - FRAME, range.end - FRAME))
            .collect()
    }

    #[test]
    fn free_space_is_left_out_of_the_reads_where_it_is_worth_it() {
        assert_eq!(read_when_free(&[]), [(0, FRAME)]);
        assert_eq!(read_when_free(&[(8 * KIB, 72 * KIB)]), [(0, FRAME)]);
        assert_eq!(
            read_when_free(&[(0, 104 * KIB), (900 * KIB, 5000 * KIB)]),
            [(104 * KIB, 900 * KIB)]
        );
        let odd = (100 * KIB + 512, 200 * KIB + 512);
        assert_eq!(
            read_when_free(&[odd, (300 * KIB, FRAME)]),
            [(0, 104 * KIB), (200 * KIB, 300 * KIB)]
        );
    }

    #[test]
    fn nothing_is_read_of_a_frame_that_is_free() {
        assert_eq!(read_when_free(&[(0, FRAME)]), []);
    }
}
