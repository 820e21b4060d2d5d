//! Reading an MBR partition table and its chain of logical partitions, from a disk that may be
//! hostile: chains that loop, leave the extended partition or never end.
//!
//! Written by hand: the `mbrman` crate adds sector numbers without a check and follows any chain.
//! It serves the tests as a second opinion.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use crate::partition::{BootModes, Partition};
use crate::read_at::{Fields, ReadAt, read_array};

/// Most logical partitions followed; Linux names no more than 60 or so.
const LOGICAL_MAX: usize = 128;
const FIRST_LOGICAL: u32 = 5;

const TABLE_AT: usize = 446;
const ENTRY_BYTES: usize = 16;
const TYPE_PROTECTIVE: u8 = 0xee;
const TYPE_EFI_SYSTEM: u8 = 0xef;
const ACTIVE: u8 = 0x80;

/// The primary table of sector 0.
pub(super) struct Mbr {
    entries: [Entry; 4],
    sector_bytes: u32,
}

/// What an MBR says of a disk.
#[derive(Default)]
pub(super) struct Layout {
    /// Primary and logical partitions, not the extended one.
    pub(super) partitions: Vec<Partition>,
    /// The extended partition, bytes: what is between its logical partitions is never free.
    pub(super) extended: Vec<Range<u64>>,
}

#[derive(Clone, Copy)]
struct Entry {
    status: u8,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl Entry {
    fn parse(sector: &[u8; 512], index: usize) -> Entry {
        let fields = Fields(&sector[TABLE_AT + index * ENTRY_BYTES..][..ENTRY_BYTES]);
        Entry {
            status: fields.bytes(0, 1)[0],
            kind: fields.bytes(4, 1)[0],
            start: fields.u32(8),
            sectors: fields.u32(12),
        }
    }

    fn is_empty(self) -> bool {
        self.kind == 0 || self.sectors == 0
    }

    fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    /// The sectors covered when `base` is sector 0 of this entry's counting.
    fn range(self, base: u64) -> Range<u64> {
        let start = base + u64::from(self.start);
        start..start + u64::from(self.sectors)
    }

    fn partition(self, number: u32, sectors: Range<u64>, sector_bytes: u32) -> Partition {
        let sector = u64::from(sector_bytes);
        Partition {
            number,
            start_bytes: sectors.start * sector,
            bytes: (sectors.end - sectors.start) * sector,
            kind: format!("{:#04x}", self.kind),
            boot: BootModes {
                bios: self.status == ACTIVE,
                uefi: self.kind == TYPE_EFI_SYSTEM,
            },
            ..Partition::default()
        }
    }
}

/// The extended partitions that `lba0`, a sector 0 with a table, speaks of, in bytes.
pub(crate) fn extended(lba0: &[u8], sector_bytes: u32) -> Vec<Range<u64>> {
    let Some(sector) = lba0.first_chunk::<512>() else {
        return Vec::new();
    };
    let sector_bytes = u64::from(sector_bytes);
    [0, 1, 2, 3]
        .map(|index| Entry::parse(sector, index))
        .into_iter()
        .filter(|entry| !entry.is_empty() && entry.is_extended())
        .map(|entry| entry.range(0))
        .map(|range| range.start * sector_bytes..range.end * sector_bytes)
        .collect()
}

/// The table in sector 0; none when that is the boot sector of a file system, or nonsense.
pub(super) fn read(disk: &dyn ReadAt, sector_bytes: u32) -> io::Result<Option<Mbr>> {
    let Some(sector) = signed_sector(disk, 0)? else {
        return Ok(None);
    };
    let entries = [0, 1, 2, 3].map(|index| Entry::parse(&sector, index));
    let mbr = Mbr {
        entries,
        sector_bytes,
    };
    let sane = mbr.entries.iter().all(|entry| entry.status & !ACTIVE == 0);
    let some = mbr.entries.iter().any(|entry| !entry.is_empty());
    if !sane || !some || looks_like_boot_sector(&sector) {
        return Ok(None);
    }
    if mbr.is_protective() {
        return Ok(Some(mbr));
    }
    let disk_sectors = disk.raw_bytes() / u64::from(sector_bytes);
    let mut ranges: Vec<Range<u64>> = mbr
        .entries
        .iter()
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.range(0))
        .collect();
    ranges.sort_by_key(|range| range.start);
    let apart = ranges.windows(2).all(|pair| pair[0].end <= pair[1].start);
    let inside = ranges
        .iter()
        .all(|range| range.start > 0 && range.end <= disk_sectors);
    Ok((apart && inside).then_some(mbr))
}

impl Mbr {
    /// Whether it only protects a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.kind == TYPE_PROTECTIVE)
    }

    /// The partitions, following the chain of logical ones as far as it makes sense.
    pub(super) fn layout(&self, disk: &dyn ReadAt) -> io::Result<Layout> {
        let sector = u64::from(self.sector_bytes);
        let mut layout = Layout::default();
        for (entry, number) in self.entries.iter().zip(1u32..) {
            if entry.is_empty() {
                continue;
            }
            let range = entry.range(0);
            if entry.is_extended() {
                layout
                    .extended
                    .push(range.start * sector..range.end * sector);
            } else {
                layout
                    .partitions
                    .push(entry.partition(number, range, self.sector_bytes));
            }
        }
        // Linux numbers the logical partitions of the first extended one only.
        if let Some(extended) = self
            .entries
            .iter()
            .find(|entry| !entry.is_empty() && entry.is_extended())
        {
            layout
                .partitions
                .extend(self.logical(disk, extended.range(0))?);
        }
        Ok(layout)
    }

    fn logical(&self, disk: &dyn ReadAt, extended: Range<u64>) -> io::Result<Vec<Partition>> {
        let mut found: Vec<Partition> = Vec::new();
        let mut visited = BTreeSet::new();
        let mut place = extended.start;
        while visited.len() < LOGICAL_MAX && extended.contains(&place) && visited.insert(place) {
            let Some(sector) = signed_sector(disk, place * u64::from(self.sector_bytes))? else {
                break;
            };
            let [this, next] = [0, 1].map(|index| Entry::parse(&sector, index));
            let range = this.range(place);
            if !this.is_empty() && range.start > place && range.end <= extended.end {
                let number = FIRST_LOGICAL + found.len() as u32;
                found.push(this.partition(number, range, self.sector_bytes));
            }
            if next.is_empty() || !next.is_extended() {
                break;
            }
            place = extended.start + u64::from(next.start);
        }
        Ok(found)
    }
}

fn signed_sector(disk: &dyn ReadAt, offset: u64) -> io::Result<Option<[u8; 512]>> {
    let sector = read_array::<512>(disk, offset)?;
    Ok(sector.filter(|sector| sector[510..] == [0x55, 0xaa]))
}

/// A FAT, exFAT or NTFS boot sector carries the signature of an MBR, too.
fn looks_like_boot_sector(sector: &[u8; 512]) -> bool {
    let names: [(usize, &[u8]); 4] = [
        (3, b"NTFS    "),
        (3, b"EXFAT   "),
        (54, b"FAT"),
        (82, b"FAT32"),
    ];
    names
        .iter()
        .any(|(at, name)| sector[*at..].starts_with(name))
}
