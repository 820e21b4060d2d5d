//! A disk that Clonezilla saved: a directory with its tables, and a partclone file of each
//! partition.
//!
//! ```text
//!   disk, parts                  which disk, which partitions were saved
//!   sda-pt.parted, sda-pt.sf     size of the disk, places and types of the partitions
//!   sda-mbr, sda-gpt-1st         its first sectors as they were
//!   sda-hidden-data-after-mbr    what lies before the first partition (boot loader)
//!   sda4-ebr                     first sector of an extended partition
//!   sda1.ext4-ptcl-img.zst.aa …  a file system, by partclone, compressed, cut into pieces
//!   sda2.dd-img.gz.aa …          a partition as it is
//!   swappt-sda5.info             UUID and label of a swap partition
//! ```
//!
//! All is put into one spool file, a raw disk. What `ocs-sr` makes anew on restore (logical
//! partitions, the backup GPT, swap headers) is made anew here.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::source::SourceError;
use crate::source::clonezilla::layout::{Layout, Place, TableKind};
use crate::source::clonezilla::pieces::{Content, Listing, Saved};
use crate::source::fault::Fault;
use crate::source::medium::Extract;
use crate::source::partclone::{self, Progress};
use crate::source::spool::{Spool, Workshop, read_full};
use crate::source::unpack::{Counted, Packing};

mod layout;
mod pieces;
mod tables;

const NAME: &str = "Clonezilla image";
/// Largest text or table file of such a directory.
const SMALL_BYTES: u64 = 4 << 20;

/// The disk, put together.
pub(super) struct Assembled {
    pub(super) disk: Extract,
    pub(super) sector_bytes: u32,
    pub(super) notes: Vec<String>,
}

/// Puts together the disk that was saved in `directory`.
///
/// # Errors
/// When it is no directory of Clonezilla, when a file is missing or damaged, when it holds what
/// only Clonezilla itself can restore.
pub(super) fn assemble(
    directory: &Path,
    workshop: &mut Workshop,
) -> Result<Assembled, SourceError> {
    let scratch = workshop.scratch;
    let listing = Listing::read(directory);
    let listing = listing.map_err(|fault| fault.of(directory, NAME, scratch))?;
    let mut assembly = Assembly {
        directory,
        listing,
        at: directory.to_owned(),
        notes: Vec::new(),
    };
    let assembled = assembly.run(workshop);
    assembled.map_err(|fault| fault.of(&assembly.at, NAME, scratch))
}

struct Assembly<'a> {
    directory: &'a Path,
    listing: Listing,
    /// The file an error would be about.
    at: PathBuf,
    notes: Vec<String>,
}

impl Assembly<'_> {
    fn run(&mut self, workshop: &mut Workshop) -> Result<Assembled, Fault> {
        self.refuse_foreign()?;
        let name = self.choose(workshop.disk)?;
        let layout = self.layout(&name)?;
        let spool = workshop.spool()?;
        let saved: Vec<(&Place, Saved)> = layout
            .places
            .iter()
            .filter_map(|place| Some((place, self.listing.saved(&place.name)?)))
            .collect();
        let total = saved.iter().map(|(_, saved)| saved.bytes).sum();
        let mut done = 0;
        for (place, saved) in &saved {
            self.at = self.directory.join(&saved.first);
            self.restore(&layout, place, saved, &spool, (done, total), workshop)?;
            done += saved.bytes;
        }
        self.at = self.directory.to_owned();
        for place in &layout.places {
            let restored = saved.iter().any(|(other, _)| other.name == place.name);
            if !restored && !place.extended && !self.swap(&layout, place, &spool)? {
                let name = &place.name;
                self.notes
                    .push(format!("{name} was not saved, it is empty"));
            }
        }
        // Last, so that nothing can lie over them.
        self.tables(&name, &layout, &spool)?;
        let disk = spool.finish(layout.disk_bytes()?)?;
        Ok(Assembled {
            disk,
            sector_bytes: layout.sector_bytes,
            notes: std::mem::take(&mut self.notes),
        })
    }

    /// Refuses what is spread over other devices than the disk.
    fn refuse_foreign(&self) -> Result<(), Fault> {
        const FOREIGN: [(&str, &str); 4] = [
            ("lvm_vg_dev.list", "LVM volumes"),
            ("mdadm.conf", "a software RAID"),
            ("luks-dev.list", "a LUKS volume saved by its content"),
            ("ecryptfs.info", "encrypted files"),
        ];
        for (file, what) in FOREIGN {
            if self.listing.has(file) && !self.text(file)?.trim().is_empty() {
                return Err(Fault::refuse(format!(
                    "it holds {what}, which only Clonezilla puts together; restore it to a disk \
                     and make the image of that"
                )));
            }
        }
        Ok(())
    }

    /// The name of the disk that is wanted.
    fn choose(&mut self, wanted: Option<u32>) -> Result<String, Fault> {
        let named = match self.listing.has("disk") {
            true => self.text("disk")?,
            false => String::new(),
        };
        let mut names: Vec<String> = named.split_whitespace().map(str::to_owned).collect();
        if names.is_empty() {
            names = self.listing.disks();
        }
        let index = wanted.map_or(0, |number| number as usize - 1);
        let Some(name) = names.get(index) else {
            return Err(Fault::refuse(match names.is_empty() {
                true => "it has no partition table (NAME-pt.parted); a directory of Clonezilla's \
                         savedisk or saveparts has one"
                    .into(),
                false => format!("it has no disk {}, only: {}", index + 1, names.join(" ")),
            }));
        };
        if names.len() > 1 && wanted.is_none() {
            let all = names.join(" ");
            self.notes
                .push(format!("of its disks ({all}) this is {name}; see --disk"));
        }
        Ok(name.clone())
    }

    fn layout(&mut self, disk: &str) -> Result<Layout, Fault> {
        let parted = self.text(&format!("{disk}-pt.parted"))?;
        let dump = match self.bytes(&format!("{disk}-pt.sf"))? {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => String::new(),
        };
        Layout::parse(disk, &parted, &dump)
    }

    /// Writes one saved partition to its place.
    fn restore(
        &self,
        layout: &Layout,
        place: &Place,
        saved: &Saved,
        spool: &Spool,
        (done, total_bytes): (u64, u64),
        workshop: &mut Workshop,
    ) -> Result<(), Fault> {
        let (start, room) = layout.range(place);
        let (counted, count) = Counted::new(saved.open(self.directory));
        let read_bytes = || done + count.load(Ordering::Relaxed);
        let mut reader = unpacked(counted, &count)?;
        let progress = Progress {
            read_bytes: &read_bytes,
            total_bytes,
        };
        let written = match saved.content {
            Content::Partclone => {
                partclone::restore(&mut reader, spool, start, room, &progress, workshop)
            }
            Content::Raw => {
                let mut limited = (&mut reader).take(room);
                let bytes = spool.fill(start, &mut limited, &read_bytes, total_bytes, workshop)?;
                match read_full(&mut reader, &mut [0]) {
                    Ok(0) => Ok(bytes),
                    Ok(_) => Err(Fault::refuse(format!(
                        "it is larger than its place, {room}"
                    ))),
                    Err(error) => Err(Fault::decoding(read_bytes(), error)),
                }
            }
        };
        // Offsets are those of this partition's own pieces.
        written.map(drop).map_err(|fault| match fault {
            Fault::Malformed(mut malformed) => {
                malformed.offset = malformed.offset.saturating_sub(done);
                Fault::Malformed(malformed)
            }
            other => other,
        })
    }

    /// Makes the swap partition anew that `place` was; false when it was none.
    fn swap(&mut self, layout: &Layout, place: &Place, spool: &Spool) -> Result<bool, Fault> {
        let file = format!("swappt-{}.info", place.name);
        let Some(info) = self.bytes(&file)? else {
            return Ok(false);
        };
        let (start, bytes) = layout.range(place);
        let info = String::from_utf8_lossy(&info);
        let header = tables::swap_header(&info, bytes)
            .ok_or_else(|| Fault::at(0, format!("{file} names no UUID of a swap partition")))?;
        spool.write(start, &header)?;
        Ok(true)
    }

    /// Writes the tables of the disk.
    fn tables(&mut self, disk: &str, layout: &Layout, spool: &Spool) -> Result<(), Fault> {
        let mbr = self.bytes(&format!("{disk}-mbr"))?;
        match layout.kind {
            TableKind::Gpt => {
                let first = self.bytes(&format!("{disk}-gpt-1st"))?;
                let backup = self.bytes(&format!("{disk}-gpt.gdisk"))?;
                let gpt = tables::Gpt::parse(
                    first.as_deref(),
                    backup.as_deref(),
                    layout.sector_bytes,
                    layout.sectors,
                )?;
                spool.write(
                    0,
                    mbr.as_deref()
                        .and_then(|m| m.get(..512))
                        .unwrap_or(&gpt.mbr),
                )?;
                for (sector, bytes) in gpt.render() {
                    spool.write(sector * u64::from(layout.sector_bytes), &bytes)?;
                }
            }
            TableKind::Mbr => {
                let first = layout.first_byte();
                if let Some(hidden) = self.bytes(&format!("{disk}-hidden-data-after-mbr"))? {
                    let room = first.saturating_sub(512).min(hidden.len() as u64);
                    spool.write(512, &hidden[..room as usize])?;
                } else {
                    self.notes.push(
                        "the gap before the first partition was not saved: a boot loader in it \
                         must be installed again"
                            .into(),
                    );
                }
                let mbr = mbr.and_then(|mbr| mbr.get(..512).map(<[u8]>::to_vec));
                let mbr = mbr.ok_or_else(|| Fault::refuse(format!("{disk}-mbr is missing")))?;
                let code = match layout.places.iter().find(|place| place.extended) {
                    Some(extended) => self.bytes(&format!("{}-ebr", extended.name))?,
                    None => None,
                };
                for (sector, bytes) in tables::logical(layout, code.as_deref())? {
                    spool.write(sector * u64::from(layout.sector_bytes), &bytes)?;
                }
                spool.write(0, &mbr)?;
            }
        }
        Ok(())
    }

    fn text(&self, file: &str) -> Result<String, Fault> {
        let bytes = self.bytes(file)?;
        let bytes = bytes.ok_or_else(|| Fault::refuse(format!("{file} is missing")))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A small file, if it is there. Names come out of the files themselves: one that is not of
    /// the directory names nothing.
    fn bytes(&self, file: &str) -> Result<Option<Vec<u8>>, Fault> {
        if !self.listing.has(file) {
            return Ok(None);
        }
        let opened = fs::File::open(self.directory.join(file)).map_err(Fault::Read)?;
        let mut bytes = Vec::new();
        let read = opened.take(SMALL_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(Fault::Read)?;
        if bytes.len() as u64 > SMALL_BYTES {
            return Err(Fault::refuse(format!("{file} is larger than it can be")));
        }
        Ok(Some(bytes))
    }
}

/// What `reader` holds, whatever it is compressed with.
fn unpacked(
    mut reader: Counted<pieces::Joined>,
    count: &Arc<AtomicU64>,
) -> Result<Box<dyn Read + Send>, Fault> {
    let mut head = [0; 8];
    let filled = read_full(&mut reader, &mut head).map_err(Fault::Read)?;
    let packing = Packing::of(&head[..filled]);
    let whole = io::Cursor::new(head[..filled].to_vec()).chain(reader);
    match packing {
        None => Ok(Box::new(whole)),
        Some(packing) => packing
            .unpack(whole)
            .map_err(|error| Fault::decoding(count.load(Ordering::Relaxed), error)),
    }
}
