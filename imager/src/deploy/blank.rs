//! Which parts of the disk are to be blank: `zero` extents, and free space by the policy.

use std::ops::Range;

use crate::deploy::hold::{EDGE_BYTES, Hold};
use crate::deploy::options::FreePolicy;
use crate::deploy::surface::Surface;
use crate::extent::ExtentKind;
use crate::frame_set::FrameSet;
use crate::id::FrameId;

/// Free space in smaller pieces than this is not worth a discard, in bytes.
const DISCARD_BYTES_MIN: u64 = 1 << 20;

/// How a range is made blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blanking {
    /// It reads as zeros afterwards.
    Zeros,
    /// The disk is told that it holds nothing.
    Discard,
}

/// A range of the disk, in bytes, that is to be blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blank {
    pub(crate) range: Range<u64>,
    pub(crate) with: Blanking,
}

/// The ranges to be made blank, given the frames without used bytes that differ. Frames with used bytes are written
/// whole and need nothing here.
///
/// On a disk larger than the image the policy for free space covers the rest of the disk too, up to its last MiB.
///
/// What is withheld is cleared already, and must not become undefined by a discard.
pub(crate) fn blanks(
    surface: &Surface,
    hold: &Hold,
    differing: &FrameSet,
    free: FreePolicy,
) -> Vec<Blank> {
    let mut blanks = Vec::new();
    let mut add = |range: Range<u64>, with: Blanking| match blanks.last_mut() {
        Some(Blank {
            range: last,
            with: last_with,
        }) if last.end == range.start && *last_with == with => {
            last.end = range.end;
        }
        _ => blanks.push(Blank { range, with }),
    };
    for frame in surface
        .frames()
        .filter(|frame| !surface.manifest.is_sent(*frame))
    {
        for run in surface.manifest.frame_extents(frame) {
            let with = match (run.kind, free) {
                (ExtentKind::Zero, _) | (ExtentKind::Free, FreePolicy::Zero) => Blanking::Zeros,
                (ExtentKind::Free, FreePolicy::Discard) => Blanking::Discard,
                _ => continue,
            };
            if with == Blanking::Zeros && !differing.contains(frame) {
                continue;
            }
            for part in surface.territory.open.within(run.offset..run.end()) {
                let end = surface.sector_end(part.end);
                for rest in hold.beside_withheld(part.start..end) {
                    add(rest, with);
                }
            }
        }
    }
    let rest = surface.rest_of_disk();
    match free {
        _ if !surface.territory.is_whole() => {}
        FreePolicy::Leave => {}
        FreePolicy::Discard => add(rest, Blanking::Discard),
        FreePolicy::Zero => add(rest, Blanking::Zeros),
    }
    let long_enough = |blank: &Blank| match blank.with {
        Blanking::Zeros => blank.range.start < blank.range.end,
        Blanking::Discard => blank.range.start + DISCARD_BYTES_MIN <= blank.range.end,
    };
    blanks.retain(long_enough);
    blanks
}

impl Surface {
    /// `end` rounded up to a sector, and not beyond the last whole sector of the disk.
    fn sector_end(&self, end: u64) -> u64 {
        let sector = u64::from(self.target.sector_bytes());
        end.next_multiple_of(sector)
            .min(self.target.bytes() / sector * sector)
    }

    /// What lies behind the image and before the last MiB, which is cleared anyway.
    fn rest_of_disk(&self) -> Range<u64> {
        let start = self.sector_end(self.manifest.raw_bytes());
        let last = self.target.bytes().saturating_sub(EDGE_BYTES);
        start..self.sector_end(last).max(start)
    }

    /// Whether the frame has anything that matters under this policy.
    pub(crate) fn matters(&self, frame: FrameId, free: FreePolicy) -> bool {
        let counts = |kind| kind != ExtentKind::Free || free == FreePolicy::Zero;
        self.parts(frame).any(|part| {
            let mut runs = self.manifest.extents().within(part);
            runs.any(|run| counts(run.kind))
        })
    }
}
