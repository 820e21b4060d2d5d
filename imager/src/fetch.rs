//! Blocks read from an image that lies elsewhere, by byte ranges of its file.
//!
//! The frames of a block are consecutive among the *sent* frames; in the file there may be frames between them that
//! are not sent, a few bytes each. Near ones are read along and dropped: a request costs more than they do.

use std::ops::Range;

use crate::manifest::Manifest;
use crate::plan::Plan;

/// Bytes that are not wanted and are read all the same, rather than asking twice.
const GAP_MAX: u64 = 64 << 10;

/// The byte ranges of the image's file that hold block number `block`, in order, each with the parts of it that make
/// the payload. Empty when there is no such block.
fn ranges(manifest: &Manifest, plan: &Plan, block: u32) -> Vec<(Range<u64>, Vec<Range<u64>>)> {
    let mut ranges: Vec<(Range<u64>, Vec<Range<u64>>)> = Vec::new();
    for &frame in plan.frames(block) {
        let stored = manifest.stored_range(frame);
        match ranges.last_mut() {
            Some((range, parts)) if stored.start - range.end <= GAP_MAX => {
                range.end = stored.end;
                parts.push(stored);
            }
            _ => ranges.push((stored.clone(), vec![stored])),
        }
    }
    ranges
}

/// Puts block number `block` together from byte ranges of the image's file, which `read` provides.
///
/// # Errors
/// What `read` says; [`ShortRange`] when it gave another number of bytes than asked for.
pub fn fetch_block<E: From<ShortRange>>(
    manifest: &Manifest,
    plan: &Plan,
    block: u32,
    mut read: impl FnMut(Range<u64>) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let mut payload = Vec::new();
    for (range, parts) in ranges(manifest, plan, block) {
        let bytes = read(range.clone())?;
        if bytes.len() as u64 != range.end - range.start {
            let found = bytes.len() as u64;
            return Err(ShortRange { range, found }.into());
        }
        for part in parts {
            let from = (part.start - range.start) as usize;
            payload.extend_from_slice(&bytes[from..][..(part.end - part.start) as usize]);
        }
    }
    Ok(payload)
}

/// A byte range that came shorter or longer than asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {} to {} of the image were asked for, and {found} came", range.start, range.end)]
pub struct ShortRange {
    /// What was asked for.
    pub range: Range<u64>,
    /// Bytes that came.
    pub found: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::any_manifest;

    proptest! {
        #[test]
        fn a_block_is_its_frames_wherever_they_lie(manifest in any_manifest()) {
            let plan = Plan::new(&manifest);
            // Every byte of the file tells its own place.
            let byte = |at: u64| (at % 251) as u8;
            let read = |range: Range<u64>| Ok::<_, ShortRange>(range.map(byte).collect());
            for number in 0..plan.blocks().len() as u32 {
                let slow: Vec<u8> = plan
                    .frames(number)
                    .iter()
                    .flat_map(|&frame| manifest.stored_range(frame).map(byte))
                    .collect();
                prop_assert_eq!(fetch_block(&manifest, &plan, number, read), Ok(slow));
            }
        }

        #[test]
        fn a_short_answer_is_an_error(manifest in any_manifest()) {
            let plan = Plan::new(&manifest);
            let read = |range: Range<u64>| Ok::<_, ShortRange>(vec![0; (range.end - range.start - 1) as usize]);
            for number in 0..plan.blocks().len() as u32 {
                prop_assert!(fetch_block(&manifest, &plan, number, read).is_err());
            }
        }
    }
}
