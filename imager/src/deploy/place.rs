//! Where a disk differs from an image, as people speak of it: by partition.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::deploy::audit::Audit;
use crate::id::FrameId;
use crate::manifest::Manifest;

/// How much differs in one partition, or outside of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the partition; `None` for what lies outside.
    pub partition: Option<u32>,
    /// Its file system in the image.
    pub fs: String,
    /// The label of that.
    pub label: String,
    /// Frames that differ.
    pub differing_frames: u64,
    /// How many bytes these are.
    pub differing_bytes: u64,
    /// Where the first of them begins on the disk; `None` when nothing differs.
    pub first_offset: Option<u64>,
}

impl Place {
    fn of(manifest: &Manifest, frames: impl Iterator<Item = FrameId>) -> Place {
        let mut place = Place {
            partition: None,
            fs: String::new(),
            label: String::new(),
            differing_frames: 0,
            differing_bytes: 0,
            first_offset: None,
        };
        for frame in frames {
            let Range { start, end } = manifest.frame_range(frame);
            place.differing_frames += 1;
            place.differing_bytes += end - start;
            place.first_offset.get_or_insert(start);
        }
        place
    }
}

impl Audit {
    /// Bytes of the frames that differ.
    pub fn differing_bytes(&self, manifest: &Manifest) -> u64 {
        Place::of(manifest, self.differing.iter().copied()).differing_bytes
    }

    /// What differs in each partition of the image, equal ones included, and then what does outside of all, if
    /// anything. A frame that two partitions share counts in both.
    pub fn places(&self, manifest: &Manifest) -> Vec<Place> {
        let touches = |frame: FrameId, place: &Range<u64>| {
            let range = manifest.frame_range(frame);
            range.start < place.end && place.start < range.end
        };
        let partitions = manifest.partitions();
        let mut places: Vec<Place> = partitions
            .iter()
            .map(|partition| {
                let within = partition.start_bytes..partition.end_bytes();
                let frames = self.differing.iter().copied();
                Place {
                    partition: Some(partition.number),
                    fs: partition.fs.clone(),
                    label: partition.label.clone(),
                    ..Place::of(manifest, frames.filter(|frame| touches(*frame, &within)))
                }
            })
            .collect();
        let outside = self.differing.iter().copied().filter(|frame| {
            !partitions
                .iter()
                .any(|partition| touches(*frame, &(partition.start_bytes..partition.end_bytes())))
        });
        let outside = Place::of(manifest, outside);
        places.extend((outside.differing_frames > 0).then_some(outside));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{ExtentKind, Extents};
    use crate::manifest::{FRAME_BYTES, ManifestParts};
    use crate::partition::Partition;
    use crate::tables::Tables;

    const MIB: u64 = FRAME_BYTES as u64;
    const FRAMES: usize = 6;

    fn partition(number: u32, range: Range<u64>) -> Partition {
        Partition {
            number,
            start_bytes: range.start,
            bytes: range.end - range.start,
            ..Partition::default()
        }
    }

    #[test]
    fn a_difference_is_told_by_its_partition_and_outside_of_all() {
        let mut extents = Extents::new();
        extents.push(ExtentKind::Used, FRAMES as u64 * MIB);
        let manifest = Manifest::new(&ManifestParts {
            sector_bytes: 512,
            created: 0,
            min_target_bytes: FRAMES as u64 * MIB,
            parent: None,
            note: String::new(),
            extents,
            stored_bytes: vec![20; FRAMES],
            hashes: vec![[0; 32]; FRAMES],
            tables: Tables {
                sector_bytes: 512,
                ..Tables::default()
            },
            partitions: vec![
                partition(1, MIB..4 * MIB),
                partition(5, 4 * MIB - 512..5 * MIB),
                partition(6, 5 * MIB..6 * MIB),
            ],
        })
        .unwrap();
        let audit = Audit {
            right_frames: 3,
            differing: [0, 3, 4].map(FrameId).to_vec(),
            tables_right: true,
            complete: true,
        };
        assert_eq!(audit.differing_bytes(&manifest), 3 * MIB);
        let found: Vec<_> = audit
            .places(&manifest)
            .iter()
            .map(|place| (place.partition, place.differing_frames, place.first_offset))
            .collect();
        let expected = [
            (Some(1), 1, Some(3 * MIB)),
            (Some(5), 2, Some(3 * MIB)),
            (Some(6), 0, None),
            (None, 1, Some(0)),
        ];
        assert_eq!(found, expected);
    }
}
