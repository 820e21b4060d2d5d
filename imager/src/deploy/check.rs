//! Whether an image fits a disk: everything that can be known before the first write.

use std::sync::Arc;

use crate::deploy::error::DeployError;
use crate::deploy::options::DeployOptions;
use crate::deploy::surface::Surface;
use crate::deploy::territory::Territory;
use crate::fit::{FitError, FittedTables, fit};
use crate::manifest::Manifest;
use crate::target::Target;

/// An image that fits.
pub(crate) struct Fitted {
    /// The tables for this disk.
    pub(crate) tables: FittedTables,
    /// What may be written.
    pub(crate) territory: Territory,
    /// How long a regular file shall be in the end, in bytes: the image need not end on a sector.
    pub(crate) final_bytes: u64,
}

/// Checks sizes and sectors and renders the tables. A file that was opened to be created or lengthened gets the
/// image's size, once everything else is in order.
///
/// # Errors
/// When the image does not fit. Nothing has been written then.
pub(crate) fn check_fit(
    manifest: &Manifest,
    target: &mut Target,
    options: &DeployOptions,
) -> Result<Fitted, DeployError> {
    target.adopt_sectors(manifest.sector_bytes());
    if !options.scope.is_whole() {
        let (territory, tables) = Territory::partial(manifest, target, &options.scope)?;
        return Ok(Fitted {
            tables,
            territory,
            final_bytes: target.bytes(),
        });
    }
    let left_out = manifest
        .partitions()
        .iter()
        .find(|partition| partition.left_out);
    if let (Some(partition), false) = (left_out, options.incomplete) {
        return Err(DeployError::Incomplete {
            number: partition.number,
        });
    }
    let path = target.path().to_owned();
    let sector = u64::from(target.sector_bytes());
    let grows = target.can_grow() && !target.is_read_only();
    let final_bytes = if grows {
        target.bytes().max(manifest.raw_bytes())
    } else {
        target.bytes()
    };
    let disk_bytes = if grows {
        final_bytes.next_multiple_of(sector)
    } else {
        final_bytes
    };

    // Without a table nothing says that the end may be cut off.
    let needed_bytes = match manifest.tables().lba0 {
        Some(_) => manifest.min_target_bytes(),
        None => manifest.raw_bytes(),
    };
    let too_small = |needed_bytes| DeployError::TooSmall {
        path: path.clone(),
        disk_bytes,
        needed_bytes,
    };
    if disk_bytes < needed_bytes {
        return Err(too_small(needed_bytes));
    }
    let fitted = fit(
        manifest.tables(),
        disk_bytes,
        target.sector_bytes(),
        options.last_partition,
    );
    let tables = fitted.map_err(|source| match source {
        FitError::TooSmall { needed_bytes, .. } => too_small(needed_bytes),
        cause => DeployError::Fit {
            path: path.clone(),
            cause,
        },
    })?;
    if grows && target.bytes() != disk_bytes {
        target
            .resize(disk_bytes)
            .map_err(|source| DeployError::Write {
                path: path.clone(),
                offset: disk_bytes,
                cause: Arc::new(source),
            })?;
    }
    Ok(Fitted {
        tables,
        territory: Territory::whole(disk_bytes),
        final_bytes,
    })
}

impl Surface {
    /// Gives a file its final length.
    pub(crate) fn cut_file(&self, bytes: u64) -> Result<(), DeployError> {
        self.target
            .device
            .resize(bytes)
            .map_err(|source| self.write_error(bytes, source))?;
        self.flush()
    }
}
