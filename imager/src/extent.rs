//! What each part of the raw disk is: used, zero or free, as runs of 4 KiB units.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::bytes::{Malformed, Reader, Writer};

/// Size of the unit extents are counted in, bytes. A smaller hole counts as used.
pub const UNIT_BYTES: u64 = 4096;

const KIND_BITS: u32 = 2;

/// What a run of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExtentKind {
    /// Holds data that must be restored.
    Used,
    /// Must read as zero.
    Zero,
    /// Proved unallocated: whatever is there does not matter.
    Free,
}

impl ExtentKind {
    fn code(self) -> u64 {
        match self {
            ExtentKind::Used => 0,
            ExtentKind::Zero => 1,
            ExtentKind::Free => 2,
        }
    }

    fn from_code(code: u64) -> Option<ExtentKind> {
        [ExtentKind::Used, ExtentKind::Zero, ExtentKind::Free]
            .into_iter()
            .find(|k| k.code() == code)
    }
}

/// One run of the raw disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins on the raw disk, bytes.
    pub offset: u64,
    /// How long it is, bytes; never zero.
    pub bytes: u64,
    /// What it is.
    pub kind: ExtentKind,
}

impl Extent {
    /// Where it ends on the raw disk, bytes.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// All runs of a disk, in order and without a gap. Neighbours differ in kind, and every
/// run begins on a multiple of [`UNIT_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Extents {
    // Start in units, shifted, and the kind below: 8 bytes a run, as a big disk has millions.
    starts: Vec<u64>,
    raw_bytes: u64,
}

impl Extents {
    /// The extents of an empty disk, to be filled by [`Extents::push`].
    pub fn new() -> Extents {
        Extents::default()
    }

    /// Appends `bytes` of `kind`; joined with the last run when that is of the same kind.
    ///
    /// # Panics
    /// When a former run did not end on a multiple of [`UNIT_BYTES`]: only the last may.
    pub fn push(&mut self, kind: ExtentKind, bytes: u64) {
        assert!(
            self.raw_bytes.is_multiple_of(UNIT_BYTES),
            "only the last extent may end inside a unit"
        );
        if bytes == 0 {
            return;
        }
        if self.starts.last().is_none_or(|&last| kind_of(last) != kind) {
            self.starts
                .push((self.raw_bytes / UNIT_BYTES) << KIND_BITS | kind.code());
        }
        self.raw_bytes += bytes;
    }

    /// Size of the disk these extents cover, bytes.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// How many runs there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether the disk is empty.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Every run, in order.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        (0..self.starts.len()).map(|index| self.run(index))
    }

    /// The runs within `range` (bytes), cut at its ends.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        let first = self
            .starts
            .partition_point(|&start| start_of(start) <= range.start)
            .saturating_sub(1);
        (first..self.starts.len())
            .map(|index| self.run(index))
            .skip_while(move |run| run.end() <= range.start)
            .take_while(move |run| run.offset < range.end)
            .map(move |run| {
                let offset = run.offset.max(range.start);
                Extent {
                    offset,
                    bytes: run.end().min(range.end) - offset,
                    kind: run.kind,
                }
            })
    }

    /// Whether any byte of `range` is used.
    pub fn any_used(&self, range: Range<u64>) -> bool {
        self.within(range).any(|run| run.kind == ExtentKind::Used)
    }

    /// How many bytes of the disk are of `kind`.
    pub fn bytes_of(&self, kind: ExtentKind) -> u64 {
        self.iter()
            .filter(|run| run.kind == kind)
            .map(|run| run.bytes)
            .sum()
    }

    fn run(&self, index: usize) -> Extent {
        let offset = start_of(self.starts[index]);
        let end = self
            .starts
            .get(index + 1)
            .map_or(self.raw_bytes, |&next| start_of(next));
        Extent {
            offset,
            bytes: end - offset,
            kind: kind_of(self.starts[index]),
        }
    }

    /// Writes the number of runs and each run as `units << 2 | kind`.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.u32(self.starts.len() as u32);
        for run in self.iter() {
            writer.varint(run.bytes.div_ceil(UNIT_BYTES) << KIND_BITS | run.kind.code());
        }
    }

    /// Reads what [`Extents::write`] wrote, for a disk of `raw_bytes`; any other form is refused.
    pub(crate) fn read(reader: &mut Reader<'_>, raw_bytes: u64) -> Result<Extents, Malformed> {
        let count = reader.u32("number of extents")? as usize;
        if count > reader.left() {
            return Err(reader.refuse(4, format!("{count} extents in {} bytes", reader.left())));
        }
        let units = raw_bytes.div_ceil(UNIT_BYTES);
        let mut starts: Vec<u64> = Vec::with_capacity(count);
        let mut unit = 0u64;
        for _ in 0..count {
            let code = reader.varint("extent")?;
            let length = code >> KIND_BITS;
            let kind = ExtentKind::from_code(code & ((1 << KIND_BITS) - 1));
            let kind = kind.ok_or_else(|| reader.refuse(1, "extent of an unknown kind"))?;
            if starts.last().is_some_and(|&last| kind_of(last) == kind) {
                return Err(reader.refuse(1, "two neighbouring extents of one kind"));
            }
            if length == 0 || length > units - unit {
                return Err(reader.refuse(
                    1,
                    format!("extent of {length} units, {} left", units - unit),
                ));
            }
            starts.push(unit << KIND_BITS | kind.code());
            unit += length;
        }
        if unit != units {
            return Err(reader.refuse(0, format!("extents cover {unit} units of {units}")));
        }
        Ok(Extents { starts, raw_bytes })
    }
}

fn start_of(packed: u64) -> u64 {
    (packed >> KIND_BITS) * UNIT_BYTES
}

fn kind_of(packed: u64) -> ExtentKind {
    ExtentKind::from_code(packed & ((1 << KIND_BITS) - 1)).expect("packed from a kind")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_extents() -> impl Strategy<Value = Extents> {
        let kind = prop_oneof![
            Just(ExtentKind::Used),
            Just(ExtentKind::Zero),
            Just(ExtentKind::Free)
        ];
        (
            prop::collection::vec((kind, 1u64..600), 0..40),
            0u64..UNIT_BYTES,
        )
            .prop_map(|(runs, short)| {
                let mut extents = Extents::new();
                let last = runs.len().saturating_sub(1);
                for (index, (kind, units)) in runs.into_iter().enumerate() {
                    extents.push(
                        kind,
                        units * UNIT_BYTES - if index == last { short } else { 0 },
                    );
                }
                extents
            })
    }

    proptest! {
        #[test]
        fn the_codec_gives_the_extents_back(extents in any_extents()) {
            let mut writer = Writer::default();
            extents.write(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(Extents::read(&mut reader, extents.raw_bytes()), Ok(extents));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn within_agrees_with_looking_at_every_byte(extents in any_extents(), a in 0u64..4 << 20, b in 0u64..4 << 20) {
            let range = a.min(b)..a.max(b);
            let slow: Vec<Extent> = extents
                .iter()
                .filter_map(|run| {
                    let offset = run.offset.max(range.start);
                    let end = run.end().min(range.end);
                    (offset < end).then(|| Extent { offset, bytes: end - offset, kind: run.kind })
                })
                .collect();
            prop_assert_eq!(extents.within(range).collect::<Vec<_>>(), slow);
        }
    }
}
