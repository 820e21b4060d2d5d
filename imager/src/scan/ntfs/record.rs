//! One record of the master file table: its fixups, and the attributes in it.

use std::ops::Range;

use crate::read_at::Fields;

/// Every structure of several sectors ends each 512 bytes with its update sequence number.
const STRIDE: usize = 512;
const FLAG_IN_USE: u16 = 1;
const FLAG_DIRECTORY: u16 = 2;
const END: u32 = 0xffff_ffff;
const RESIDENT_BYTES: usize = 0x18;
const OUTSIDE_BYTES: usize = 0x40;

/// Attribute types.
pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const FILE_NAME: u32 = 0x30;
pub(super) const VOLUME_NAME: u32 = 0x60;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xa0;
pub(super) const REPARSE_POINT: u32 = 0xc0;

/// The place of a record in the table, and the number that tells it from its predecessors there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) number: u64,
    pub(super) sequence: u16,
}

impl Reference {
    pub(super) fn parse(packed: u64) -> Reference {
        Reference {
            number: packed & 0xffff_ffff_ffff,
            sequence: (packed >> 48) as u16,
        }
    }
}

/// A record in use whose fixups were right.
#[derive(Debug)]
pub(super) struct Record {
    raw: Vec<u8>,
}

/// One attribute, or one part of it when it is spread over several records.
#[derive(Debug)]
pub(super) struct Attribute<'a> {
    pub(super) kind: u32,
    pub(super) name: Vec<u16>,
    pub(super) instance: u16,
    pub(super) flags: u16,
    pub(super) body: Body<'a>,
}

#[derive(Debug)]
pub(super) enum Body<'a> {
    /// The value itself.
    Resident(&'a [u8]),
    /// Where the value lies.
    Outside(Outside<'a>),
}

#[derive(Debug)]
pub(super) struct Outside<'a> {
    /// The clusters of the stream that `pairs` describe.
    pub(super) within: Range<u64>,
    pub(super) pairs: &'a [u8],
    // Only the part that begins at cluster 0 has these right.
    pub(super) bytes: u64,
    pub(super) initialized_bytes: u64,
}

/// Checks the signature and the fixups of a structure, and undoes the fixups.
pub(super) fn undo_fixups(raw: &mut [u8], signature: &[u8; 4]) -> Option<()> {
    let fields = Fields(raw);
    let (at, count) = (usize::from(fields.u16(4)), usize::from(fields.u16(6)));
    let whole = raw.len().is_multiple_of(STRIDE) && count == raw.len() / STRIDE + 1;
    if fields.bytes(0, 4) != signature || !whole || !at.is_multiple_of(2) {
        return None;
    }
    let sequence = raw.get(at..at.checked_add(2 * count)?)?.to_vec();
    let (number, originals) = sequence.split_at(2);
    for (sector, original) in raw.chunks_exact_mut(STRIDE).zip(originals.chunks_exact(2)) {
        let tail = &mut sector[STRIDE - 2..];
        if tail != number {
            return None;
        }
        tail.copy_from_slice(original);
    }
    Some(())
}

impl Record {
    /// The record in `raw`; none when it is torn, unused or no record.
    pub(super) fn parse(mut raw: Vec<u8>) -> Option<Record> {
        undo_fixups(&mut raw, b"FILE")?;
        let fields = Fields(&raw);
        let used_bytes = fields.u32(0x18) as usize;
        let sane = fields.u16(0x16) & FLAG_IN_USE != 0
            && fields.u32(0x1c) as usize == raw.len()
            && used_bytes <= raw.len()
            && usize::from(fields.u16(0x14)) < used_bytes
            && fields.u16(0x14).is_multiple_of(8);
        if !sane {
            return None;
        }
        raw.truncate(used_bytes);
        Some(Record { raw })
    }

    /// What is used of the record, with the fixups undone.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.raw
    }

    pub(super) fn sequence(&self) -> u16 {
        Fields(&self.raw).u16(0x10)
    }

    pub(super) fn is_directory(&self) -> bool {
        Fields(&self.raw).u16(0x16) & FLAG_DIRECTORY != 0
    }

    /// How many directory entries name it.
    pub(super) fn links(&self) -> u16 {
        Fields(&self.raw).u16(0x12)
    }

    /// The record this one continues; number 0, sequence 0 when it is none's continuation.
    pub(super) fn base(&self) -> Reference {
        Reference::parse(Fields(&self.raw).u64(0x20))
    }

    /// All attributes in order; none when one of them leaves the record.
    pub(super) fn attributes(&self) -> Option<Vec<Attribute<'_>>> {
        let mut rest = self.raw.get(usize::from(Fields(&self.raw).u16(0x14))..)?;
        let mut found = Vec::new();
        loop {
            let fields = Fields(rest);
            if fields.bytes(0, 4).len() < 4 {
                return None;
            }
            if fields.u32(0) == END {
                return Some(found);
            }
            let length = fields.u32(4) as usize;
            if length < RESIDENT_BYTES || !length.is_multiple_of(8) {
                return None;
            }
            found.push(Attribute::parse(rest.get(..length)?)?);
            rest = &rest[length..];
        }
    }
}

impl<'a> Attribute<'a> {
    fn parse(raw: &'a [u8]) -> Option<Attribute<'a>> {
        let fields = Fields(raw);
        let name_at = usize::from(fields.u16(0x0a));
        let name = raw.get(name_at..)?.get(..2 * usize::from(fields.u8(9)))?;
        let body = if fields.u8(8) == 0 {
            let (at, bytes) = (usize::from(fields.u16(0x14)), fields.u32(0x10) as usize);
            Body::Resident(raw.get(at..)?.get(..bytes)?)
        } else {
            let pairs_at = usize::from(fields.u16(0x20));
            if raw.len() < OUTSIDE_BYTES || pairs_at < OUTSIDE_BYTES {
                return None;
            }
            let (first, last) = (fields.u64(0x10), fields.u64(0x18));
            Body::Outside(Outside {
                // The last cluster of an empty stream is number -1.
                within: first..last.wrapping_add(1),
                pairs: raw.get(pairs_at..)?,
                bytes: fields.u64(0x30),
                initialized_bytes: fields.u64(0x38),
            })
        };
        Some(Attribute {
            kind: fields.u32(0),
            name: utf16(name),
            instance: fields.u16(0x0e),
            flags: fields.u16(0x0c),
            body,
        })
    }

    pub(super) fn is(&self, kind: u32, name: &[u16]) -> bool {
        self.kind == kind && self.name == name
    }

    /// The value, when it lies in the record.
    pub(super) fn resident(&self) -> Option<&'a [u8]> {
        match self.body {
            Body::Resident(value) => Some(value),
            Body::Outside(_) => None,
        }
    }
}

/// Units of UTF-16, as names are kept.
pub(super) fn utf16(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty record of 1024 bytes with its fixups in place.
    pub(crate) fn torn_free() -> Vec<u8> {
        let mut raw = vec![0u8; 1024];
        raw[..4].copy_from_slice(b"FILE");
        raw[4..8].copy_from_slice(&[0x30, 0, 3, 0]);
        raw[0x14] = 0x38;
        raw[0x16] = 1;
        raw[0x18..0x20].copy_from_slice(&[0x40, 0, 0, 0, 0, 4, 0, 0]);
        raw[0x30..0x36].copy_from_slice(&[7, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
        raw[0x38..0x3c].copy_from_slice(&[0xff; 4]);
        raw[510] = 7;
        raw[1022] = 7;
        raw
    }

    #[test]
    fn fixups_are_undone() {
        let mut raw = torn_free();
        undo_fixups(&mut raw, b"FILE").unwrap();
        assert_eq!(
            (&raw[510..512], &raw[1022..]),
            (&[0xaa, 0xbb][..], &[0xcc, 0xdd][..])
        );
        assert!(
            Record::parse(torn_free())
                .unwrap()
                .attributes()
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_torn_or_unused_record_is_none() {
        let refused = |at: usize, value: u8| {
            let mut raw = torn_free();
            raw[at] = value;
            assert!(Record::parse(raw).is_none(), "byte {at:#x}");
        };
        refused(0, b'B');
        refused(510, 8);
        refused(1022, 6);
        refused(6, 2);
        refused(5, 4);
        refused(0x16, 0);
        refused(0x14, 0x40);
        refused(0x19, 5);
        refused(0x1d, 8);
    }

    #[test]
    fn an_attribute_that_leaves_its_record_is_refused() {
        let mut raw = torn_free();
        raw[0x18] = 0x60;
        raw[0x38..0x58].copy_from_slice(&[
            0x60, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x18, 0, 0, 0, 4, 0, 4, 0, 0, 0, 0x18, 0, 0, 0,
            b'n', 0, b't', 0, 0, 0, 0, 0,
        ]);
        raw[0x58..0x5c].copy_from_slice(&[0xff; 4]);
        let found = Record::parse(raw.clone()).unwrap();
        let attributes = found.attributes().unwrap();
        assert_eq!(attributes[0].resident(), Some(&b"n\0t\0"[..]));
        assert!(attributes[0].is(VOLUME_NAME, &[]));
        for (at, value) in [
            (0x3c, 0xf8),
            (0x3c, 0),
            (0x3c, 0x21),
            (0x48, 9),
            (0x4c, 0x1e),
            (0x41, 5),
        ] {
            let mut raw = raw.clone();
            raw[at] = value;
            let record = Record::parse(raw).unwrap();
            assert!(record.attributes().is_none(), "{at:#x}");
        }
    }
}
