//! Whether the journal of an NTFS volume, `$LogFile`, was closed.
//!
//! It begins with two restart pages, written in turn; the one with the higher sequence number
//! counts. A journal that is filled with ones was emptied, which only happens to a clean volume.

use super::file::{LOG, Volume};
use super::record::DATA;
use crate::read_at::Fields;
use crate::scan::volume::Obstacle;

const PAGE_BYTES: std::ops::RangeInclusive<u64> = 512..=64 << 10;
/// Where the second restart page of a journal lies whose first cannot be read.
const PAGE_BYTES_USUAL: u64 = 4096;
const EMPTY: [u8; 4] = [0xff; 4];

const NO_CLIENT: u16 = 0xffff;
const FLAG_CLEAN: u16 = 2;
/// Written since Windows 8 while a volume is in use, and put back to 1.1 when it is closed.
const VERSION_IN_USE: (u16, u16) = (2, 0);

/// What a restart page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Restart {
    sequence: u64,
    version: (u16, u16),
    clean: bool,
}

impl Restart {
    fn parse(page: &[u8]) -> Option<Restart> {
        let fields = Fields(page);
        let area = Fields(page.get(usize::from(fields.u16(0x18))..)?);
        (area.0.len() >= 0x18).then(|| Restart {
            sequence: area.u64(0),
            version: (fields.u16(0x1c), fields.u16(0x1a)),
            clean: area.u16(0x0c) == NO_CLIENT || area.u16(0x0e) & FLAG_CLEAN != 0,
        })
    }
}

pub(super) fn check(volume: &Volume<'_>) -> Result<(), Obstacle> {
    let damaged = || Obstacle::unknown("its journal is damaged");
    let record = volume.record(LOG)?;
    let log = volume
        .stream(&record, LOG, DATA, &[])?
        .filter(|stream| stream.is_plain())
        .ok_or_else(damaged)?;
    let mut head = [0; 0x20];
    volume.read(&log, 0, &mut head)?;
    let said = u64::from(Fields(&head).u32(0x10));
    let page_bytes = if PAGE_BYTES.contains(&said) && said.is_power_of_two() {
        said
    } else {
        PAGE_BYTES_USUAL
    };
    let mut newest: Option<Restart> = None;
    let mut empty = true;
    for place in [0, page_bytes] {
        volume.read(&log, place, &mut head)?;
        empty &= head[..4] == EMPTY;
        // `chkdsk` puts its own signature on a journal it has looked at.
        for signature in [b"RSTR", b"CHKD"] {
            let page = volume.fixed(&log, place, page_bytes as usize, signature)?;
            let found = page.and_then(|page| Restart::parse(&page));
            if found.is_some_and(|f| newest.is_none_or(|n| n.sequence < f.sequence)) {
                newest = found;
            }
        }
    }
    match newest {
        None if empty => Ok(()),
        None => Err(damaged()),
        Some(Restart {
            version: VERSION_IN_USE,
            ..
        }) => Err(Obstacle::unsafe_until(
            "shut Windows down with `shutdown /s /t 0`, or eject the disk",
            "Windows keeps parts of it in a hibernation file (Fast Startup), \
             or it was not closed cleanly",
        )),
        Some(restart) if !restart.clean => Err(Obstacle::unsafe_until(
            "shut Windows down with `shutdown /s /t 0`, or unmount it",
            "its journal is open: it is mounted or was not closed cleanly",
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_page_without_its_area_is_none() {
        let mut page = vec![0; 4096];
        page[0x18..0x1e].copy_from_slice(&[0x30, 0, 1, 0, 1, 0]);
        page[0x30] = 9;
        page[0x3c..0x40].copy_from_slice(&[0xff, 0xff, 0, 0]);
        let found = Restart {
            sequence: 9,
            version: (1, 1),
            clean: true,
        };
        assert_eq!(Restart::parse(&page), Some(found));
        page[0x3c] = 0;
        page[0x3d] = 0;
        let open = Restart {
            clean: false,
            ..found
        };
        assert_eq!(Restart::parse(&page), Some(open));
        page[0x3e] = 2;
        assert_eq!(Restart::parse(&page), Some(found));
        page[0x18..0x1a].copy_from_slice(&[0xf0, 0x0f]);
        assert_eq!(Restart::parse(&page), None);
        assert_eq!(Restart::parse(&page[..8]), None);
    }
}
