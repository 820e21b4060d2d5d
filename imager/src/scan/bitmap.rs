//! An allocation map of one bit for each cluster, lowest bit first, set when the cluster is taken.

use std::ops::Range;

use crate::scan::volume::Obstacle;

/// How much of a map is in memory at a time, bytes.
const CHUNK_BYTES: u64 = 256 << 10;

/// A map that `read` fetches bytes of: from an offset, as many as the buffer holds.
pub(super) struct Bitmap<F> {
    read: F,
    bits: u64,
}

impl<F: Fn(u64, &mut [u8]) -> Result<(), Obstacle>> Bitmap<F> {
    pub(super) fn new(bits: u64, read: F) -> Bitmap<F> {
        Bitmap { read, bits }
    }

    /// Gives every run of clear bits to `emit`, in order and as long as can be.
    pub(super) fn clear(&self, emit: &mut dyn FnMut(Range<u64>)) -> Result<(), Obstacle> {
        let mut open: Option<u64> = None;
        self.bytes_of(0..self.bits, &mut |first, byte, valid| {
            match byte & valid {
                0 if open.is_some() && valid == 0xff => return true,
                taken if taken == valid && open.is_none() => return true,
                _ => {}
            }
            for bit in (0..8).filter(|bit| valid >> bit & 1 == 1) {
                let place = first + bit;
                if byte >> bit & 1 == 0 {
                    open.get_or_insert(place);
                } else if let Some(start) = open.take() {
                    emit(start..place);
                }
            }
            true
        })?;
        if let Some(start) = open {
            emit(start..self.bits);
        }
        Ok(())
    }

    /// Whether every bit of `range` is set; a bit beyond the end is not.
    pub(super) fn all_set(&self, range: &Range<u64>) -> Result<bool, Obstacle> {
        let mut all = range.end <= self.bits;
        if all {
            self.bytes_of(range.clone(), &mut |_, byte, valid| {
                all = byte & valid == valid;
                all
            })?;
        }
        Ok(all)
    }

    /// Gives every byte that `range` touches: the number of its lowest bit, the byte, and which of
    /// its bits belong to `range`; until `look` says that it has seen enough.
    fn bytes_of(
        &self,
        range: Range<u64>,
        look: &mut dyn FnMut(u64, u8, u8) -> bool,
    ) -> Result<(), Obstacle> {
        let (mut place, end) = (range.start / 8, range.end.div_ceil(8));
        let mut chunk = vec![0; CHUNK_BYTES.min(end.saturating_sub(place)) as usize];
        while place < end {
            let chunk_bytes = (end - place).min(CHUNK_BYTES) as usize;
            (self.read)(place, &mut chunk[..chunk_bytes])?;
            for (&byte, byte_number) in chunk[..chunk_bytes].iter().zip(place..) {
                let first = byte_number * 8;
                let below = range.start.saturating_sub(first).min(8);
                let above = (first + 8).saturating_sub(range.end).min(8);
                let valid = (0xffu32 << below & 0xff) as u8 & (0xffu32 >> above) as u8;
                if !look(first, byte, valid) {
                    return Ok(());
                }
            }
            place += chunk_bytes as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bitmap(bytes: &[u8], bits: u64) -> Bitmap<impl Fn(u64, &mut [u8]) -> Result<(), Obstacle>> {
        Bitmap::new(bits, |at: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&bytes[at as usize..][..buffer.len()]);
            Ok(())
        })
    }

    proptest! {
        #[test]
        fn the_runs_are_those_of_a_look_at_every_bit(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..60),
            spare in 0u64..8,
            from in 0u64..480,
            to in 0u64..480,
        ) {
            let bits = bytes.len() as u64 * 8 - spare;
            let is_set = |bit: u64| bytes[bit as usize / 8] >> (bit % 8) & 1 == 1;
            let mut slow: Vec<Range<u64>> = Vec::new();
            for bit in (0..bits).filter(|&bit| !is_set(bit)) {
                match slow.last_mut() {
                    Some(last) if last.end == bit => last.end += 1,
                    _ => slow.push(bit..bit + 1),
                }
            }
            let mut found = Vec::new();
            let map = bitmap(&bytes, bits);
            map.clear(&mut |range| found.push(range)).unwrap();
            prop_assert_eq!(found, slow);
            let range = from.min(to)..from.max(to);
            let all = range.end <= bits && range.clone().all(is_set);
            prop_assert_eq!(map.all_set(&range).unwrap(), all);
        }
    }

    #[test]
    fn a_map_of_many_chunks_is_read_to_its_end() {
        let mut bytes = vec![0xff; 3 * CHUNK_BYTES as usize + 5];
        let chunk = CHUNK_BYTES as usize;
        bytes[chunk - 1] = 0x7f;
        bytes[chunk] = 0xfe;
        bytes[3 * chunk + 4] = 0;
        let bits = bytes.len() as u64 * 8;
        let mut found = Vec::new();
        let map = bitmap(&bytes, bits);
        map.clear(&mut |range| found.push(range)).unwrap();
        let middle = CHUNK_BYTES * 8;
        assert_eq!(found, [middle - 1..middle + 1, bits - 8..bits]);
        assert!(map.all_set(&(middle + 1..bits - 8)).unwrap());
        assert!(!map.all_set(&(middle + 1..bits - 7)).unwrap());
    }
}
