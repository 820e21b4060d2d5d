//! Whether the partitions of a disk are those of an image: what a deploy of single partitions stands on.

use std::io;

use thiserror::Error;

use crate::device::AlignedBuffer;
use crate::manifest::Manifest;
use crate::partition::Partition;
use crate::read_at::ReadAt;
use crate::scan::{Scan, extended, scan_tables};
use crate::scope::Scope;
use crate::tables::Tables;
use crate::target::Target;

/// Where the disk signature lies in LBA 0.
const SIGNATURE_AT: usize = 440;
/// Where the unique GUID lies in a GPT entry.
const GUID_AT: usize = 16;

/// Why single partitions cannot be written. Nothing has been written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// There is nothing to choose from.
    #[error("the image has no partition table, so no single partitions")]
    ImageWithoutTable,
    /// Perhaps a new disk, or one that was being written when the power failed.
    #[error("the disk has no partition table; write the whole image")]
    DiskWithoutTable,
    /// MBR and GPT.
    #[error("the disk has {disk}, the image {image}; write the whole image")]
    Scheme {
        /// What the disk has.
        disk: &'static str,
        /// What the image has.
        image: &'static str,
    },
    /// Another table, though its partitions may lie at the same places: systems find theirs by these marks.
    #[error(
        "the partition table of the disk has another {what} than that of the image; write the whole image"
    )]
    Identity {
        /// Which mark.
        what: &'static str,
    },
    /// A partition was removed since.
    #[error("partition {number} of the image is not on the disk; write the whole image")]
    Absent {
        /// Its number.
        number: u32,
    },
    /// A partition lies elsewhere, is of another size, or another one.
    #[error(
        "partition {number} {what} {disk} on the disk, {image} in the image; write the whole image"
    )]
    Differs {
        /// Its number.
        number: u32,
        /// What differs, as a verb: `starts at byte`.
        what: &'static str,
        /// The value on the disk.
        disk: String,
        /// The value in the image.
        image: String,
    },
    /// The extended partition of an MBR.
    #[error("the extended partition of the disk is not that of the image; write the whole image")]
    Extended,
    /// The disk has more.
    #[error(
        "partition {number} of the disk is not in the image; keep it too, or write only what shall be written"
    )]
    Foreign {
        /// Its number.
        number: u32,
    },
    /// Asked for, but nowhere.
    #[error("there is no partition {number}; there are {}", list(there))]
    Unknown {
        /// As asked for.
        number: u32,
        /// Those there are.
        there: Vec<u32>,
    },
    /// Its content was not captured.
    #[error(
        "partition {number} was left out when the image was made; keep it, or take another image"
    )]
    LeftOut {
        /// Its number.
        number: u32,
    },
    /// The table contradicts itself.
    #[error("partition {number} overlaps another on the disk")]
    Overlap {
        /// Its number.
        number: u32,
    },
    /// More than can be held back.
    #[error("{count} partitions are to be written one by one; at most {max} can be")]
    TooMany {
        /// How many were asked for.
        count: usize,
        /// The most there may be.
        max: usize,
    },
}

/// The disk `target` as it is partitioned.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn layout_of(target: &Target) -> io::Result<Scan> {
    scan_tables(&DiskView(target), Some(target.sector_bytes()))
}

/// Compares the partitions of the disk with those of the image; the last may have grown. Partitions that only the disk
/// has must be kept.
///
/// # Errors
/// The first difference.
pub(crate) fn compare(disk: &Scan, manifest: &Manifest, scope: &Scope) -> Result<(), LayoutError> {
    compare_tables(&disk.tables, manifest.tables())?;
    let last = manifest.partitions().iter().map(Partition::end_bytes).max();
    for image in manifest.partitions() {
        let number = image.number;
        let Some(found) = disk.partitions.iter().find(|found| found.number == number) else {
            return Err(LayoutError::Absent { number });
        };
        let grown = last == Some(image.end_bytes()) && found.bytes > image.bytes;
        let differs = |what, disk: String, image: String| {
            Err(LayoutError::Differs {
                number,
                what,
                disk,
                image,
            })
        };
        if found.start_bytes != image.start_bytes {
            return differs(
                "starts at byte",
                found.start_bytes.to_string(),
                image.start_bytes.to_string(),
            );
        }
        if found.bytes != image.bytes && !grown {
            let long = |bytes| format!("{bytes} bytes long");
            return differs("is", long(found.bytes), long(image.bytes));
        }
        if found.kind != image.kind {
            return differs("is of the type", found.kind.clone(), image.kind.clone());
        }
        if guid(&disk.tables, number) != guid(manifest.tables(), number) {
            return Err(LayoutError::Identity {
                what: "GUID of a partition",
            });
        }
    }
    if extended_of(&disk.tables) != extended_of(manifest.tables()) {
        return Err(LayoutError::Extended);
    }
    named(disk, manifest, scope)
}

fn compare_tables(disk: &Tables, image: &Tables) -> Result<(), LayoutError> {
    let image_lba0 = image.lba0.as_ref().ok_or(LayoutError::ImageWithoutTable)?;
    let disk_lba0 = disk.lba0.as_ref().ok_or(LayoutError::DiskWithoutTable)?;
    match (&disk.gpt, &image.gpt) {
        (Some(disk), Some(image)) if disk.disk_guid != image.disk_guid => {
            Err(LayoutError::Identity { what: "GUID" })
        }
        (None, None) if signature(disk_lba0) != signature(image_lba0) => {
            Err(LayoutError::Identity {
                what: "disk signature",
            })
        }
        (Some(_), Some(_)) | (None, None) => Ok(()),
        (disk, image) => {
            let scheme = |gpt: bool| if gpt { "a GPT" } else { "an MBR" };
            let (disk, image) = (scheme(disk.is_some()), scheme(image.is_some()));
            Err(LayoutError::Scheme { disk, image })
        }
    }
}

/// Whether all that is named is there, and all that must be named is.
fn named(disk: &Scan, manifest: &Manifest, scope: &Scope) -> Result<(), LayoutError> {
    let of_disk = || disk.partitions.iter().map(|partition| partition.number);
    let of_image: Vec<u32> = manifest
        .partitions()
        .iter()
        .map(|partition| partition.number)
        .collect();
    let (named, there): (_, Vec<u32>) = match scope {
        Scope::Whole => return Ok(()),
        Scope::Only(only) => (only, of_image.clone()),
        Scope::Keep(keep) => (keep, of_disk().collect()),
    };
    if let Some(number) = named.iter().find(|number| !there.contains(number)) {
        return Err(LayoutError::Unknown { number, there });
    }
    match of_disk().find(|number| scope.has(*number) && !of_image.contains(number)) {
        Some(number) => Err(LayoutError::Foreign { number }),
        None => Ok(()),
    }
}

fn signature(lba0: &[u8]) -> Option<&[u8]> {
    lba0.get(SIGNATURE_AT..SIGNATURE_AT + 4)
}

fn extended_of(tables: &Tables) -> Vec<std::ops::Range<u64>> {
    match (&tables.lba0, &tables.gpt) {
        (Some(lba0), None) => extended(lba0, tables.sector_bytes),
        _ => Vec::new(),
    }
}

/// What a GPT calls the partition, beside its number.
fn guid(tables: &Tables, number: u32) -> Option<&[u8]> {
    let gpt = tables.gpt.as_ref()?;
    let entry = (number as usize)
        .checked_sub(1)?
        .checked_mul(gpt.entry_bytes as usize)?;
    gpt.entries.get(entry..)?.get(GUID_AT..GUID_AT + 16)
}

fn list(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    if numbers.is_empty() {
        "none".into()
    } else {
        numbers.join(", ")
    }
}

/// A disk to be written, read at any byte.
struct DiskView<'a>(&'a Target);

impl ReadAt for DiskView<'_> {
    fn raw_bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let sector = u64::from(self.0.sector_bytes());
        let end = offset.checked_add(buffer.len() as u64);
        let end = end
            .filter(|end| *end <= self.raw_bytes())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let start = offset / sector * sector;
        let mut sectors = AlignedBuffer::new((end.next_multiple_of(sector) - start) as usize);
        self.0.device.read_at(&mut sectors, start)?;
        let from = (offset - start) as usize;
        buffer.copy_from_slice(&sectors[from..from + buffer.len()]);
        Ok(())
    }
}

impl LayoutError {
    /// The refusal of a partition whose content the image does not have.
    pub(crate) fn left_out(partitions: &[Partition], scope: &Scope) -> Option<LayoutError> {
        partitions
            .iter()
            .find(|partition| partition.left_out && scope.has(partition.number))
            .map(|partition| LayoutError::LeftOut {
                number: partition.number,
            })
    }
}
