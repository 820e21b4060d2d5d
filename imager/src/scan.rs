//! What is on a disk: tables, partitions, and the parts proved to be free.
//!
//! Everything here reads metadata only, and believes it only as far as it proves itself.

use std::io;
use std::ops::Range;

use crate::extent::UNIT_BYTES;
use crate::partition::Partition;
use crate::ranges::Ranges;
use crate::read_at::{ReadAt, Slice};
use crate::scope::PartitionSet;
use crate::tables::Tables;
use crate::whole::Whole;

mod bitlocker;
mod bitmap;
mod btrfs;
mod checksum;
mod exfat;
mod ext;
mod fat;
mod fs;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod gpt;
mod ldm;
mod lvm;
mod mbr;
mod ntfs;
mod refusal;
mod swap;
mod volume;
mod witness;
mod xfs;

#[cfg(feature = "fuzzing")]
pub use fuzzing::{free_of_disk, free_of_volume};
pub(crate) use mbr::extended;
pub use refusal::Refusal;
use volume::{Obstacle, Proof, drop_smallest, prove};

/// The end of a disk is never called free: firmware RAID and dynamic disks keep metadata there.
const NEVER_FREE_AT_END: u64 = 1 << 20;

const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// Most free ranges kept of a disk, whatever it has of volumes; beyond, the smallest count as used.
const FREE_RANGES_MAX: usize = 2 << 20;

/// What was found on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) tables: Tables,
    pub(crate) partitions: Vec<Partition>,
    /// Proved free, bytes: in order, apart, on multiples of [`UNIT_BYTES`].
    pub(crate) free: Vec<Range<u64>>,
    /// What a person should know, in sentences.
    pub(crate) notes: Vec<String>,
    /// Partitions that should not be captured as they are.
    pub(crate) refusals: Vec<Refusal>,
}

/// Scans `disk`, whose sector size is `sector_bytes` when that is known, and asks every file system
/// but those of `whole` what is free; partitions that are not in `only` are left out. A table that
/// contradicts itself is no table; only a disk that cannot be read is an error.
pub(crate) fn scan(
    disk: &dyn ReadAt,
    sector_bytes: Option<u32>,
    whole: &Whole,
    only: Option<&PartitionSet>,
) -> io::Result<Scan> {
    let mut scan = scan_tables(disk, sector_bytes)?;
    for index in 0..scan.partitions.len() {
        let left_out = only.is_some_and(|only| !only.has(scan.partitions[index].number));
        // What two partitions share is not one's to leave out.
        scan.partitions[index].left_out = left_out && !scan.overlaps_another(index);
    }
    scan.look_into_partitions(disk, whole)?;
    scan.tidy_free(disk.raw_bytes());
    Ok(scan)
}

/// The tables of `disk`, and where its partitions lie, without a look into them.
pub(crate) fn scan_tables(disk: &dyn ReadAt, sector_bytes: Option<u32>) -> io::Result<Scan> {
    let sector_bytes = match sector_bytes {
        Some(known) => known,
        None => guess_sector_bytes(disk)?,
    };
    let mut scan = Scan {
        tables: Tables {
            sector_bytes,
            lba0: None,
            gpt: None,
        },
        partitions: Vec::new(),
        free: Vec::new(),
        notes: Vec::new(),
        refusals: Vec::new(),
    };
    scan.read_tables(disk, sector_bytes)?;
    Ok(scan)
}

fn guess_sector_bytes(disk: &dyn ReadAt) -> io::Result<u32> {
    for sector_bytes in SECTOR_SIZES {
        if gpt::signed(disk, sector_bytes)? {
            return Ok(sector_bytes);
        }
    }
    Ok(SECTOR_SIZES[0])
}

impl Scan {
    /// What need not be read: all that is free, or only the partitions left out on request.
    pub(crate) fn skipped(&self, used_only: bool) -> Vec<Range<u64>> {
        if used_only {
            return self.free.clone();
        }
        let left_out = self
            .partitions
            .iter()
            .filter(|partition| partition.left_out);
        let left_out = Ranges::of(left_out.map(|p| p.start_bytes..p.end_bytes()));
        let mut whole_units = Vec::new();
        for range in self
            .free
            .iter()
            .flat_map(|free| left_out.within(free.clone()))
        {
            push_whole_units(&mut whole_units, range);
        }
        whole_units
    }

    fn read_tables(&mut self, disk: &dyn ReadAt, sector_bytes: u32) -> io::Result<()> {
        let raw_bytes = disk.raw_bytes();
        let Some(mbr) = mbr::read(disk, sector_bytes)? else {
            // A file system, or something unknown, on the whole disk.
            self.partitions.push(Partition {
                bytes: raw_bytes,
                ..Partition::default()
            });
            return Ok(());
        };
        if mbr.is_protective() {
            self.tables.gpt = gpt::read(disk, sector_bytes)?;
            let Some(gpt) = &self.tables.gpt else {
                self.notes.push(
                    "its MBR announces a GPT, but neither copy is valid: everything is kept".into(),
                );
                return Ok(());
            };
            self.partitions = gpt::partitions(gpt, sector_bytes, raw_bytes);
            let end = gpt
                .last_usable_lba
                .saturating_add(1)
                .saturating_mul(u64::from(sector_bytes));
            self.add_gaps(&[], end.min(raw_bytes));
        } else {
            let layout = mbr.layout(disk)?;
            self.partitions = layout.partitions;
            self.add_gaps(&layout.extended, raw_bytes);
        }
        let mut lba0 = vec![0; sector_bytes as usize];
        disk.read_exact_at(0, &mut lba0)?;
        self.tables.lba0 = Some(lba0);
        Ok(())
    }

    /// Calls free what lies between the partitions and after the last, up to `end`. What lies
    /// before the first may be a boot loader, and between logical partitions lie their tables.
    fn add_gaps(&mut self, extended: &[Range<u64>], end: u64) {
        let mut taken: Vec<Range<u64>> = self
            .partitions
            .iter()
            .map(|p| p.start_bytes..p.end_bytes())
            .chain(extended.iter().cloned())
            .collect();
        taken.sort_by_key(|range| range.start);
        let mut place = match taken.first() {
            Some(first) => first.end,
            None => return,
        };
        for range in &taken[1..] {
            if place < range.start {
                self.free.push(place..range.start);
            }
            place = place.max(range.end);
        }
        if place < end {
            self.free.push(place..end);
        }
    }

    fn look_into_partitions(&mut self, disk: &dyn ReadAt, whole: &Whole) -> io::Result<()> {
        for index in 0..self.partitions.len() {
            let range = self.partitions[index].start_bytes..self.partitions[index].end_bytes();
            let view = Slice::new(disk, range.clone());
            let found = fs::identify(&view)?;
            let free = if self.partitions[index].left_out {
                Err(Obstacle::unknown("it is left out"))
            } else if self.overlaps_another(index) {
                Err(Obstacle::unknown("it overlaps another partition"))
            } else if self.tables.lba0.is_none() {
                Err(Obstacle::unknown("there is no partition table"))
            } else if ldm::is_member(&self.partitions[index].kind) {
                Err(Obstacle::unknown(ldm::REASON))
            } else {
                prove(found.reader, &view)
            };
            let partition = &mut self.partitions[index];
            partition.used_bytes = partition.bytes;
            if partition.left_out {
                partition.used_bytes = 0;
            }
            partition.fs = found.facts.fs.to_owned();
            partition.uuid = found.facts.uuid;
            if !found.facts.label.is_empty() {
                partition.label = found.facts.label;
            }
            let asked_whole = whole.has(partition.number);
            match free {
                _ if partition.left_out => {
                    let place = place(partition);
                    self.notes.push(format!("{place} is left out as asked"));
                    self.free.push(range);
                }
                Err(Obstacle::Unsafe { found, .. }) if asked_whole => {
                    let place = place(partition);
                    self.notes
                        .push(format!("{place} is kept whole as asked, though {found}"));
                }
                _ if asked_whole => {}
                Ok(Proof { free, label, notes }) => {
                    partition.label = label.unwrap_or(std::mem::take(&mut partition.label));
                    let place = place(partition);
                    self.notes
                        .extend(notes.iter().map(|note| format!("{place}: {note}")));
                    partition.used_bytes -= free
                        .iter()
                        .map(|range| range.end - range.start)
                        .sum::<u64>();
                    self.free.extend(
                        free.into_iter()
                            .map(|f| range.start + f.start..range.start + f.end),
                    );
                    drop_smallest(&mut self.free, FREE_RANGES_MAX);
                }
                Err(Obstacle::Read(error)) => return Err(error),
                // A place for a boot loader is no file system, and small.
                Err(Obstacle::Unknown(_)) if partition.kind == gpt::TYPE_BIOS_BOOT => {}
                Err(Obstacle::Unknown(reason)) => {
                    let place = place(partition);
                    self.notes.push(format!("{place} is kept whole: {reason}"));
                }
                Err(Obstacle::Unsafe { found, remedy }) => self.refusals.push(Refusal {
                    number: partition.number,
                    place: place(partition),
                    found,
                    remedy,
                }),
            }
        }
        Ok(())
    }

    fn overlaps_another(&self, index: usize) -> bool {
        let this = &self.partitions[index];
        self.partitions.iter().enumerate().any(|(other, that)| {
            other != index
                && that.start_bytes < this.end_bytes()
                && this.start_bytes < that.end_bytes()
        })
    }

    /// Sorts the free ranges and shrinks them to whole units, away from tables and the disk's end.
    fn tidy_free(&mut self, raw_bytes: u64) {
        let limit = raw_bytes.saturating_sub(NEVER_FREE_AT_END);
        let masked = self.tables.masked(raw_bytes);
        self.free.sort_by_key(|range| range.start);
        let mut tidy: Vec<Range<u64>> = Vec::new();
        for range in self.free.drain(..) {
            let mut start = range.start.max(tidy.last().map_or(0, |last| last.end));
            let end = range.end.min(limit);
            for table in masked
                .iter()
                .filter(|table| table.start < end && range.start < table.end)
            {
                push_whole_units(&mut tidy, start..table.start);
                start = start.max(table.end);
            }
            push_whole_units(&mut tidy, start..end);
        }
        self.free = tidy;
    }
}

/// A partition in words: `partition 2 (ext4)`.
fn place(partition: &Partition) -> String {
    let place = match partition.number {
        0 => "the disk".to_owned(),
        number => format!("partition {number}"),
    };
    match partition.fs.as_str() {
        "" => place,
        fs => format!("{place} ({fs})"),
    }
}

fn push_whole_units(tidy: &mut Vec<Range<u64>>, range: Range<u64>) {
    let whole = range.start.next_multiple_of(UNIT_BYTES)..range.end / UNIT_BYTES * UNIT_BYTES;
    match tidy.last_mut() {
        _ if whole.start >= whole.end => {}
        Some(last) if last.end == whole.start => last.end = whole.end,
        _ => tidy.push(whole),
    }
}

#[cfg(test)]
mod tests;
