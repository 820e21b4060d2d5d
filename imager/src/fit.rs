//! The partition tables as *this* disk shall hold them.
//!
//! [`fit`] is pure: it takes the tables of an image and the size of a disk, and renders MBR, primary GPT and backup GPT
//! with the backup at the disk's real end. On a disk of the source's size the result is the source's tables, byte for
//! byte. Formats: UEFI 2.10, section 5 (MBR 5.2, GPT 5.3).

use thiserror::Error;

use crate::tables::{Gpt, Tables};

/// Bytes of a GPT header that its checksum covers.
const HEADER_BYTES: usize = 92;
/// Smallest entry the standard allows, in bytes.
const ENTRY_BYTES_MIN: u32 = 128;
/// Alignment of a grown partition's end, in bytes.
const GROW_ALIGNMENT_BYTES: u64 = 1 << 20;
/// Where the four entries of an MBR begin in LBA 0, and how long one is.
const MBR_ENTRIES: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;
/// MBR partition type of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;

/// Why the tables of an image cannot be put on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FitError {
    /// A partition or the backup table would end beyond the disk.
    #[error(
        "partitions need a disk of {needed_bytes} bytes, this one has {disk_bytes}; choose a larger disk"
    )]
    TooSmall {
        /// Smallest disk that would do, in bytes.
        needed_bytes: u64,
        /// Size of the disk, in bytes.
        disk_bytes: u64,
    },
    /// Tables count in sectors: they mean other bytes on a disk with other sectors.
    #[error(
        "image was taken from a disk of {image}-byte sectors, this disk has {disk}-byte sectors; choose another disk, \
         or format its namespace to {image}-byte sectors"
    )]
    SectorSize {
        /// Sector size of the image, in bytes.
        image: u32,
        /// Sector size of the disk, in bytes.
        disk: u32,
    },
    /// The tables contradict themselves.
    #[error("partition tables of the image are inconsistent: {0}")]
    Inconsistent(&'static str),
}

/// What becomes of the last partition on a disk larger than the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastPartition {
    /// It keeps its size.
    #[default]
    Keep,
    /// It is extended to the end of the disk. The file system in it is not.
    Grow,
}

/// A run of table sectors at its place on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRun {
    /// Where it begins, in bytes from the start of the disk.
    pub offset: u64,
    /// Its content: whole sectors.
    pub data: Vec<u8>,
}

/// The tables rendered for one disk: runs in rising order that do not overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FittedTables {
    /// The runs; none when the image has no recognised table.
    pub runs: Vec<TableRun>,
}

impl FittedTables {
    /// Puts the table bytes that fall into `buffer` at their place; `offset` is where the buffer begins on the disk.
    pub fn overlay(&self, offset: u64, buffer: &mut [u8]) {
        self.each_overlap(offset, buffer.len() as u64, |run, at, bytes| {
            let from = (at - run.offset) as usize;
            let to = (at - offset) as usize;
            buffer[to..to + bytes].copy_from_slice(&run.data[from..from + bytes]);
        });
    }

    /// Zeros the bytes of `buffer` where a table lies; `offset` is where the buffer begins on the disk.
    pub fn mask(&self, offset: u64, buffer: &mut [u8]) {
        self.each_overlap(offset, buffer.len() as u64, |_, at, bytes| {
            let to = (at - offset) as usize;
            buffer[to..to + bytes].fill(0);
        });
    }

    fn each_overlap(&self, offset: u64, length: u64, mut visit: impl FnMut(&TableRun, u64, usize)) {
        for run in &self.runs {
            let start = run.offset.max(offset);
            let end = (run.offset + run.data.len() as u64).min(offset + length);
            if start < end {
                visit(run, start, (end - start) as usize);
            }
        }
    }
}

/// Renders `tables` for a disk of `disk_bytes` with sectors of `sector_bytes`.
///
/// # Errors
/// When the sectors differ in size, a partition would end beyond the disk, or the tables are inconsistent.
pub fn fit(
    tables: &Tables,
    disk_bytes: u64,
    sector_bytes: u32,
    last: LastPartition,
) -> Result<FittedTables, FitError> {
    let Some(lba0) = &tables.lba0 else {
        return Ok(FittedTables::default());
    };
    if tables.sector_bytes != sector_bytes {
        return Err(FitError::SectorSize {
            image: tables.sector_bytes,
            disk: sector_bytes,
        });
    }
    if sector_bytes < 512 || lba0.len() != sector_bytes as usize {
        return Err(FitError::Inconsistent("LBA 0 is not one sector long"));
    }
    let disk = Disk {
        bytes: disk_bytes,
        sector: u64::from(sector_bytes),
    };
    match &tables.gpt {
        Some(gpt) => disk.fit_gpt(lba0, gpt, last),
        None => disk.fit_mbr(lba0, last),
    }
}

/// The disk that tables are rendered for.
struct Disk {
    bytes: u64,
    sector: u64,
}

impl Disk {
    fn sectors(&self) -> u64 {
        self.bytes / self.sector
    }

    fn too_small(&self, sectors: u64) -> FitError {
        FitError::TooSmall {
            needed_bytes: sectors.saturating_mul(self.sector),
            disk_bytes: self.bytes,
        }
    }

    fn run(&self, lba: u64, mut data: Vec<u8>) -> TableRun {
        data.resize(data.len().next_multiple_of(self.sector as usize), 0);
        TableRun {
            offset: lba * self.sector,
            data,
        }
    }

    fn fit_mbr(&self, lba0: &[u8], last: LastPartition) -> Result<FittedTables, FitError> {
        let mut lba0 = lba0.to_vec();
        let mut entries: Vec<MbrEntry> = MbrEntry::all(&lba0).collect();
        let needed = entries.iter().map(MbrEntry::end).max().unwrap_or(1);
        if needed > self.sectors() {
            return Err(self.too_small(needed));
        }
        // An extended partition is left alone: its chain of tables lies in its data.
        let last_entry = entries.iter_mut().max_by_key(|entry| entry.end());
        if let (LastPartition::Grow, Some(entry)) = (last, last_entry)
            && !matches!(entry.kind, 0x05 | 0x0f | 0x85)
        {
            let end = self.align_down(self.sectors()).min(u64::from(u32::MAX));
            if end > entry.end() {
                entry.sectors = (end - u64::from(entry.start)) as u32;
                entry.put(&mut lba0);
            }
        }
        Ok(FittedTables {
            runs: vec![self.run(0, lba0)],
        })
    }

    fn fit_gpt(
        &self,
        lba0: &[u8],
        gpt: &Gpt,
        last: LastPartition,
    ) -> Result<FittedTables, FitError> {
        let array_bytes = u64::from(gpt.entry_count) * u64::from(gpt.entry_bytes);
        if gpt.entry_bytes < ENTRY_BYTES_MIN || gpt.entries.len() as u64 != array_bytes {
            return Err(FitError::Inconsistent(
                "GPT entry array is not as long as its header says",
            ));
        }
        let array_sectors = array_bytes.div_ceil(self.sector);
        let primary_end = gpt.entries_lba.checked_add(array_sectors);
        if gpt.entries_lba < 2 || primary_end.is_none_or(|end| end > gpt.first_usable_lba) {
            return Err(FitError::Inconsistent(
                "GPT entry array overlaps the partitions",
            ));
        }
        // Behind the last usable sector come the backup array and, last of all, the backup header.
        let backup_sectors = array_sectors + 1;
        let last_used = gpt.last_used_lba().unwrap_or(0).max(gpt.first_usable_lba);
        let needed = last_used.saturating_add(backup_sectors + 1);
        if needed > self.sectors() {
            return Err(self.too_small(needed));
        }

        let last_lba = self.sectors() - 1;
        let same_end = last_lba == gpt.backup_lba
            && gpt.last_usable_lba >= last_used
            && gpt.last_usable_lba < gpt.backup_entries_lba
            && gpt.backup_entries_lba.saturating_add(array_sectors) <= last_lba;
        let (last_usable, backup_entries) = if same_end {
            (gpt.last_usable_lba, gpt.backup_entries_lba)
        } else {
            (last_lba - backup_sectors, last_lba - array_sectors)
        };

        let mut entries = gpt.entries.clone();
        if last == LastPartition::Grow {
            self.grow_last(&mut entries, gpt.entry_bytes, last_usable);
        }
        let mut lba0 = lba0.to_vec();
        if !same_end {
            protect(&mut lba0, last_lba);
        }
        let header = |own, other, entries_lba| {
            render_header(gpt, &entries, own, other, entries_lba, last_usable)
        };
        let mut runs = vec![
            self.run(0, lba0),
            self.run(1, header(1, last_lba, gpt.entries_lba)),
            self.run(gpt.entries_lba, entries.clone()),
            self.run(backup_entries, entries.clone()),
            self.run(last_lba, header(last_lba, 1, backup_entries)),
        ];
        runs.dedup_by(|next, run| {
            let adjoins = run.offset + run.data.len() as u64 == next.offset;
            if adjoins {
                run.data.append(&mut next.data);
            }
            adjoins
        });
        Ok(FittedTables { runs })
    }

    fn grow_last(&self, entries: &mut [u8], entry_bytes: u32, last_usable: u64) {
        let end = self.align_down(last_usable + 1);
        let last = entries
            .chunks_exact_mut(entry_bytes as usize)
            .filter(|entry| is_used(entry))
            .max_by_key(|entry| u64_at(entry, 40));
        if let Some(entry) = last
            && end > u64_at(entry, 40) + 1
        {
            entry[40..48].copy_from_slice(&(end - 1).to_le_bytes());
        }
    }

    /// The highest sector not above `lba` at which a megabyte begins.
    fn align_down(&self, lba: u64) -> u64 {
        let step = GROW_ALIGNMENT_BYTES / self.sector;
        lba / step * step
    }
}

impl Gpt {
    /// The last sector of the partition that ends last.
    pub(crate) fn last_used_lba(&self) -> Option<u64> {
        self.entries
            .chunks_exact(self.entry_bytes.max(ENTRY_BYTES_MIN) as usize)
            .filter(|entry| is_used(entry))
            .map(|entry| u64_at(entry, 40))
            .max()
    }
}

/// One of the four entries of an MBR that is in use.
struct MbrEntry {
    index: usize,
    kind: u8,
    start: u32,
    sectors: u32,
}

impl MbrEntry {
    fn all(lba0: &[u8]) -> impl Iterator<Item = MbrEntry> + '_ {
        lba0[MBR_ENTRIES..]
            .chunks_exact(MBR_ENTRY_BYTES)
            .take(4)
            .enumerate()
            .filter_map(|(index, entry)| {
                let word = |at: usize| {
                    u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
                };
                let entry = MbrEntry {
                    index,
                    kind: entry[4],
                    start: word(8),
                    sectors: word(12),
                };
                (entry.kind != 0 && entry.sectors != 0).then_some(entry)
            })
    }

    fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.sectors)
    }

    fn put(&self, lba0: &mut [u8]) {
        let at = MBR_ENTRIES + self.index * MBR_ENTRY_BYTES + 12;
        lba0[at..at + 4].copy_from_slice(&self.sectors.to_le_bytes());
    }
}

/// Lets the protective entry cover the whole disk. A hybrid MBR, or one that claims "as large as can be" (Windows
/// writes it so), stays as it is.
fn protect(lba0: &mut [u8], last_lba: u64) {
    let mut entries: Vec<MbrEntry> = MbrEntry::all(lba0).collect();
    if let [entry] = entries.as_mut_slice()
        && entry.kind == PROTECTIVE
        && entry.start == 1
        && entry.sectors != u32::MAX
    {
        entry.sectors = u32::try_from(last_lba).unwrap_or(u32::MAX);
        entry.put(lba0);
    }
}

fn render_header(
    gpt: &Gpt,
    entries: &[u8],
    own: u64,
    other: u64,
    entries_lba: u64,
    last_usable: u64,
) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(b"EFI PART");
    header.extend_from_slice(&0x0001_0000u32.to_le_bytes());
    header.extend_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    for lba in [own, other, gpt.first_usable_lba, last_usable] {
        header.extend_from_slice(&lba.to_le_bytes());
    }
    header.extend_from_slice(&gpt.disk_guid);
    header.extend_from_slice(&entries_lba.to_le_bytes());
    header.extend_from_slice(&gpt.entry_count.to_le_bytes());
    header.extend_from_slice(&gpt.entry_bytes.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(entries).to_le_bytes());
    let checksum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn is_used(entry: &[u8]) -> bool {
    entry[..16].iter().any(|byte| *byte != 0)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests;
