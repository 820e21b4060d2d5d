//! Swap files, whose contents are worth nothing once the system is down.
//!
//! Their first pages are kept, and with them UUID, label and what makes them swap. A file counts
//! only by one of the usual names in the root directory *and* by the header that `mkswap` wrote;
//! a system that sleeps in it has another word there, and then all of it is kept.

use std::ops::Range;

use super::Geometry;
use super::inode::{Content, Inode};
use crate::read_at::{Fields, ReadAt};
use crate::scan::swap;
use crate::scan::volume::Obstacle;

/// What the installers of Debian, Ubuntu and others call it, and most handbooks.
const NAMES: [&[u8]; 3] = [b"swapfile", b"swap.img", b"swap"];

const ROOT: u32 = 2;
/// A larger root directory is not searched.
const ROOT_BYTES_MAX: u64 = 1 << 20;
/// Kept from the start of a file: the largest page there is.
const KEPT_BYTES: u64 = 64 << 10;
/// Of an entry without its name.
const ENTRY_BYTES: usize = 8;

/// A swap file.
pub(super) struct SwapFile {
    pub(super) name: String,
    /// What of it is worth nothing, in blocks.
    pub(super) blocks: Vec<Range<u64>>,
}

/// The swap files; `table` says where the table of an inode begins, which is in a group that exists.
pub(super) fn find(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    table: &dyn Fn(u32) -> Option<u64>,
) -> Result<Vec<SwapFile>, Obstacle> {
    let inode = |number: u32| match table(number) {
        Some(table) => Inode::read(volume, geometry, table, number),
        None => Ok(None),
    };
    let root = inode(ROOT)?
        .filter(|root| root.is_directory() && (1..=ROOT_BYTES_MAX).contains(&root.bytes()));
    let Some(root) = root else {
        return Ok(Vec::new());
    };
    let Some(content) = root.content(volume, geometry)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for (name, number) in named(volume, geometry, &content)? {
        let Some(file) = inode(number)?.filter(Inode::is_file) else {
            continue;
        };
        let Some(content) = file.content(volume, geometry)? else {
            continue;
        };
        if is_swap(volume, geometry, &content, file.bytes())? {
            let kept = KEPT_BYTES.div_ceil(geometry.block_bytes);
            found.push(SwapFile {
                name: String::from_utf8_lossy(name).into_owned(),
                blocks: content.after(kept),
            });
        }
    }
    Ok(found)
}

/// The inodes that a directory has for the usual names.
fn named(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    directory: &Content,
) -> Result<Vec<(&'static [u8], u32)>, Obstacle> {
    let mut found = Vec::new();
    let mut block = vec![0; geometry.block_bytes as usize];
    for number in directory.runs.iter().cloned().flatten() {
        volume.read_exact_at(number * geometry.block_bytes, &mut block)?;
        let mut rest = &block[..];
        // The inner blocks of a hashed directory look like one unused entry.
        while rest.len() >= ENTRY_BYTES {
            let fields = Fields(rest);
            let (inode, length) = (fields.u32(0), usize::from(fields.u16(4)));
            let name = fields.bytes(ENTRY_BYTES, usize::from(fields.u8(6)));
            if length < ENTRY_BYTES {
                break;
            }
            if inode != 0
                && let Some(known) = NAMES.into_iter().find(|known| *known == name)
            {
                found.push((known, inode));
            }
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    // A name that is there twice is a damaged directory.
    found.sort_unstable();
    let unique = found.windows(2).all(|pair| pair[0].0 != pair[1].0);
    Ok(if unique { found } else { Vec::new() })
}

/// Whether what the file begins with is the header of a swap space that fits into it.
fn is_swap(
    volume: &dyn ReadAt,
    geometry: &Geometry,
    content: &Content,
    bytes: u64,
) -> Result<bool, Obstacle> {
    if bytes < 2 * KEPT_BYTES {
        return Ok(false);
    }
    let mut head = vec![0; KEPT_BYTES as usize];
    let blocks = content.runs.iter().cloned().flatten();
    for (number, part) in blocks.zip(head.chunks_mut(geometry.block_bytes as usize)) {
        volume.read_exact_at(number * geometry.block_bytes, part)?;
    }
    Ok(swap::header(&head).is_some_and(|header| header.end <= bytes))
}
