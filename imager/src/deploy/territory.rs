//! What of a disk a deploy may write: all of it, or what its scope leaves.

use std::ops::Range;
use std::sync::Arc;

use crate::deploy::error::DeployError;
use crate::deploy::layout::{LayoutError, compare, layout_of};
use crate::deploy::parcel::Parcel;
use crate::fit::{FitError, FittedTables, TableRun};
use crate::manifest::Manifest;
use crate::partition::Partition;
use crate::ranges::Ranges;
use crate::scan::{Scan, extended};
use crate::scope::Scope;
use crate::target::Target;

/// Boot code in LBA 0, in bytes from its start; behind it lie disk signature and table.
const BOOT_CODE_BYTES: usize = 440;
/// Boot code that tells the firmware that this disk does not boot, so that it tries the next device: `int 18h`, and a
/// halt should that return. A BIOS that finds zeros runs them.
const NO_BOOT_CODE: [u8; 5] = [0xcd, 0x18, 0xf4, 0xeb, 0xfd];

/// What may be written.
pub(crate) struct Territory {
    /// All bytes that may be, in whole sectors.
    pub(crate) open: Ranges,
    /// The partitions in scope one by one; none when the whole disk is.
    pub(crate) parcels: Vec<Parcel>,
    /// LBA 0 while the disk is half-written, when its boot code is in scope and its table is not.
    pub(crate) dead_lba0: Option<Vec<u8>>,
    whole: bool,
}

impl Territory {
    /// Most partitions that are written one by one: of each some MiB may be held back in memory.
    const PARCELS_MAX: usize = 64;

    /// All of a disk.
    pub(crate) fn whole(disk_bytes: u64) -> Territory {
        Territory {
            open: Ranges::one(0..disk_bytes),
            parcels: Vec::new(),
            dead_lba0: None,
            whole: true,
        }
    }

    /// What `scope` leaves of the disk, and the sectors with tables that belong to it: LBA 0 with other boot code, or
    /// none.
    ///
    /// # Errors
    /// When the disk is not partitioned as the image is, or cannot be read.
    pub(crate) fn partial(
        manifest: &Manifest,
        target: &Target,
        scope: &Scope,
    ) -> Result<(Territory, FittedTables), DeployError> {
        let path = || target.path().to_owned();
        let refuse = |cause| DeployError::Layout {
            path: path(),
            cause,
        };
        let sectors = (manifest.sector_bytes(), target.sector_bytes());
        if sectors.0 != sectors.1 {
            let cause = FitError::SectorSize {
                image: sectors.0,
                disk: sectors.1,
            };
            return Err(DeployError::Fit {
                path: path(),
                cause,
            });
        }
        let disk = layout_of(target).map_err(|cause| DeployError::Read {
            path: path(),
            offset: 0,
            cause: Arc::new(cause),
        })?;
        compare(&disk, manifest, scope).map_err(refuse)?;
        if let Some(cause) = LayoutError::left_out(manifest.partitions(), scope) {
            return Err(refuse(cause));
        }
        let parcels = parcels(&disk, manifest, target, scope).map_err(refuse)?;
        if let Scope::Only(_) = scope {
            let territory = Territory {
                open: Ranges::of(parcels.iter().map(|parcel| parcel.range.clone())),
                parcels,
                dead_lba0: None,
                whole: false,
            };
            return Ok((territory, FittedTables::default()));
        }
        let (lba0, dead) = boot_sectors(&disk, manifest);
        let territory = Territory {
            open: all_but(&disk, manifest, target, scope),
            parcels,
            dead_lba0: Some(dead),
            whole: false,
        };
        let runs = vec![TableRun {
            offset: 0,
            data: lba0,
        }];
        Ok((territory, FittedTables { runs }))
    }

    /// Whether it is all of the disk.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

/// The partitions in scope.
fn parcels(
    disk: &Scan,
    manifest: &Manifest,
    target: &Target,
    scope: &Scope,
) -> Result<Vec<Parcel>, LayoutError> {
    let mut parcels = Vec::new();
    for found in disk
        .partitions
        .iter()
        .filter(|found| scope.has(found.number))
    {
        let overlaps = |other: &&Partition| {
            other.number != found.number
                && other.start_bytes < found.end_bytes()
                && found.start_bytes < other.end_bytes()
        };
        if disk.partitions.iter().any(|other| overlaps(&other)) {
            return Err(LayoutError::Overlap {
                number: found.number,
            });
        }
        let image = manifest
            .partitions()
            .iter()
            .find(|image| image.number == found.number);
        let image = image.ok_or(LayoutError::Foreign {
            number: found.number,
        })?;
        parcels.push(Parcel {
            range: image.start_bytes..image.end_bytes(),
            disk_end: found.end_bytes(),
            fs: image.fs.clone(),
            sector_bytes: u64::from(target.sector_bytes()),
        });
    }
    if parcels.len() > Territory::PARCELS_MAX {
        let (count, max) = (parcels.len(), Territory::PARCELS_MAX);
        return Err(LayoutError::TooMany { count, max });
    }
    Ok(parcels)
}

/// All that the image has but what is kept, and but the tables, on the disk and in the image.
fn all_but(disk: &Scan, manifest: &Manifest, target: &Target, scope: &Scope) -> Ranges {
    let sector = u64::from(target.sector_bytes());
    let image_end = manifest.raw_bytes().next_multiple_of(sector);
    let end = image_end.min(target.bytes() / sector * sector);
    let kept = disk
        .partitions
        .iter()
        .filter(|partition| !scope.has(partition.number))
        .map(|partition| partition.start_bytes..partition.end_bytes());
    let tables = disk.tables.masked(target.bytes()).into_iter();
    let image_tables = manifest.masked().iter().cloned();
    Ranges::one(0..end)
        .minus(&Ranges::of(kept))
        .minus(&Ranges::of(tables.chain(image_tables)))
        .minus(&logical_tables(disk))
}

/// What is between logical partitions: each is led by a sector with a table, and that need not lie just before it.
fn logical_tables(disk: &Scan) -> Ranges {
    let lba0 = match (&disk.tables.lba0, &disk.tables.gpt) {
        (Some(lba0), None) => lba0.as_slice(),
        _ => &[],
    };
    let partitions: Vec<Range<u64>> = disk
        .partitions
        .iter()
        .map(|partition| partition.start_bytes..partition.end_bytes())
        .collect();
    Ranges::of(extended(lba0, disk.tables.sector_bytes)).minus(&Ranges::of(partitions))
}

/// LBA 0 with the table of the disk: with the boot code of the image, and with none.
fn boot_sectors(disk: &Scan, manifest: &Manifest) -> (Vec<u8>, Vec<u8>) {
    let of = |lba0: &Option<Vec<u8>>| {
        lba0.clone()
            .expect("both have a table, or compare() refuses")
    };
    let mut lba0 = of(&disk.tables.lba0);
    let mut dead = lba0.clone();
    lba0[..BOOT_CODE_BYTES].copy_from_slice(&of(&manifest.tables().lba0)[..BOOT_CODE_BYTES]);
    dead[..BOOT_CODE_BYTES].fill(0);
    dead[..NO_BOOT_CODE.len()].copy_from_slice(&NO_BOOT_CODE);
    (lba0, dead)
}
