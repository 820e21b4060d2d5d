//! How partition tables are written into a manifest. Trailing empty GPT entries are left out.

use crate::bytes::{Malformed, Reader, Writer};
use crate::tables::{Gpt, Tables};

/// Largest entry array accepted, bytes; the usual one is 16 KiB.
pub(crate) const ENTRY_ARRAY_MAX: u64 = 1 << 20;

/// Sector numbers stay below this, so that their bytes can be counted in 64 bits.
pub(crate) const LBA_MAX: u64 = 1 << 50;

const ENTRY_BYTES_MIN: u32 = 128;
const NONE: u8 = 0;
const MBR: u8 = 1;
const GPT: u8 = 2;

pub(super) fn write(tables: &Tables, writer: &mut Writer) {
    let (Some(lba0), gpt) = (&tables.lba0, &tables.gpt) else {
        writer.u8(NONE);
        return;
    };
    let Some(gpt) = gpt else {
        writer.u8(MBR).raw(lba0);
        return;
    };
    writer.u8(GPT).raw(lba0).raw(&gpt.disk_guid);
    for lba in [
        gpt.first_usable_lba,
        gpt.last_usable_lba,
        gpt.entries_lba,
        gpt.backup_lba,
        gpt.backup_entries_lba,
    ] {
        writer.u64(lba);
    }
    let entry_bytes = gpt.entry_bytes as usize;
    let kept = gpt
        .entries
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last / entry_bytes + 1);
    writer
        .u32(gpt.entry_count)
        .u32(gpt.entry_bytes)
        .u32(kept as u32);
    writer.raw(&gpt.entries[..kept * entry_bytes]);
}

pub(super) fn read(reader: &mut Reader<'_>, sector_bytes: u32) -> Result<Tables, Malformed> {
    let kind = reader.u8("kind of partition table")?;
    match kind {
        NONE => Ok(Tables {
            sector_bytes,
            lba0: None,
            gpt: None,
        }),
        MBR | GPT => {
            let lba0 = reader.take(sector_bytes as usize, "sector 0")?.to_vec();
            let gpt = if kind == GPT {
                Some(read_gpt(reader, sector_bytes)?)
            } else {
                None
            };
            Ok(Tables {
                sector_bytes,
                lba0: Some(lba0),
                gpt,
            })
        }
        other => Err(reader.refuse(1, format!("unknown kind of partition table {other}"))),
    }
}

fn read_gpt(reader: &mut Reader<'_>, sector_bytes: u32) -> Result<Gpt, Malformed> {
    let disk_guid = reader.array("disk GUID")?;
    let first_usable_lba = reader.u64("first usable sector")?;
    let last_usable_lba = reader.u64("last usable sector")?;
    let entries_lba = reader.u64("place of the entries")?;
    let backup_lba = reader.u64("place of the backup header")?;
    let backup_entries_lba = reader.u64("place of the backup entries")?;
    let entry_count = reader.u32("number of entries")?;
    let entry_bytes = reader.u32("size of an entry")?;
    let kept = reader.u32("number of entries kept")?;
    let array_bytes = u64::from(entry_count) * u64::from(entry_bytes);
    if entry_bytes < ENTRY_BYTES_MIN
        || !entry_bytes.is_power_of_two()
        || !(1..=ENTRY_ARRAY_MAX).contains(&array_bytes)
        || kept > entry_count
    {
        return Err(reader.refuse(
            12,
            format!("{kept} of {entry_count} GPT entries of {entry_bytes} bytes"),
        ));
    }
    let places = [
        first_usable_lba,
        last_usable_lba,
        entries_lba,
        backup_lba,
        backup_entries_lba,
    ];
    let array_sectors = array_bytes.div_ceil(u64::from(sector_bytes));
    let in_order = entries_lba >= 2
        && entries_lba.saturating_add(array_sectors) <= first_usable_lba
        && first_usable_lba <= last_usable_lba;
    if !in_order || places.iter().any(|&lba| lba > LBA_MAX) {
        return Err(reader.refuse(
            52,
            "GPT with its entries or usable sectors in an impossible place",
        ));
    }
    let kept_bytes = kept as usize * entry_bytes as usize;
    let mut entries = reader.take(kept_bytes, "GPT entries")?.to_vec();
    if kept > 0
        && entries[kept_bytes - entry_bytes as usize..]
            .iter()
            .all(|&byte| byte == 0)
    {
        return Err(reader.refuse(entry_bytes as usize, "last GPT entry kept is empty"));
    }
    entries.resize(array_bytes as usize, 0);
    Ok(Gpt {
        disk_guid,
        first_usable_lba,
        last_usable_lba,
        entries_lba,
        backup_lba,
        backup_entries_lba,
        entry_count,
        entry_bytes,
        entries,
    })
}
