//! Partition tables kept apart from the data.
//!
//! A table speaks of the disk it lies on (where the disk ends, where the backup is), so its sectors are not compared
//! with the image byte by byte. They are masked in the frame hashes, kept here, and rendered anew for each disk by `fit`.

use std::ops::Range;

/// The partition tables of a disk, as the manifest keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tables {
    /// Logical sector size the tables were written for, in bytes (512 or 4096).
    pub sector_bytes: u32,
    /// LBA 0 as it was, `sector_bytes` long: boot code and MBR (a real or a protective one). `None`: no table recognised.
    pub lba0: Option<Vec<u8>>,
    /// The GUID partition table, when there is a valid one.
    pub gpt: Option<Gpt>,
}

/// A GUID partition table (UEFI 2.10, section 5.3), without what only holds for one disk size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    /// Disk GUID as it lies on the disk (mixed endian).
    pub disk_guid: [u8; 16],
    /// First LBA that a partition may use.
    pub first_usable_lba: u64,
    /// Last LBA that a partition may use, on the source disk.
    pub last_usable_lba: u64,
    /// Where the primary entry array starts (almost always 2).
    pub entries_lba: u64,
    /// Where the backup header lies on the source disk (its last LBA, unless the disk has grown).
    pub backup_lba: u64,
    /// Where the backup entry array starts on the source disk.
    pub backup_entries_lba: u64,
    /// Number of entries in the array (128 as a rule).
    pub entry_count: u32,
    /// Bytes of one entry (128 as a rule).
    pub entry_bytes: u32,
    /// The whole entry array, `entry_count * entry_bytes` long.
    pub entries: Vec<u8>,
}

impl Gpt {
    /// Sectors that one copy of the entry array takes.
    pub fn entries_sectors(&self, sector_bytes: u32) -> u64 {
        (u64::from(self.entry_count) * u64::from(self.entry_bytes))
            .div_ceil(u64::from(sector_bytes))
    }
}

impl Tables {
    /// The byte ranges of the source disk that hold tables: exactly these are masked in the frame hashes.
    /// In rising order, not overlapping; never beyond `raw_bytes`.
    pub fn masked(&self, raw_bytes: u64) -> Vec<Range<u64>> {
        let sector = u64::from(self.sector_bytes);
        let mut ranges = Vec::new();
        if self.lba0.is_some() {
            ranges.push(0..sector);
        }
        if let Some(gpt) = &self.gpt {
            let array = gpt.entries_sectors(self.sector_bytes) * sector;
            ranges.push(sector..2 * sector);
            for (lba, bytes) in [
                (gpt.entries_lba, array),
                (gpt.backup_entries_lba, array),
                (gpt.backup_lba, sector),
            ] {
                let start = lba.saturating_mul(sector);
                ranges.push(start..start.saturating_add(bytes));
            }
        }
        ranges.retain_mut(|r| {
            r.end = r.end.min(raw_bytes);
            r.start < r.end
        });
        ranges.sort_by_key(|r| r.start);
        ranges.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        ranges
    }
}
