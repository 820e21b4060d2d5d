//! Comparing a disk with an image without writing anything.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::deploy::check::check_fit;
use crate::deploy::error::DeployError;
use crate::deploy::options::{DeployObserver, DeployOptions};
use crate::deploy::surface::Surface;
use crate::deploy::survey::Survey;
use crate::id::FrameId;
use crate::manifest::Manifest;
use crate::target::Target;

/// How a disk compares with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Frames that are as the image wants them.
    pub right_frames: u64,
    /// Frames that differ, in order.
    pub differing: Vec<FrameId>,
    /// Whether the partition tables are those of the image, fitted to this disk.
    pub tables_right: bool,
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
    mut target: Target,
    options: &DeployOptions,
    observer: &DeployObserver,
) -> Result<Audit, DeployError> {
    let fitted = check_fit(&manifest, &mut target, options)?;
    let surface = Surface::new(manifest, target, fitted.tables, fitted.territory);
    let survey = Survey::take(&surface, options, observer, false, |_, _| {})?;
    let mut differing: Vec<FrameId> = survey.wanted.iter().chain(survey.blank.iter()).collect();
    differing.sort_unstable();
    Ok(Audit {
        right_frames: survey.kept.len() as u64,
        differing,
        tables_right: survey.tables_right,
    })
}
