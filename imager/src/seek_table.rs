//! The seek table that ends an image: the zstd seekable format, version 0.1.0.
//!
//! A skippable frame holding, for every frame before it, its compressed and decompressed size; a
//! skippable frame counts as decompressing to nothing. With it any seekable-zstd reader can start
//! in the middle of an image.

use crate::bytes::{Malformed, Reader, Writer};

/// First number of the range zstd reserves for skippable frames.
pub(crate) const SKIPPABLE_MAGIC: u32 = 0x184d_2a50;
/// Header of a skippable frame, bytes: magic and length.
pub(crate) const SKIPPABLE_HEADER_BYTES: u64 = 8;
/// Bytes at the very end of the file from which the size of the table follows.
pub(crate) const FOOTER_BYTES: u64 = 9;

const TABLE_MAGIC: u32 = 0x184d_2a5e;
const FOOTER_MAGIC: u32 = 0x8f92_eab1;
const CHECKSUM_FLAG: u8 = 0x80;
const RESERVED_FLAGS: u8 = 0x7f;
const ENTRY_BYTES: u64 = 8;

/// One frame of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its size in the file, bytes.
    pub(crate) stored_bytes: u32,
    /// What it decompresses to, bytes; 0 for a skippable frame.
    pub(crate) raw_bytes: u32,
}

/// The seek table, as the skippable frame it is kept in.
pub(crate) fn render(entries: &[Entry]) -> Vec<u8> {
    let length = entries.len() as u64 * ENTRY_BYTES + FOOTER_BYTES;
    let mut writer = Writer::default();
    writer.u32(TABLE_MAGIC).u32(length as u32);
    for entry in entries {
        writer.u32(entry.stored_bytes).u32(entry.raw_bytes);
    }
    writer.u32(entries.len() as u32).u8(0).u32(FOOTER_MAGIC);
    writer.finish()
}

/// Size of the whole table, header and footer included, as the footer tells it.
pub(crate) fn table_bytes(footer: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader::new(footer);
    let count = reader.u32("number of frames")?;
    let flags = reader.u8("flags of the seek table")?;
    if reader.u32("magic of the seek table")? != FOOTER_MAGIC {
        return Err(reader.refuse(4, "no zstd seek table ends here"));
    }
    if flags & RESERVED_FLAGS != 0 {
        return Err(reader.refuse(5, format!("seek table with unknown flags {flags:#x}")));
    }
    Ok(SKIPPABLE_HEADER_BYTES + u64::from(count) * entry_bytes(flags) + FOOTER_BYTES)
}

/// Parses a whole table, of the size [`table_bytes`] gave.
pub(crate) fn parse(table: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut reader = Reader::new(table);
    if reader.u32("magic of the seek table")? != TABLE_MAGIC {
        return Err(reader.refuse(4, "the seek table does not begin where its footer says"));
    }
    let length = u64::from(reader.u32("length of the seek table")?);
    if length != reader.left() as u64 || length < FOOTER_BYTES {
        return Err(reader.refuse(
            4,
            format!("seek table of {length} bytes in {}", reader.left()),
        ));
    }
    let flags = table[table.len() - FOOTER_BYTES as usize + 4];
    let count = (length - FOOTER_BYTES) / entry_bytes(flags);
    let mut entries = Vec::with_capacity(count as usize);
    for _ in 0..count {
        entries.push(Entry {
            stored_bytes: reader.u32("stored size of a frame")?,
            raw_bytes: reader.u32("raw size of a frame")?,
        });
        if flags & CHECKSUM_FLAG != 0 {
            reader.u32("checksum of a frame")?;
        }
    }
    Ok(entries)
}

fn entry_bytes(flags: u8) -> u64 {
    ENTRY_BYTES + if flags & CHECKSUM_FLAG == 0 { 0 } else { 4 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_survives_its_bytes(sizes in prop::collection::vec((1u32..99, 0u32..99), 0..50)) {
            let entries: Vec<Entry> = sizes
                .into_iter()
                .map(|(stored_bytes, raw_bytes)| Entry { stored_bytes, raw_bytes })
                .collect();
            let table = render(&entries);
            let footer = &table[table.len() - FOOTER_BYTES as usize..];
            prop_assert_eq!(table_bytes(footer), Ok(table.len() as u64));
            prop_assert_eq!(parse(&table), Ok(entries));
        }

        #[test]
        fn any_bytes_give_a_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let length = (bytes.len() as u32).to_le_bytes();
            let _ = table_bytes(&bytes);
            let _ = parse(&[&TABLE_MAGIC.to_le_bytes()[..], &length, &bytes].concat());
            let _ = parse(&bytes);
        }
    }
}
