//! What is free on a physical volume of LVM2.
//!
//! The text of its metadata says which extents belong to logical volumes; the others are free.
//! Each plain volume, linear and on this disk alone, is then read as a volume of its own. Whatever
//! else has extents here (RAID, thin pools, caches, snapshots) is kept whole.
//!
//! Layout: `lib/format_text/layout.h` and `lib/label/label.h` of LVM2; `lvm.conf(5)` has the syntax
//! of the text.

use std::ops::Range;

use crate::read_at::{Fields, ReadAt};
use crate::scan::fs;
use crate::scan::volume::{Free, Obstacle, prove};

use group::Group;
use linear::Linear;

mod group;
mod linear;
mod text;

pub(super) const KIND: &str = "LVM2_member";

const SECTOR: u64 = 512;
/// The label lies in one of these sectors.
const LABEL_SECTORS: u64 = 4;
const LABEL_MAGIC: &[u8] = b"LABELONE";
const LABEL_KIND: &[u8] = b"LVM2 001";
const HEADER_MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
const HEADER_BYTES: u64 = 512;
const HEADER_VERSION: u32 = 1;
/// Most metadata areas of a volume.
const AREAS_MAX: usize = 8;
/// Longest text of a group; LVM2 makes areas of 1 MiB.
const TEXT_MAX: u64 = 4 << 20;

/// What is free on a physical volume.
pub(super) fn free(volume: &dyn ReadAt) -> Result<Free, Obstacle> {
    let label = Label::read(volume)?;
    let group = label.group(volume)?;
    let mut free = Free::default();
    for gap in group.unallocated(volume.raw_bytes())? {
        free.push(gap);
    }
    for (name, linear) in group.linear_volumes() {
        let view = Linear::new(volume, linear);
        let found = fs::identify(&view)?;
        let place = match found.facts.fs {
            "" => format!("its logical volume {name}"),
            kind => format!("its logical volume {name} ({kind})"),
        };
        // A physical volume within a logical one could go on for ever.
        let proof = match found.facts.fs {
            KIND => Err(Obstacle::unknown("it is a physical volume itself")),
            _ => prove(found.reader, &view),
        };
        match proof {
            Ok(proof) => {
                proof
                    .free
                    .iter()
                    .flat_map(|range| view.places(range))
                    .for_each(|range| free.push(range));
                free.notes
                    .extend(proof.notes.iter().map(|note| format!("{place}: {note}")));
            }
            Err(Obstacle::Unknown(reason)) => {
                free.notes.push(format!("{place} is kept whole: {reason}"));
            }
            Err(Obstacle::Unsafe { found, remedy }) => {
                return Err(Obstacle::unsafe_until(remedy, format!("{place}: {found}")));
            }
            Err(error) => return Err(error),
        }
    }
    for name in group.other_volumes() {
        free.notes.push(format!(
            "its logical volume {name} is kept whole: it is not linear"
        ));
    }
    Ok(free)
}

/// The label of a physical volume: what it is called, and where its metadata lie.
struct Label {
    uuid: String,
    areas: Vec<Range<u64>>,
}

impl Label {
    fn read(volume: &dyn ReadAt) -> Result<Label, Obstacle> {
        for sector in 0..LABEL_SECTORS {
            let mut label = [0; SECTOR as usize];
            volume.read_exact_at(sector * SECTOR, &mut label)?;
            if &label[..8] == LABEL_MAGIC {
                return Label::parse(&label, sector, volume.raw_bytes());
            }
        }
        Err(Obstacle::unknown("it has no label"))
    }

    fn parse(label: &[u8], sector: u64, volume_bytes: u64) -> Result<Label, Obstacle> {
        let damaged = || Obstacle::unknown("its label is damaged");
        let fields = Fields(label);
        let header = fields.u32(20) as usize;
        let sane = fields.u64(8) == sector
            && fields.bytes(24, 8) == LABEL_KIND
            && checksum(&label[20..]) == fields.u32(16)
            && (32..label.len()).contains(&header);
        if !sane {
            return Err(damaged());
        }
        // Two lists of places, each ended by zeros: data areas, then metadata areas.
        let mut at = header + 40;
        let mut lists = [Vec::new(), Vec::new()];
        for list in &mut lists {
            loop {
                let (start, bytes) = (fields.u64(at), fields.u64(at + 8));
                at += 16;
                if start == 0 {
                    break;
                }
                list.push(start..start.saturating_add(bytes));
                if list.len() > AREAS_MAX || at + 16 > label.len() {
                    return Err(damaged());
                }
            }
        }
        let [_, areas] = lists;
        if areas
            .iter()
            .any(|area| area.end > volume_bytes || area.end - area.start <= HEADER_BYTES)
        {
            return Err(damaged());
        }
        let uuid = fields.text(header, 32);
        Ok(Label { uuid, areas })
    }

    /// The group the volume belongs to, on which all its metadata areas agree.
    fn group(&self, volume: &dyn ReadAt) -> Result<Group, Obstacle> {
        let mut texts = Vec::new();
        for area in &self.areas {
            texts.extend(read_area(volume, area)?);
        }
        if texts.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Obstacle::unknown("its metadata areas disagree"));
        }
        match texts.first() {
            Some(text) => Group::parse(text, &self.uuid),
            None => Err(Obstacle::unknown(
                "it has no metadata, or belongs to no group",
            )),
        }
    }
}

/// The text in a metadata area; none in one that is not in use.
fn read_area(volume: &dyn ReadAt, area: &Range<u64>) -> Result<Option<Vec<u8>>, Obstacle> {
    let damaged = || Obstacle::unknown("its metadata area is damaged");
    let mut header = [0; HEADER_BYTES as usize];
    volume.read_exact_at(area.start, &mut header)?;
    let fields = Fields(&header);
    let area_bytes = area.end - area.start;
    let sane = fields.bytes(4, 16) == HEADER_MAGIC
        && checksum(&header[4..]) == fields.u32(0)
        && fields.u32(20) == HEADER_VERSION
        && (fields.u64(24), fields.u64(32)) == (area.start, area_bytes);
    if !sane {
        return Err(damaged());
    }
    let (offset, bytes) = (fields.u64(40), fields.u64(48));
    // A second place is that of a change half made.
    let (expected, ignored, pending) =
        (fields.u32(56), fields.u32(60) & 1 != 0, fields.u64(64) != 0);
    if pending {
        return Err(Obstacle::unknown("a change of its group is half made"));
    }
    if ignored || offset == 0 {
        return Ok(None);
    }
    if !(HEADER_BYTES..area_bytes).contains(&offset)
        || bytes > TEXT_MAX.min(area_bytes - HEADER_BYTES)
    {
        return Err(damaged());
    }
    // The area is a ring behind its header.
    let first = bytes.min(area_bytes - offset) as usize;
    let mut text = vec![0; bytes as usize];
    let (head, tail) = text.split_at_mut(first);
    volume.read_exact_at(area.start + offset, head)?;
    volume.read_exact_at(area.start + HEADER_BYTES, tail)?;
    match checksum(&text) == expected {
        true => Ok(Some(text)),
        false => Err(damaged()),
    }
}

/// The CRC-32 of LVM2, which begins elsewhere and is not inverted.
fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}
