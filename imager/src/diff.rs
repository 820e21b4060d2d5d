//! What a machine that has one image would need to become another.

use serde::Serialize;

use crate::id::{FrameId, ImageId};
use crate::manifest::Manifest;

/// How two images differ. Told from their manifests alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The first image.
    pub from: ImageId,
    /// The second image.
    pub to: ImageId,
    /// Size of the first disk, bytes.
    pub from_raw_bytes: u64,
    /// Size of the second disk, bytes.
    pub to_raw_bytes: u64,
    /// Whether the partition tables differ.
    pub tables_differ: bool,
    /// Frames of the second image that the first has at the same place.
    pub same_frames: u32,
    /// Frames of the second image that the first has not.
    pub changed_frames: u32,
    /// Of these, how many would have to be sent; the others are zeros.
    pub sent_frames: u32,
    /// What sending them takes, bytes of compressed data.
    pub sent_bytes: u64,
    /// The changed parts of the second disk, in order.
    pub changed: Vec<ChangedRange>,
}

/// A changed part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedRange {
    /// Where it begins on the raw disk, bytes.
    pub offset: u64,
    /// How long it is, bytes: whole frames.
    pub bytes: u64,
}

/// Compares two images, place by place.
pub fn diff(from: &Manifest, to: &Manifest) -> Diff {
    let mut found = Diff {
        from: from.id(),
        to: to.id(),
        from_raw_bytes: from.raw_bytes(),
        to_raw_bytes: to.raw_bytes(),
        tables_differ: from.tables() != to.tables(),
        same_frames: 0,
        changed_frames: 0,
        sent_frames: 0,
        sent_bytes: 0,
        changed: Vec::new(),
    };
    for frame in (0..to.frame_count()).map(FrameId) {
        let range = to.frame_range(frame);
        let same = frame.0 < from.frame_count()
            && from.frame_range(frame) == range
            && from.hash(frame) == to.hash(frame);
        if same {
            found.same_frames += 1;
            continue;
        }
        found.changed_frames += 1;
        if to.is_sent(frame) {
            found.sent_frames += 1;
            found.sent_bytes += u64::from(to.stored_bytes(frame));
        }
        match found.changed.last_mut() {
            Some(last) if last.offset + last.bytes == range.start => {
                last.bytes += range.end - range.start
            }
            _ => found.changed.push(ChangedRange {
                offset: range.start,
                bytes: range.end - range.start,
            }),
        }
    }
    found
}
