//! What is left out when a frame is hashed or compared.

use std::ops::Range;

use crate::extent::{Extent, ExtentKind};
use crate::id::FrameId;
use crate::manifest::Manifest;

/// Puts zeros where the content of `frame` does not count: in its free runs and in the sectors of
/// partition tables. The hash in the manifest is taken of what results, and whoever reads a disk
/// back must mask in the same way before hashing.
///
/// `raw` is the content of the frame; what lies beyond its end is left alone.
///
/// # Panics
/// When the image has no such frame.
pub fn mask_frame(manifest: &Manifest, frame: FrameId, raw: &mut [u8]) {
    let range = manifest.frame_range(frame);
    mask(
        manifest.extents().within(range.clone()),
        manifest.masked(),
        range,
        raw,
    );
}

/// [`mask_frame`] before there is a manifest: `extents` and `tables` may reach beyond `range`.
pub(crate) fn mask(
    extents: impl Iterator<Item = Extent>,
    tables: &[Range<u64>],
    range: Range<u64>,
    raw: &mut [u8],
) {
    let mut clear = |from: u64, to: u64| {
        let from = from.clamp(range.start, range.end) - range.start;
        let to = to.clamp(range.start, range.end) - range.start;
        let length = raw.len() as u64;
        raw[from.min(length) as usize..to.min(length) as usize].fill(0);
    };
    for run in extents.filter(|run| run.kind == ExtentKind::Free) {
        clear(run.offset, run.end());
    }
    let first = tables.partition_point(|table| table.end <= range.start);
    for table in tables[first..]
        .iter()
        .take_while(|table| table.start < range.end)
    {
        clear(table.start, table.end);
    }
}
