//! What a reader of a file system may say: what is free, or why that cannot be told.
//!
//! A reader proves; it never guesses. What contradicts itself or has a feature of unknown meaning
//! is [`Obstacle::Unknown`] and kept whole. What would be useless or wrong once restored is
//! [`Obstacle::Unsafe`]: a person decides.

use std::io;
use std::ops::Range;

use crate::extent::UNIT_BYTES;
use crate::read_at::ReadAt;
use crate::scan::witness::Witness;

/// Most free ranges kept of a volume; beyond, the smallest count as used. 32 MiB of memory.
const RANGES_MAX: usize = 1 << 20;

/// Tells the free space of the volume it is given, which begins with the signature it stands
/// beside. Reads metadata only; its time and memory follow from bounds with names, and from
/// checked sizes of the metadata. Nothing that it reads may be free: once restored, the volume
/// must read the same.
pub(super) type FreeReader = fn(&dyn ReadAt) -> Result<Free, Obstacle>;

/// Why the free space of a volume is not left out.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It cannot be told: all is kept. The reason, as in "is kept whole: *its bitmap is damaged*".
    Unknown(String),
    /// It should not be captured as it is, unless somebody asks for every byte of it.
    Unsafe {
        /// What was found, as in "*Windows is hibernated on it*".
        found: String,
        /// What to do, as an order.
        remedy: String,
    },
    /// The disk failed.
    Read(io::Error),
}

impl Obstacle {
    pub(super) fn unknown(reason: impl Into<String>) -> Obstacle {
        Obstacle::Unknown(reason.into())
    }

    pub(super) fn unsafe_until(remedy: impl Into<String>, found: impl Into<String>) -> Obstacle {
        let (found, remedy) = (found.into(), remedy.into());
        Obstacle::Unsafe { found, remedy }
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Obstacle {
        match error.kind() {
            // Not the disk: its metadata point to where nothing is.
            io::ErrorKind::UnexpectedEof => Obstacle::unknown("its structures lie beyond its end"),
            _ => Obstacle::Read(error),
        }
    }
}

/// What is proved free on a volume, bytes from its start.
#[derive(Debug, Default)]
pub(super) struct Free {
    ranges: Vec<Range<u64>>,
    /// A label that does not lie beside the signature.
    pub(super) label: Option<String>,
    /// What a person should know, in clauses: "the contents of pagefile.sys are left out".
    pub(super) notes: Vec<String>,
}

/// Asks `reader`, and believes it as far as it does not contradict itself.
pub(super) fn prove(reader: FreeReader, volume: &dyn ReadAt) -> Result<Proof, Obstacle> {
    let witness = Witness::new(volume);
    let Free {
        ranges,
        label,
        notes,
    } = reader(&witness)?;
    let free = in_order(ranges, volume.raw_bytes())?;
    if witness.saw(&free) {
        return Err(Obstacle::unknown(
            "it calls free where its own structures lie",
        ));
    }
    Ok(Proof { free, label, notes })
}

/// What is known of the free space of a volume.
#[derive(Debug)]
pub(super) struct Proof {
    /// Bytes from its start: in order, apart, within it.
    pub(super) free: Vec<Range<u64>>,
    pub(super) label: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Free {
    /// Adds a range, in any order, that no other overlaps.
    pub(super) fn push(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => {
                if self.ranges.len() == RANGES_MAX {
                    drop_smallest(&mut self.ranges, RANGES_MAX / 2);
                }
                self.ranges.push(range);
            }
        }
    }
}

/// `ranges` in order and joined; or that they overlap, or leave a volume of `bytes`.
fn in_order(mut ranges: Vec<Range<u64>>, bytes: u64) -> Result<Vec<Range<u64>>, Obstacle> {
    ranges.sort_by_key(|range| range.start);
    let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let inside = ranges.last().is_none_or(|last| last.end <= bytes);
    if !apart || !inside {
        return Err(Obstacle::unknown(
            "its free ranges overlap or lie beyond its end",
        ));
    }
    ranges.dedup_by(|next, last| {
        let touches = last.end == next.start;
        if touches {
            last.end = next.end;
        }
        touches
    });
    Ok(ranges)
}

/// Forgets the smallest of `ranges` until at most `most` are left. A free range that is forgotten
/// counts as used, which is never wrong.
pub(super) fn drop_smallest(ranges: &mut Vec<Range<u64>>, most: usize) {
    let mut smallest = UNIT_BYTES;
    while ranges.len() > most {
        smallest = smallest.saturating_mul(2);
        ranges.retain(|range| range.end - range.start >= smallest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_out_in_order_and_joined() {
        let mut free = Free::default();
        for range in [50..60, 60..70, 10..20, 5..5, 20..30] {
            free.push(range);
        }
        assert_eq!(in_order(free.ranges, 70).unwrap(), [10..30, 50..70]);
    }

    #[test]
    fn ranges_that_overlap_or_leave_the_volume_prove_nothing() {
        for ranges in [[0..10, 9..20], [0..10, 90..101]] {
            let mut free = Free::default();
            ranges.into_iter().for_each(|range| free.push(range));
            assert!(matches!(
                in_order(free.ranges, 100),
                Err(Obstacle::Unknown(_))
            ));
        }
    }

    #[test]
    fn what_was_read_is_not_free() {
        let volume = vec![0u8; 8192];
        let reader: FreeReader = |volume| {
            volume.read_exact_at(4090, &mut [0; 10])?;
            let mut free = Free::default();
            free.push(4096..8192);
            Ok(free)
        };
        let said = prove(reader, &crate::testing::Memory(&volume));
        assert!(matches!(said, Err(Obstacle::Unknown(_))));
    }

    #[test]
    fn of_too_many_ranges_the_largest_stay() {
        let mut free = Free::default();
        free.push(0..1 << 30);
        for index in 0..3 * RANGES_MAX as u64 {
            let start = (1 << 31) + index * 2 * UNIT_BYTES;
            free.push(start..start + UNIT_BYTES);
        }
        let ranges = in_order(free.ranges, u64::MAX).unwrap();
        assert!(ranges.len() <= RANGES_MAX);
        assert_eq!(ranges[0], 0..1 << 30);
    }
}
