//! What a reader read: none of it may be called free by what it concludes.

use std::cell::RefCell;
use std::io;
use std::ops::Range;

use crate::read_at::ReadAt;

/// Most ranges remembered, 16 MiB of memory; of what is read beyond, nothing is known.
const RANGES_MAX: usize = 1 << 20;
const RANGES_MIN: usize = 1 << 10;

/// A volume that remembers where it was read.
pub(super) struct Witness<'a> {
    volume: &'a dyn ReadAt,
    seen: RefCell<Seen>,
}

struct Seen {
    ranges: Vec<Range<u64>>,
    /// How many ranges there may be before neighbours are joined.
    limit: usize,
}

impl<'a> Witness<'a> {
    pub(super) fn new(volume: &'a dyn ReadAt) -> Witness<'a> {
        let (ranges, limit) = (Vec::new(), RANGES_MIN);
        Witness {
            volume,
            seen: RefCell::new(Seen { ranges, limit }),
        }
    }

    /// Whether a byte of `free`, in order and apart, was read.
    pub(super) fn saw(&self, free: &[Range<u64>]) -> bool {
        self.seen.borrow().ranges.iter().any(|read| {
            let next = free.partition_point(|range| range.end <= read.start);
            free.get(next).is_some_and(|range| range.start < read.end)
        })
    }
}

impl ReadAt for Witness<'_> {
    fn raw_bytes(&self) -> u64 {
        self.volume.raw_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.volume.read_exact_at(offset, buffer)?;
        self.seen
            .borrow_mut()
            .add(offset..offset + buffer.len() as u64);
        Ok(())
    }

    fn peek_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.volume.peek_exact_at(offset, buffer)
    }
}

impl Seen {
    fn add(&mut self, range: Range<u64>) {
        if let Some(last) = self.ranges.last_mut()
            && last.start <= range.start
            && range.start <= last.end
        {
            last.end = last.end.max(range.end);
            return;
        }
        if self.ranges.len() == self.limit {
            self.join();
            self.limit = (2 * self.ranges.len()).clamp(RANGES_MIN, RANGES_MAX);
        }
        if self.ranges.len() < self.limit {
            self.ranges.push(range);
        }
    }

    fn join(&mut self) {
        self.ranges.sort_by_key(|range| range.start);
        self.ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_that_was_read_is_remembered_and_no_other() {
        let volume = vec![0u8; 1 << 16];
        let memory = crate::testing::Memory(&volume);
        let witness = Witness::new(&memory);
        for index in 0..4 * RANGES_MIN as u64 {
            // In an order that joins nothing by itself.
            let place = index * 16 * 7919 % (1 << 16);
            witness.read_exact_at(place, &mut [0; 4]).unwrap();
        }
        assert!(witness.saw(&[1..2, 5..6]) && witness.saw(&[10..12, 19..20]));
        let between: Vec<_> = (0..4096)
            .map(|index| index * 16 + 4..index * 16 + 16)
            .collect();
        assert!(!witness.saw(&between));
        witness.peek_exact_at(4, &mut [0; 12]).unwrap();
        assert!(!witness.saw(&between));
    }
}
