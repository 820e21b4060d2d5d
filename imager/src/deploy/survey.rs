//! What is on the disk already.
//!
//! Equal frames are taken out of what is wanted. That is how a deploy resumes after a power cut and how a new version
//! of an image brings only what has changed, with no state kept anywhere.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::deploy::compare::Comparison;
use crate::deploy::error::DeployError;
use crate::deploy::hold::Hold;
use crate::deploy::options::{DeployObserver, DeployOptions, DeployPhase, FreePolicy};
use crate::deploy::surface::{Mask, Surface};
use crate::device::AlignedBuffer;
use crate::frame_set::FrameSet;
use crate::id::FrameId;

/// Used frames looked at first. When all of them differ this is another disk, and reading the rest is a waste.
const SAMPLES: usize = 64;

/// What a survey found.
pub(crate) struct Survey {
    /// Frames that have to come from outside.
    pub(crate) wanted: FrameSet,
    /// Frames without used bytes that differ: they are zeroed, not fetched.
    pub(crate) blank: FrameSet,
    /// Frames that are right.
    pub(crate) kept: FrameSet,
    /// The content of right frames that the clearing will hit.
    pub(crate) held: BTreeMap<FrameId, AlignedBuffer>,
    /// Whether the fitted tables are on the disk.
    pub(crate) tables_right: bool,
}

impl Survey {
    /// Whether the disk holds the image already.
    pub(crate) fn is_clean(&self) -> bool {
        self.tables_right && self.wanted.is_empty() && self.blank.is_empty()
    }

    /// Looks at the disk. With `sampling`, it stops early when the samples show another disk.
    ///
    /// # Errors
    /// When the disk cannot be read, or the deploy is told to stop.
    pub(crate) fn take(
        surface: &Surface,
        options: &DeployOptions,
        observer: &DeployObserver,
        sampling: bool,
    ) -> Result<Survey, DeployError> {
        let free_as_zero = options.free == FreePolicy::Zero;
        let matters = |frame: &FrameId| surface.matters(*frame, options.free);
        let frames: Vec<FrameId> = surface.frames().filter(matters).collect();
        let comparison = Comparison {
            surface,
            options,
            observer,
            phase: DeployPhase::Survey,
            mask: Mask::Fitted,
            free_as_zero,
        };
        let held = Mutex::new(BTreeMap::new());
        let keep = |frame: FrameId, buffer: &AlignedBuffer| {
            if Hold::touches(surface, frame) {
                let copy = AlignedBuffer::padded(
                    &buffer[..surface.bytes_on_disk(frame)],
                    surface.target.sector_bytes(),
                );
                held.lock()
                    .expect("no reader panics while it holds the lock")
                    .insert(frame, copy);
            }
        };
        let samples = samples(surface);
        let looked_at = if sampling && samples.len() == SAMPLES {
            comparison.right(&samples, |_, _| {})?
        } else {
            FrameSet::full(surface.manifest.frame_count() as usize)
        };
        let kept = if looked_at.is_empty() {
            looked_at
        } else {
            comparison.right(&frames, keep)?
        };

        let count = surface.manifest.frame_count() as usize;
        let (mut wanted, mut blank) = (FrameSet::empty(count), FrameSet::empty(count));
        for frame in frames.iter().filter(|frame| !kept.contains(**frame)) {
            let differs = if surface.manifest.is_sent(*frame) {
                &mut wanted
            } else {
                &mut blank
            };
            differs.insert(*frame);
        }
        Ok(Survey {
            wanted,
            blank,
            kept,
            held: held
                .into_inner()
                .expect("no reader panics while it holds the lock"),
            tables_right: surface.tables_are_right()?,
        })
    }
}

/// Used frames spread evenly over the disk.
fn samples(surface: &Surface) -> Vec<FrameId> {
    let sent = surface.manifest.sent();
    let on_disk = sent.partition_point(|frame| surface.bytes_on_disk(*frame) > 0);
    let step = (on_disk / SAMPLES).max(1);
    sent[..on_disk]
        .iter()
        .step_by(step)
        .take(SAMPLES)
        .copied()
        .collect()
}
