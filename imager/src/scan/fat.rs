//! Which clusters of a FAT12, FAT16 or FAT32 volume are free.
//!
//! The table that gave the family its name is the allocation map: an entry of zero is a free
//! cluster. It is believed when both copies say the same, no entry points where it cannot, and no
//! chain leads into a free cluster. FSInfo is a hint, and no reader's business.
//!
//! A volume that was not unmounted cleanly is kept whole, not refused: the mark stays for ever on
//! many an EFI system partition, and such a partition is small (docs/decisions/0013).
//!
//! Layout: Microsoft's "FAT: General Overview of On-Disk Format", 1.03, and ECMA-107.

use std::ops::Range;

use crate::read_at::{Fields, ReadAt, read_array};
use crate::scan::bitlocker;
use crate::scan::volume::{Free, Obstacle};

const SECTOR_BYTES: std::ops::RangeInclusive<u64> = 512..=4096;
/// Fewer clusters are FAT12, fewer than the second number FAT16.
const CLUSTERS_FAT16: u64 = 4085;
const CLUSTERS_FAT32: u64 = 65_525;
const CLUSTERS_MAX: u64 = 0x0fff_fff5;
/// Entries 0 and 1 are no clusters.
const FIRST_CLUSTER: u64 = 2;

/// How much of the table is in memory at a time: whole entries, whatever their width.
const CHUNK_BYTES: u64 = 12 << 14;

const MIRRORING_OFF: u16 = 0x80;
const STATE_DIRTY: u8 = 1;

/// Bits of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    fn entry_bits(self) -> u64 {
        match self {
            Width::Fat12 => 12,
            Width::Fat16 => 16,
            Width::Fat32 => 32,
        }
    }

    /// Entry `index` of `table`; of FAT32 only 28 bits count.
    fn entry(self, table: &[u8], index: usize) -> u32 {
        let fields = Fields(table);
        match self {
            Width::Fat12 => u32::from(fields.u16(index * 3 / 2) >> (index % 2 * 4) & 0xfff),
            Width::Fat16 => u32::from(fields.u16(index * 2)),
            Width::Fat32 => fields.u32(index * 4) & 0x0fff_ffff,
        }
    }

    /// The smallest value that is no cluster to go on with: a bad cluster, or the end of a file.
    fn special(self) -> u32 {
        match self {
            Width::Fat12 => 0xff7,
            Width::Fat16 => 0xfff7,
            Width::Fat32 => 0x0fff_fff7,
        }
    }

    /// Bits of entry 1 that are set when the volume was unmounted cleanly and met no bad sector.
    fn clean_bits(self) -> u32 {
        match self {
            Width::Fat12 => 0,
            Width::Fat16 => 0xc000,
            Width::Fat32 => 0x0c00_0000,
        }
    }
}

/// What the boot sector says; every value is in its valid range.
#[derive(Debug)]
struct Geometry {
    width: Width,
    cluster_bytes: u64,
    clusters: u64,
    /// Where each copy of the table begins, bytes.
    tables: Range<u64>,
    copies: u64,
    /// Where cluster 2 begins, bytes.
    data: u64,
    /// First cluster of the root directory, when it lies in clusters.
    root: Option<u64>,
    media: u8,
    dirty: bool,
}

/// The free clusters of a FAT volume.
pub(super) fn free(view: &dyn ReadAt) -> Result<Free, Obstacle> {
    let sector = read_array::<512>(view, 0)?.unwrap_or([0; 512]);
    if bitlocker::poses_as_fat(Fields(&sector)) {
        return bitlocker::free(view);
    }
    let geometry = Geometry::parse(Fields(&sector), view.raw_bytes())
        .ok_or_else(|| Obstacle::unknown("its boot sector contradicts itself or the partition"))?;
    let mut free = Free::default();
    let mut holes = Holes::new(geometry.clusters);
    let mut open: Option<u64> = None;
    let place = |cluster: u64| geometry.data + (cluster - FIRST_CLUSTER) * geometry.cluster_bytes;
    geometry.entries(view, &mut |cluster, value| {
        if value == 0 {
            holes.insert(cluster);
            open.get_or_insert(cluster);
        } else if let Some(start) = open.take() {
            free.push(place(start)..place(cluster));
        }
        Ok(())
    })?;
    if let Some(start) = open {
        free.push(place(start)..place(FIRST_CLUSTER + geometry.clusters));
    }
    if geometry.root.is_some_and(|root| holes.contains(root)) {
        return Err(Obstacle::unknown("its table calls its root directory free"));
    }
    geometry.entries(view, &mut |_, value| {
        let next = u64::from(value);
        if value < geometry.width.special() && value != 0 && holes.contains(next) {
            return Err(Obstacle::unknown("a chain of its table leads into nothing"));
        }
        Ok(())
    })?;
    Ok(free)
}

impl Geometry {
    fn parse(fields: Fields<'_>, partition_bytes: u64) -> Option<Geometry> {
        let sector = u64::from(fields.u16(11));
        let cluster_sectors = u64::from(fields.u8(13));
        let (reserved, copies) = (u64::from(fields.u16(14)), u64::from(fields.u8(16)));
        let root_entries = u64::from(fields.u16(17));
        let either = |short: usize, long: usize| match fields.u16(short) {
            0 => u64::from(fields.u32(long)),
            count => u64::from(count),
        };
        let (sectors, table_sectors) = (either(19, 32), either(22, 36));
        let valid_sector = SECTOR_BYTES.contains(&sector) && sector.is_power_of_two();
        if !valid_sector
            || !cluster_sectors.is_power_of_two()
            || reserved == 0
            || table_sectors == 0
            || !(1..=2).contains(&copies)
            || sectors.checked_mul(sector)? > partition_bytes
        {
            return None;
        }
        // Only FAT32 keeps the size of its table in 32 bits: nobody else asks how many clusters.
        let is_fat32 = fields.u16(22) == 0;
        let root_sectors = (root_entries * 32).div_ceil(sector);
        let data = reserved + copies * table_sectors + root_sectors;
        let clusters = sectors.checked_sub(data)? / cluster_sectors;
        let width = match clusters {
            _ if is_fat32 => Width::Fat32,
            clusters if clusters < CLUSTERS_FAT16 => Width::Fat12,
            clusters if clusters < CLUSTERS_FAT32 => Width::Fat16,
            _ => return None,
        };
        let table_bytes = ((clusters + FIRST_CLUSTER) * width.entry_bits()).div_ceil(8);
        let root = u64::from(fields.u32(44));
        let sane = (1..=CLUSTERS_MAX).contains(&clusters)
            && table_bytes <= table_sectors * sector
            && if is_fat32 {
                root_entries == 0
                    && fields.u16(40) & MIRRORING_OFF == 0
                    && fields.u16(42) == 0
                    && (FIRST_CLUSTER..FIRST_CLUSTER + clusters).contains(&root)
            } else {
                root_entries != 0
            };
        sane.then(|| Geometry {
            width,
            cluster_bytes: cluster_sectors * sector,
            clusters,
            tables: reserved * sector..(reserved + table_sectors) * sector,
            copies,
            data: data * sector,
            root: is_fat32.then_some(root),
            media: fields.u8(21),
            dirty: fields.u8(if is_fat32 { 0x41 } else { 0x25 }) & STATE_DIRTY != 0,
        })
    }

    /// Gives every cluster and its entry to `each`, in order, once the copies agree on it.
    fn entries(
        &self,
        view: &dyn ReadAt,
        each: &mut dyn FnMut(u64, u32) -> Result<(), Obstacle>,
    ) -> Result<(), Obstacle> {
        let (bits, end) = (self.width.entry_bits(), self.clusters + FIRST_CLUSTER);
        let mut table = vec![0; CHUNK_BYTES.min((end * bits).div_ceil(8)) as usize];
        let mut copy = table.clone();
        for first in (0..end).step_by((CHUNK_BYTES * 8 / bits) as usize) {
            let count = (CHUNK_BYTES * 8 / bits).min(end - first);
            let bytes = (count * bits).div_ceil(8) as usize;
            let at = self.tables.start + first * bits / 8;
            view.read_exact_at(at, &mut table[..bytes])?;
            if self.copies > 1 {
                let table_bytes = self.tables.end - self.tables.start;
                view.read_exact_at(at + table_bytes, &mut copy[..bytes])?;
                if table[..bytes] != copy[..bytes] {
                    return Err(Obstacle::unknown("the two copies of its table differ"));
                }
            }
            for index in 0..count {
                let value = self.width.entry(&table[..bytes], index as usize);
                match first + index {
                    0 if value as u8 != self.media => {
                        return Err(Obstacle::unknown("its table does not belong to it"));
                    }
                    0 => {}
                    1 => self.check_clean(value)?,
                    cluster
                        if value < self.width.special() && u64::from(value) >= end
                            || value == 1 =>
                    {
                        return Err(Obstacle::Unknown(format!(
                            "the entry of its cluster {cluster} points beyond its end"
                        )));
                    }
                    cluster => each(cluster, value)?,
                }
            }
        }
        Ok(())
    }

    fn check_clean(&self, entry: u32) -> Result<(), Obstacle> {
        let bits = self.width.clean_bits();
        if self.dirty || entry & bits != bits {
            return Err(Obstacle::unknown(
                "it is mounted, or was not unmounted cleanly (`fsck.fat -a` mends that)",
            ));
        }
        Ok(())
    }
}

/// The free clusters, one bit for each: at most 32 MiB, and less than a 1/96 of the table.
struct Holes(Vec<u64>);

impl Holes {
    fn new(clusters: u64) -> Holes {
        Holes(vec![0; ((clusters + FIRST_CLUSTER) / 64 + 1) as usize])
    }

    fn insert(&mut self, cluster: u64) {
        self.0[(cluster / 64) as usize] |= 1 << (cluster % 64);
    }

    fn contains(&self, cluster: u64) -> bool {
        let word = self.0.get((cluster / 64) as usize);
        word.is_some_and(|word| word >> (cluster % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests;
