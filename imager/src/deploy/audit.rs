//! Comparing a disk with an image without writing anything.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::deploy::check::check_fit;
use crate::deploy::error::DeployError;
use crate::deploy::options::{DeployObserver, DeployOptions};
use crate::deploy::surface::Surface;
use crate::deploy::survey::{Difference, Survey, first_difference, frames_that_matter};
use crate::id::FrameId;
use crate::manifest::Manifest;
use crate::target::Target;

/// How a disk compares with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Frames that are as the image wants them; 0 when not the whole disk was looked at.
    pub right_frames: u64,
    /// Frames that differ, in order.
    pub differing: Vec<FrameId>,
    /// Whether the partition tables are those of the image, fitted to this disk.
    pub tables_right: bool,
    /// Whether the whole disk was looked at, or it stopped at a difference.
    pub complete: bool,
}

/// How far an audit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuditDepth {
    /// Over the whole disk.
    #[default]
    Whole,
    /// Until something differs: for whoever only asks whether anything does. The frames that a wrong disk is most
    /// likely to betray itself by are read first.
    FirstDifference,
}

impl Audit {
    /// Whether the disk holds the image.
    pub fn is_clean(&self) -> bool {
        self.tables_right && self.differing.is_empty()
    }
}

/// Compares every frame on the disk with the image, and the tables with what this disk should have. Free space and,
/// unless asked for by the `free` option, its content do not count.
///
/// # Errors
/// When the image does not fit the disk, or the disk cannot be read.
pub fn audit(
    manifest: Arc<Manifest>,
    target: Target,
    options: &DeployOptions,
    depth: AuditDepth,
    observer: &DeployObserver,
) -> Result<Audit, DeployError> {
    let surface = surface_of(manifest, target, options)?;
    look(&surface, options, depth, observer)
}

/// As [`audit`], when the content of frames can be had as well: a frame of which only a part is in scope cannot be
/// judged without. `content` gives the raw bytes of such a frame.
///
/// # Errors
/// As of [`audit`], and what `content` fails with.
pub(crate) fn audit_with<E: From<DeployError>>(
    manifest: Arc<Manifest>,
    target: Target,
    options: &DeployOptions,
    depth: AuditDepth,
    observer: &DeployObserver,
    mut content: impl FnMut(FrameId) -> Result<Vec<u8>, E>,
) -> Result<Audit, E> {
    let surface = surface_of(manifest, target, options)?;
    for frame in surface.frames() {
        if !surface.is_judged_by_hash(frame) {
            surface.learn(frame, &mut content(frame)?);
        }
    }
    Ok(look(&surface, options, depth, observer)?)
}

fn surface_of(
    manifest: Arc<Manifest>,
    mut target: Target,
    options: &DeployOptions,
) -> Result<Surface, DeployError> {
    let fitted = check_fit(&manifest, &mut target, options)?;
    Ok(Surface::new(
        manifest,
        target,
        fitted.tables,
        fitted.territory,
    ))
}

fn look(
    surface: &Surface,
    options: &DeployOptions,
    depth: AuditDepth,
    observer: &DeployObserver,
) -> Result<Audit, DeployError> {
    let survey = match depth {
        AuditDepth::Whole => Survey::take(surface, options, observer, false, |_, _| {})?,
        AuditDepth::FirstDifference => {
            let found = first_difference(surface, options, observer)?;
            return Ok(Audit {
                right_frames: match found {
                    None => frames_that_matter(surface, options).len() as u64,
                    Some(_) => 0,
                },
                differing: match found {
                    Some(Difference::Frame(frame)) => vec![frame],
                    _ => Vec::new(),
                },
                tables_right: found != Some(Difference::Tables),
                complete: found.is_none(),
            });
        }
    };
    let mut differing: Vec<FrameId> = survey.wanted.iter().chain(survey.blank.iter()).collect();
    differing.sort_unstable();
    Ok(Audit {
        right_frames: survey.kept.len() as u64,
        differing,
        tables_right: survey.tables_right,
        complete: true,
    })
}
