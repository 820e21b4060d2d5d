//! Sparse extents: grains of 64 KiB or so, found through a directory and its tables, plain or
//! (stream-optimised) compressed.
//!
//! ```text
//!   header ─ descriptor ─ directory ─► tables ─► grains          directory at the end: footer
//! ```

use std::io::{self, Read};
use std::sync::Mutex;

use flate2::read::ZlibDecoder;

use crate::read_at::{Fields, ReadAt};
use crate::source::chunks::{Chunks, Place};
use crate::source::fault::Fault;
use crate::source::medium::Extract;
use crate::source::vmdk::{DESCRIPTOR_BYTES_MAX, MAGIC, SECTOR_BYTES};

const HEADER_BYTES: usize = 512;
/// The directory is at the end, where a footer says.
const AT_END: u64 = u64::MAX;
/// The footer lies this many bytes before the end.
const FOOTER_FROM_END: u64 = 1024;
const FLAG_ZERO_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const DEFLATE: u16 = 1;
/// Largest grain, sectors: 1 MiB.
const GRAIN_SECTORS_MAX: u64 = 2048;
/// Entries of a table.
const TABLE_ENTRIES_MAX: u64 = 512;
/// Tables of a disk of 128 TiB in grains of 64 KiB.
const TABLES_MAX: u64 = 1 << 22;
/// Bytes before a compressed grain: its first sector and its length.
const GRAIN_HEADER_BYTES: usize = 12;

/// A sparse extent.
pub(super) struct Sparse {
    extract: Extract,
    raw_bytes: u64,
    grain_bytes: u64,
    table_entries: u64,
    zero_grains: bool,
    compressed: bool,
    descriptor: (u64, u64),
    /// Sector of each table; 0 where there is none.
    directory: Vec<u32>,
    recent: Mutex<Recent>,
}

/// What was read last, and most likely is wanted next.
#[derive(Default)]
struct Recent {
    table: Option<(u64, Vec<u32>)>,
    grain: Option<(u64, Vec<u8>)>,
}

impl Sparse {
    /// Reads header and directory.
    ///
    /// # Errors
    /// When they are damaged or of a version that is not known.
    pub(super) fn open(extract: Extract) -> Result<Sparse, Fault> {
        let end = extract.raw_bytes();
        let mut header = header_at(&extract, 0)?;
        let own = Fields(&header);
        let descriptor = (own.u64(28), own.u64(36));
        if own.u64(56) == AT_END {
            let at = end.checked_sub(FOOTER_FROM_END);
            let at =
                at.ok_or_else(|| Fault::at(end, "it ends too early: the file is cut short"))?;
            header = header_at(&extract, at)
                .map_err(|_| Fault::at(at, "its footer is missing: the file is cut short"))?;
        }
        let fields = Fields(&header);
        if !(1..=3).contains(&fields.u32(4)) {
            let version = fields.u32(4);
            return Err(Fault::at(4, format!("version {version} is not known")));
        }
        let (flags, capacity, grain) = (fields.u32(8), fields.u64(12), fields.u64(20));
        let table_entries = u64::from(fields.u32(44));
        if !grain.is_power_of_two() || !(8..=GRAIN_SECTORS_MAX).contains(&grain) {
            return Err(Fault::at(20, format!("grains of {grain} sectors")));
        }
        if !(1..=TABLE_ENTRIES_MAX).contains(&table_entries) {
            return Err(Fault::at(44, format!("tables of {table_entries} entries")));
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        if compressed && fields.u16(77) != DEFLATE {
            return Err(Fault::at(77, "a compression that is not known"));
        }
        let raw_bytes = capacity.checked_mul(SECTOR_BYTES);
        let raw_bytes = raw_bytes.filter(|&bytes| bytes > 0 && bytes < i64::MAX as u64);
        let raw_bytes = raw_bytes.ok_or_else(|| Fault::at(12, "a disk of no size"))?;
        let tables = capacity.div_ceil(grain).div_ceil(table_entries);
        if tables > TABLES_MAX {
            return Err(Fault::at(12, "a disk larger than any"));
        }
        let directory_at = fields.u64(56).checked_mul(SECTOR_BYTES);
        // What is allocated here is in the file.
        let directory = directory_at
            .and_then(|at| extract.part(at, tables.checked_mul(4)?))
            .ok_or_else(|| Fault::at(56, "its directory lies outside: the file is cut short"))?;
        let mut bytes = vec![0; directory.raw_bytes() as usize];
        directory
            .read_exact_at(0, &mut bytes)
            .map_err(Fault::Read)?;
        Ok(Sparse {
            extract,
            raw_bytes,
            grain_bytes: grain * SECTOR_BYTES,
            table_entries,
            zero_grains: flags & FLAG_ZERO_GRAINS != 0,
            compressed,
            descriptor,
            directory: numbers(&bytes),
            recent: Mutex::default(),
        })
    }

    /// The same extent with only its first `bytes`; none when it has less.
    pub(super) fn cut(mut self, bytes: u64) -> Option<Sparse> {
        let enough = bytes <= self.raw_bytes;
        self.raw_bytes = bytes;
        enough.then_some(self)
    }

    /// The descriptor within, if there is one.
    pub(super) fn descriptor(&self) -> Result<Option<String>, Fault> {
        let (at, sectors) = self.descriptor;
        if at == 0 || sectors == 0 {
            return Ok(None);
        }
        let place = at.checked_mul(SECTOR_BYTES);
        let bytes = sectors.checked_mul(SECTOR_BYTES);
        let bytes = bytes.filter(|&bytes| bytes <= DESCRIPTOR_BYTES_MAX);
        let text = place.zip(bytes);
        let text = text.and_then(|(place, bytes)| self.extract.part(place, bytes));
        let text = text.ok_or_else(|| Fault::at(28, "its descriptor lies outside"))?;
        let mut bytes = vec![0; text.raw_bytes() as usize];
        text.read_exact_at(0, &mut bytes).map_err(Fault::Read)?;
        // Room for one, as `qemu-img` leaves it in each of several files.
        if bytes.first() == Some(&0) {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Sector of grain `index`; 0 and 1 mean what they do in the table.
    fn entry(&self, index: u64) -> io::Result<u32> {
        let (table, entry) = (index / self.table_entries, index % self.table_entries);
        let at = self.directory.get(table as usize).copied().unwrap_or(0);
        if at == 0 {
            return Ok(0);
        }
        let mut recent = self.recent.lock().expect("nobody panics with it");
        let loaded = match &mut recent.table {
            Some((number, entries)) if *number == table => entries,
            stale => {
                let mut bytes = vec![0; self.table_entries as usize * 4];
                let place = u64::from(at) * SECTOR_BYTES;
                self.extract.read_exact_at(place, &mut bytes)?;
                &mut stale.insert((table, numbers(&bytes))).1
            }
        };
        Ok(loaded[entry as usize])
    }
}

impl Chunks for Sparse {
    fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    fn chunk_bytes(&self) -> u64 {
        self.grain_bytes
    }

    fn place(&self, index: u64) -> io::Result<Place> {
        Ok(match self.entry(index)? {
            0 => Place::Zero,
            1 if self.zero_grains => Place::Zero,
            sector if self.compressed => Place::Packed(u64::from(sector) * SECTOR_BYTES),
            sector => Place::At(u64::from(sector) * SECTOR_BYTES),
        })
    }

    fn file(&self) -> &Extract {
        &self.extract
    }

    fn unpack(&self, index: u64, at: u64, within: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut recent = self.recent.lock().expect("nobody panics with it");
        let fresh = recent
            .grain
            .as_ref()
            .is_some_and(|(number, _)| *number == index);
        if !fresh {
            // Dropped first: after an error there is none.
            recent.grain = None;
            recent.grain = Some((index, self.grain(index, at)?));
        }
        let grain = recent.grain.as_ref().map(|(_, grain)| &grain[..]);
        let part = grain
            .and_then(|grain| grain.get(within as usize..)?.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }
}

impl Sparse {
    /// The compressed grain `index`, which is at `at`.
    fn grain(&self, index: u64, at: u64) -> io::Result<Vec<u8>> {
        let wrong = |what: &str| {
            let text = format!("the grain at byte {at} of the VMDK {what}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let mut header = [0; GRAIN_HEADER_BYTES];
        self.extract.read_exact_at(at, &mut header)?;
        let fields = Fields(&header);
        if fields.u64(0) != index * (self.grain_bytes / SECTOR_BYTES) {
            return Err(wrong("belongs elsewhere"));
        }
        let packed = u64::from(fields.u32(8));
        // Deflate makes nothing larger by more than a few bytes in a thousand.
        if packed > 2 * self.grain_bytes {
            return Err(wrong("is longer than it can be"));
        }
        let packed = self.extract.part(at + GRAIN_HEADER_BYTES as u64, packed);
        let packed = packed.ok_or_else(|| wrong("is cut short"))?;
        let mut grain = Vec::with_capacity(self.grain_bytes as usize);
        let unpacked = ZlibDecoder::new(packed.front_to_back())
            // One byte more: only at its end the checksum is looked at.
            .take(self.grain_bytes + 1)
            .read_to_end(&mut grain);
        unpacked.map_err(|error| wrong(&format!("is damaged: {error}")))?;
        // The last one may hold no more than the disk has.
        let wanted = (self.raw_bytes - index * self.grain_bytes).min(self.grain_bytes);
        if !(wanted..=self.grain_bytes).contains(&(grain.len() as u64)) {
            return Err(wrong("has an odd length"));
        }
        Ok(grain)
    }
}

fn header_at(extract: &Extract, at: u64) -> Result<Vec<u8>, Fault> {
    let mut header = vec![0; HEADER_BYTES];
    let read = extract.read_exact_at(at, &mut header);
    read.map_err(|error| Fault::decoding(at, error))?;
    match header.starts_with(MAGIC) {
        true => Ok(header),
        false => Err(Fault::at(at, "no header of a sparse extent")),
    }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
        .collect()
}
