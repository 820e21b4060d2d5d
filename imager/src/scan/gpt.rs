//! Reading a GUID partition table (UEFI 2.10, section 5.3) from a disk that may be hostile.
//!
//! Written by hand: the `gpt` crate asserts on unusual entry sizes and allocates what the header
//! claims. It serves the tests as a second opinion.

use std::io;

use crate::manifest::{ENTRY_ARRAY_MAX, LBA_MAX};
use crate::partition::{BootModes, Partition};
use crate::read_at::{Fields, ReadAt};
use crate::tables::Gpt;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES_MIN: u32 = 128;
const PRIMARY_LBA: u64 = 1;

const TYPE_EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// A partition that holds a boot loader, never a file system.
pub(super) const TYPE_BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";
const ATTRIBUTE_LEGACY_BIOS: u64 = 1 << 2;

/// Whether a GPT header lies in the second sector, were sectors of `sector_bytes`.
pub(super) fn signed(disk: &dyn ReadAt, sector_bytes: u32) -> io::Result<bool> {
    let found = crate::read_at::read_array::<8>(disk, PRIMARY_LBA * u64::from(sector_bytes))?;
    Ok(found.is_some_and(|bytes| &bytes == SIGNATURE))
}

/// The table of `disk`, from whichever copy is valid; none when neither is.
///
/// A copy that is not valid is said to lie beyond the end of the disk: its sectors are data.
pub(super) fn read(disk: &dyn ReadAt, sector_bytes: u32) -> io::Result<Option<Gpt>> {
    let sectors = disk.raw_bytes() / u64::from(sector_bytes);
    let primary = read_copy(disk, sector_bytes, PRIMARY_LBA)?;
    let mut backup_places = vec![sectors.saturating_sub(1)];
    backup_places.extend(primary.as_ref().map(|copy| copy.other_lba));
    let mut backup = None;
    while let (None, Some(lba)) = (&backup, backup_places.pop()) {
        backup = read_copy(disk, sector_bytes, lba)?.map(|copy| (lba, copy));
    }
    // A backup of another table is not this table's backup, but something left behind.
    let backup = backup.filter(|(_, copy)| {
        primary
            .as_ref()
            .is_none_or(|first| first.gpt.disk_guid == copy.gpt.disk_guid)
    });
    let (backup_lba, backup_entries_lba) =
        backup.as_ref().map_or((sectors, sectors), |(lba, copy)| {
            (*lba, copy.gpt.entries_lba)
        });
    let gpt = match (primary, backup) {
        (Some(copy), _) => copy.gpt,
        (None, Some((_, copy))) => Gpt {
            entries_lba: PRIMARY_LBA + 1,
            ..copy.gpt
        },
        (None, None) => return Ok(None),
    };
    let primary_fits = gpt.entries_lba + gpt.entries_sectors(sector_bytes) <= gpt.first_usable_lba;
    Ok(primary_fits.then_some(Gpt {
        backup_lba,
        backup_entries_lba,
        ..gpt
    }))
}

/// The partitions of `gpt`; entries that do not lie among the usable sectors are left out.
pub(super) fn partitions(gpt: &Gpt, sector_bytes: u32, raw_bytes: u64) -> Vec<Partition> {
    let sector = u64::from(sector_bytes);
    let last_lba = gpt
        .last_usable_lba
        .min((raw_bytes / sector).saturating_sub(1));
    let entries = gpt
        .entries
        .chunks_exact(gpt.entry_bytes as usize)
        .zip(1u32..);
    entries
        .filter_map(|(entry, number)| {
            let fields = Fields(entry);
            let (first, last) = (fields.u64(32), fields.u64(40));
            let empty = fields.bytes(0, 16).iter().all(|&byte| byte == 0);
            if empty || first < gpt.first_usable_lba || last > last_lba || first > last {
                return None;
            }
            let kind = fields.guid(0);
            let name: Vec<u16> = (56..128)
                .step_by(2)
                .map(|at| fields.u16(at))
                .take_while(|&unit| unit != 0)
                .collect();
            Some(Partition {
                number,
                start_bytes: first * sector,
                bytes: (last - first + 1) * sector,
                label: String::from_utf16_lossy(&name),
                boot: BootModes {
                    bios: kind == TYPE_BIOS_BOOT || fields.u64(48) & ATTRIBUTE_LEGACY_BIOS != 0,
                    uefi: kind == TYPE_EFI_SYSTEM,
                },
                kind,
                ..Partition::default()
            })
        })
        .collect()
}

struct Copy {
    gpt: Gpt,
    other_lba: u64,
}

fn read_copy(disk: &dyn ReadAt, sector_bytes: u32, lba: u64) -> io::Result<Option<Copy>> {
    let sector = u64::from(sector_bytes);
    let sectors = disk.raw_bytes() / sector;
    if lba == 0 || lba >= sectors {
        return Ok(None);
    }
    let mut header = vec![0; sector_bytes as usize];
    disk.read_exact_at(lba * sector, &mut header)?;
    let fields = Fields(&header);
    let header_bytes = fields.u32(12) as usize;
    if fields.bytes(0, 8) != SIGNATURE || !(HEADER_BYTES..=header.len()).contains(&header_bytes) {
        return Ok(None);
    }
    let crc = fields.u32(16);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..16]);
    hasher.update(&[0; 4]);
    hasher.update(&header[20..header_bytes]);
    if hasher.finalize() != crc || fields.u64(24) != lba {
        return Ok(None);
    }

    let (first_usable_lba, last_usable_lba) = (fields.u64(40), fields.u64(48));
    let (entries_lba, entry_count, entry_bytes) = (fields.u64(72), fields.u32(80), fields.u32(84));
    let array_bytes = u64::from(entry_count) * u64::from(entry_bytes);
    let sane = entry_bytes >= ENTRY_BYTES_MIN
        && entry_bytes.is_power_of_two()
        && (1..=ENTRY_ARRAY_MAX).contains(&array_bytes)
        && (2..sectors).contains(&entries_lba)
        && first_usable_lba <= last_usable_lba
        && last_usable_lba <= LBA_MAX;
    if !sane || entries_lba * sector + array_bytes > disk.raw_bytes() {
        return Ok(None);
    }
    let mut entries = vec![0; array_bytes as usize];
    disk.read_exact_at(entries_lba * sector, &mut entries)?;
    if crc32fast::hash(&entries) != fields.u32(88) {
        return Ok(None);
    }
    Ok(Some(Copy {
        other_lba: fields.u64(32),
        gpt: Gpt {
            disk_guid: fields
                .bytes(56, 16)
                .try_into()
                .expect("sixteen bytes within a sector"),
            first_usable_lba,
            last_usable_lba,
            entries_lba,
            backup_lba: 0,
            backup_entries_lba: 0,
            entry_count,
            entry_bytes,
            entries,
        },
    }))
}
