//! What is on the disk already.
//!
//! Equal frames are taken out of what is wanted. That is how a deploy resumes after a power cut and how a new version
//! of an image brings only what has changed, with no state kept anywhere.

use crate::deploy::compare::Comparison;
use crate::deploy::error::DeployError;
use crate::deploy::options::{DeployObserver, DeployOptions, DeployPhase, FreePolicy};
use crate::deploy::surface::{Mask, Reading, Surface};
use crate::device::AlignedBuffer;
use crate::frame_set::FrameSet;
use crate::id::FrameId;

/// Used frames looked at first. When all of them differ this is another disk, and reading the rest is a waste.
const SAMPLES: usize = 64;

/// What a survey found.
pub(crate) struct Survey {
    /// Frames that have to come from outside.
    pub(crate) wanted: FrameSet,
    /// Those of them that may be right: of a frame that is in scope in part, only the image can tell.
    pub(crate) unsure: FrameSet,
    /// Frames without used bytes that differ: they are zeroed, not fetched.
    pub(crate) blank: FrameSet,
    /// Frames that are right.
    pub(crate) kept: FrameSet,
    /// Whether the fitted tables are on the disk.
    pub(crate) tables_right: bool,
}

impl Survey {
    /// Whether the disk certainly is not as the image wants it.
    pub(crate) fn differs(&self) -> bool {
        !self.tables_right || !self.blank.is_empty() || self.wanted.len() > self.unsure.len()
    }

    /// Looks at the disk. With `sampling`, it stops early when the samples show another disk. `keep` is shown each
    /// frame that is right.
    ///
    /// # Errors
    /// When the disk cannot be read, or the deploy is told to stop.
    pub(crate) fn take(
        surface: &Surface,
        options: &DeployOptions,
        observer: &DeployObserver,
        sampling: bool,
        keep: impl Fn(FrameId, &AlignedBuffer) + Sync,
    ) -> Result<Survey, DeployError> {
        let frames = frames_that_matter(surface, options);
        let comparison = comparison(surface, options, observer);
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
        let mut unsure = FrameSet::empty(count);
        for frame in frames.iter().filter(|frame| !kept.contains(**frame)) {
            let differs = if surface.manifest.is_sent(*frame) {
                &mut wanted
            } else {
                &mut blank
            };
            differs.insert(*frame);
            if !surface.is_judged_by_hash(*frame) {
                unsure.insert(*frame);
            }
        }
        Ok(Survey {
            wanted,
            unsure,
            blank,
            kept,
            tables_right: surface.tables_are_right()?,
        })
    }
}

/// What is found first of what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// The partition tables.
    Tables,
    /// A frame.
    Frame(FrameId),
}

/// Something that differs, found with as little reading as it takes; nothing if the disk holds the image.
///
/// # Errors
/// As of [`Survey::take`].
pub(crate) fn first_difference(
    surface: &Surface,
    options: &DeployOptions,
    observer: &DeployObserver,
) -> Result<Option<Difference>, DeployError> {
    if !surface.tables_are_right()? {
        return Ok(Some(Difference::Tables));
    }
    let comparison = comparison(surface, options, observer);
    // Another disk betrays itself here, wherever on it something happens to be equal.
    if let Some(wrong) = comparison.any_wrong(&samples(surface))? {
        return Ok(Some(Difference::Frame(wrong)));
    }
    let wrong = comparison.any_wrong(&frames_that_matter(surface, options))?;
    Ok(wrong.map(Difference::Frame))
}

fn comparison<'a>(
    surface: &'a Surface,
    options: &'a DeployOptions,
    observer: &'a DeployObserver,
) -> Comparison<'a> {
    Comparison {
        surface,
        options,
        observer,
        phase: DeployPhase::Survey,
        how: Reading {
            mask: Mask::Fitted,
            free_as_zero: options.free == FreePolicy::Zero,
            hold: None,
        },
    }
}

/// Frames whose content is of interest to somebody.
pub(crate) fn frames_that_matter(surface: &Surface, options: &DeployOptions) -> Vec<FrameId> {
    let matters = |frame: &FrameId| surface.matters(*frame, options.free);
    surface.frames().filter(matters).collect()
}

/// Used frames spread evenly over what is in scope.
fn samples(surface: &Surface) -> Vec<FrameId> {
    let sent = surface.manifest.sent();
    let own: Vec<FrameId> = sent
        .iter()
        .copied()
        .filter(|frame| surface.bytes_in_scope(*frame) > 0)
        .collect();
    let step = (own.len() / SAMPLES).max(1);
    own.into_iter().step_by(step).take(SAMPLES).collect()
}
