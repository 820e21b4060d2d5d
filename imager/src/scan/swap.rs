//! Swap space: its first page is kept, and with it UUID and label; all else is free.
//!
//! A hibernated system has its memory there, and says so in the place of the signature.
//!
//! Layout: `union swap_header` of Linux, `include/linux/swap.h`.

use crate::read_at::{Fields, ReadAt};
use crate::scan::volume::{Free, Obstacle};

/// Page sizes of Linux, and so the sizes of the header; the signature ends it.
const PAGES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const SIGNATURE_BYTES: u64 = 10;
const SIGNATURE: &[u8] = b"SWAPSPACE2";
/// The header proper begins here, behind room for a boot loader.
const HEADER_AT: u64 = 1024;
const VERSION: u32 = 1;

/// All but the first page.
pub(super) fn free(volume: &dyn ReadAt) -> Result<Free, Obstacle> {
    for page_bytes in PAGES {
        let mut signature = [0; SIGNATURE_BYTES as usize];
        volume.read_exact_at(page_bytes - SIGNATURE_BYTES, &mut signature)?;
        if signature != SIGNATURE {
            continue;
        }
        let mut header = [0; 12];
        volume.read_exact_at(HEADER_AT, &mut header)?;
        let (version, last_page) = (Fields(&header).u32(0), u64::from(Fields(&header).u32(4)));
        let end = (last_page + 1) * page_bytes;
        if version != VERSION || last_page == 0 || end > volume.raw_bytes() {
            return Err(Obstacle::unknown(
                "its header contradicts itself or the partition",
            ));
        }
        let mut free = Free::default();
        free.push(page_bytes..end);
        return Ok(free);
    }
    Err(Obstacle::unknown("it has no signature"))
}

/// A system that sleeps.
pub(super) fn hibernated(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unsafe_until(
        "start that system and shut it down",
        "a hibernated Linux has its memory there",
    ))
}
