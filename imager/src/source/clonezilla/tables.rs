//! What Clonezilla does not save but makes anew: logical partitions, the backup GPT, swap headers.

use crate::read_at::Fields;
use crate::source::clonezilla::layout::{Layout, Place};
use crate::source::fault::Fault;

/// Where the four entries of an MBR or EBR begin.
const ENTRIES_AT: usize = 446;
const ENTRY_BYTES: usize = 16;
/// Where `fdisk` and `parted` put the EBR: this many sectors before its partition.
const EBR_AHEAD: u64 = 2048;
/// Most bytes the entries of a GPT may have.
const GPT_ENTRIES_MAX: usize = 128 * 128 * 4;
const SWAP_PAGE_BYTES: usize = 4096;

/// Sectors and what is in them.
pub(super) type Sectors = Vec<(u64, Vec<u8>)>;

/// The chain of EBRs that describes the logical partitions of `layout`. `code` is what the first
/// one was, whose boot code stays.
pub(super) fn logical(layout: &Layout, code: Option<&[u8]>) -> Result<Sectors, Fault> {
    let Some(extended) = layout.places.iter().find(|place| place.extended) else {
        return Ok(Vec::new());
    };
    let mut logical: Vec<&Place> = layout.places.iter().filter(|p| p.number > 4).collect();
    logical.sort_by_key(|place| place.number);
    let mut records = Vec::new();
    for (index, place) in logical.iter().enumerate() {
        let within = extended.start < place.start && place.end() <= extended.end();
        let ends = logical.iter().map(|other| other.end());
        let before = ends.filter(|&end| end <= place.start).max();
        // The first lies where the extended partition begins, even if its partition does not.
        let free_from = before.unwrap_or(0).max(extended.start + 1);
        let record = match index {
            0 => extended.start,
            _ => place.start.saturating_sub(EBR_AHEAD).max(free_from),
        };
        if !within || record >= place.start {
            let name = &place.name;
            return Err(Fault::refuse(format!(
                "there is no room for the table of the logical partition {name}"
            )));
        }
        records.push(record);
    }
    let mut sectors: Sectors = Vec::new();
    for (index, (place, &record)) in logical.iter().zip(&records).enumerate() {
        let mut bytes = vec![0; 512];
        if let Some(code) = code.filter(|code| index == 0 && code.len() >= ENTRIES_AT) {
            bytes[..ENTRIES_AT].copy_from_slice(&code[..ENTRIES_AT]);
        }
        let boot = if place.bootable { 0x80 } else { 0 };
        entry(
            &mut bytes,
            0,
            (boot, place.kind),
            place.start - record,
            place.sectors,
        )?;
        if let (Some(next), Some(&next_record)) = (logical.get(index + 1), records.get(index + 1)) {
            let sectors = next.end() - next_record;
            entry(
                &mut bytes,
                1,
                (0, 0x05),
                next_record - extended.start,
                sectors,
            )?;
        }
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        sectors.push((record, bytes));
    }
    if logical.is_empty() {
        // An extended partition without any still needs its first record.
        let mut bytes = vec![0; 512];
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        sectors.push((extended.start, bytes));
    }
    Ok(sectors)
}

/// Writes one entry. Addresses in cylinders are those that say "look at the sectors".
fn entry(
    record: &mut [u8],
    index: usize,
    (boot, kind): (u8, u8),
    start: u64,
    sectors: u64,
) -> Result<(), Fault> {
    let narrow = |value| {
        u32::try_from(value).map_err(|_| Fault::refuse("a logical partition behind 2^32 sectors"))
    };
    let at = ENTRIES_AT + index * ENTRY_BYTES;
    let entry = &mut record[at..at + ENTRY_BYTES];
    entry[..8].copy_from_slice(&[boot, 0xfe, 0xff, 0xff, kind, 0xfe, 0xff, 0xff]);
    entry[8..12].copy_from_slice(&narrow(start)?.to_le_bytes());
    entry[12..].copy_from_slice(&narrow(sectors)?.to_le_bytes());
    Ok(())
}

/// A GPT as it was saved.
pub(super) struct Gpt {
    /// The protective MBR.
    pub(super) mbr: Vec<u8>,
    header: Vec<u8>,
    entries: Vec<u8>,
    sector_bytes: usize,
    backup: u64,
}

impl Gpt {
    /// Reads the GPT from `first`, the first 17 KiB of the disk, or else from `backup`, a file of
    /// `sgdisk -b`: protective MBR, primary header, backup header, entries, each a sector or more.
    ///
    /// # Errors
    /// When neither holds a whole and right table.
    pub(super) fn parse(
        first: Option<&[u8]>,
        backup: Option<&[u8]>,
        sector_bytes: u32,
        disk_sectors: u64,
    ) -> Result<Gpt, Fault> {
        let sector = sector_bytes as usize;
        let first = first.map(|bytes| (bytes, 2 * sector));
        let backup = backup.map(|bytes| (bytes, 3 * sector));
        let mut found = Err(Fault::refuse(
            "neither NAME-gpt-1st nor NAME-gpt.gdisk is there",
        ));
        for (bytes, entries_at) in first.into_iter().chain(backup) {
            found = Gpt::at(bytes, entries_at, sector, disk_sectors);
            if found.is_ok() {
                break;
            }
        }
        found
    }

    fn at(bytes: &[u8], entries_at: usize, sector: usize, disk_sectors: u64) -> Result<Gpt, Fault> {
        let wrong = |what: &str| Fault::at(sector as u64, format!("the saved GPT: {what}"));
        let header = bytes
            .get(sector..2 * sector)
            .ok_or_else(|| wrong("cut short"))?;
        let fields = Fields(header);
        let length = fields.u32(12) as usize;
        if fields.bytes(0, 8) != b"EFI PART" || !(92..=sector).contains(&length) {
            return Err(wrong("no header"));
        }
        let mut summed = header[..length].to_vec();
        summed[16..20].fill(0);
        if crc32fast::hash(&summed) != fields.u32(16) {
            return Err(wrong("the checksum of its header"));
        }
        let size = (fields.u32(80) as usize).checked_mul(fields.u32(84) as usize);
        let size = size.filter(|&size| size <= GPT_ENTRIES_MAX);
        let size = size.ok_or_else(|| wrong("too many entries"))?;
        let entries = bytes.get(entries_at..).and_then(|rest| rest.get(..size));
        let entries = entries.ok_or_else(|| wrong("its entries are cut short"))?;
        if crc32fast::hash(entries) != fields.u32(88) {
            return Err(wrong("the checksum of its entries"));
        }
        let backup = fields.u64(32);
        let room = size.div_ceil(sector) as u64 + 1;
        if fields.u64(24) != 1 || backup >= disk_sectors || backup < 2 * room + 1 {
            return Err(wrong("it is not of a disk of this size"));
        }
        Ok(Gpt {
            mbr: bytes[..512].to_vec(),
            header: header.to_vec(),
            entries: entries.to_vec(),
            sector_bytes: sector,
            backup,
        })
    }

    /// Both copies: headers and entries, by their sector.
    pub(super) fn render(&self) -> Sectors {
        let backup_entries = self.backup - self.entries.len().div_ceil(self.sector_bytes) as u64;
        vec![
            (1, self.header_at(1, self.backup, 2)),
            (2, self.entries.clone()),
            (backup_entries, self.entries.clone()),
            (self.backup, self.header_at(self.backup, 1, backup_entries)),
        ]
    }

    fn header_at(&self, own: u64, other: u64, entries: u64) -> Vec<u8> {
        let mut header = self.header.clone();
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[72..80].copy_from_slice(&entries.to_le_bytes());
        header[16..20].fill(0);
        let length = Fields(&header).u32(12) as usize;
        let crc = crc32fast::hash(&header[..length]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// The first page of a swap partition of `bytes`, as `mkswap` makes it, with the UUID and label of
/// a file `UUID="…"` `LABEL="…"`; none when that names no UUID.
pub(super) fn swap_header(info: &str, bytes: u64) -> Option<Vec<u8>> {
    let value = |key: &str| {
        let rest = info
            .lines()
            .find_map(|line| line.trim().strip_prefix(key))?;
        Some(rest.strip_prefix('=')?.trim().trim_matches('"').to_owned())
    };
    let digits: Vec<u32> = value("UUID")?
        .chars()
        .filter_map(|c| c.to_digit(16))
        .collect();
    let uuid: Vec<u8> = digits
        .chunks_exact(2)
        .map(|d| (d[0] << 4 | d[1]) as u8)
        .collect();
    let pages = bytes / SWAP_PAGE_BYTES as u64;
    if uuid.len() != 16 || pages < 10 {
        return None;
    }
    let label = value("LABEL").unwrap_or_default();
    let label = &label.as_bytes()[..label.len().min(15)];
    let last_page = u32::try_from(pages - 1).unwrap_or(u32::MAX);
    let mut page = vec![0; SWAP_PAGE_BYTES];
    page[1024..1028].copy_from_slice(&1u32.to_le_bytes());
    page[1028..1032].copy_from_slice(&last_page.to_le_bytes());
    page[1036..1052].copy_from_slice(&uuid);
    page[1052..1052 + label.len()].copy_from_slice(label);
    page[SWAP_PAGE_BYTES - 10..].copy_from_slice(b"SWAPSPACE2");
    Some(page)
}
