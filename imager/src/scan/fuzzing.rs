//! The readers by themselves, for the fuzz targets.

use std::io;
use std::ops::Range;

use crate::read_at::ReadAt;
use crate::scan::volume::{Obstacle, prove};
use crate::scan::{fs, scan};
use crate::whole::Whole;

/// A disk that a closure reads; it is never asked for what lies beyond the end.
struct Lent<'a> {
    bytes: u64,
    read: &'a dyn Fn(u64, &mut [u8]),
}

impl ReadAt for Lent<'_> {
    fn raw_bytes(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        end.filter(|&end| end <= self.bytes)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        (self.read)(offset, buffer);
        Ok(())
    }
}

/// What is proved free on a volume of `bytes`, bytes from its start; or why nothing is, in words.
///
/// # Errors
/// The reason of its reader.
pub fn free_of_volume(
    bytes: u64,
    read: &dyn Fn(u64, &mut [u8]),
) -> Result<Vec<Range<u64>>, String> {
    let volume = Lent { bytes, read };
    let said = fs::identify(&volume)
        .map_err(Obstacle::Read)
        .and_then(|found| prove(found.reader, &volume));
    said.map(|proof| proof.free)
        .map_err(|obstacle| format!("{obstacle:?}"))
}

/// What is proved free on a disk of `bytes`, of which each partition is looked into.
///
/// # Errors
/// Never, as long as `read` never fails.
pub fn free_of_disk(bytes: u64, read: &dyn Fn(u64, &mut [u8])) -> Result<Vec<Range<u64>>, String> {
    let found = scan(&Lent { bytes, read }, None, &Whole::default(), None);
    found
        .map(|scan| scan.free)
        .map_err(|error| error.to_string())
}
