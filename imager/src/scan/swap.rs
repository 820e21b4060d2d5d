//! Swap space: its first page is kept, and with it UUID and label; all else is free.
//!
//! A hibernated system has its memory there, and says so in the place of the signature.
//!
//! Layout: `union swap_header` of Linux, `include/linux/swap.h`.

use crate::read_at::{Fields, ReadAt};
use crate::scan::volume::{Free, Obstacle};

/// Page sizes of Linux, and so the sizes of the header; the signature ends it.
const PAGES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const SIGNATURE: &[u8] = b"SWAPSPACE2";
/// The header proper begins here, behind room for a boot loader.
const HEADER_AT: usize = 1024;
const VERSION: u32 = 1;

/// What the first page of a swap space says.
pub(super) struct Header {
    page_bytes: u64,
    /// Where it ends, bytes from its start.
    pub(super) end: u64,
}

/// The header in `head`, the first pages of a swap space.
pub(super) fn header(head: &[u8]) -> Option<Header> {
    let fields = Fields(head);
    let page_bytes = PAGES.into_iter().find(|&bytes| {
        fields.bytes(bytes as usize - SIGNATURE.len(), SIGNATURE.len()) == SIGNATURE
    })?;
    let (version, last_page) = (fields.u32(HEADER_AT), u64::from(fields.u32(HEADER_AT + 4)));
    (version == VERSION && last_page > 0).then(|| Header {
        page_bytes,
        end: (last_page + 1) * page_bytes,
    })
}

/// All but the first page.
pub(super) fn free(volume: &dyn ReadAt) -> Result<Free, Obstacle> {
    let largest = PAGES[PAGES.len() - 1];
    let mut head = vec![0; volume.raw_bytes().min(largest) as usize];
    volume.peek_exact_at(0, &mut head)?;
    let found = header(&head).filter(|found| found.end <= volume.raw_bytes());
    let Header { page_bytes, end } =
        found.ok_or_else(|| Obstacle::unknown("its header contradicts itself or the partition"))?;
    let mut free = Free::default();
    free.push(page_bytes..end);
    Ok(free)
}

/// A system that sleeps.
pub(super) fn hibernated(_: &dyn ReadAt) -> Result<Free, Obstacle> {
    Err(Obstacle::unsafe_until(
        "start that system and shut it down",
        "a hibernated Linux has its memory there",
    ))
}
