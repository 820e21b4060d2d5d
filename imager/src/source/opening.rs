//! From the bytes of a source to a disk: by its format, through archive and compression.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::image::Image;
use crate::manifest::{FRAME_BYTES, FRAMES_MAX};
use crate::read_at::ReadAt;
use crate::source::fault::Fault;
use crate::source::format::{Format, HEAD_BYTES};
use crate::source::medium::{Extract, Medium};
use crate::source::partclone::Progress;
use crate::source::spool::Workshop;
use crate::source::unpack::{Counted, Packing};
use crate::source::{Disk, SourceError, ova, partclone, peek, qcow2, vhd, vhdx, vmdk};

/// Where the bytes of a disk lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In the source itself.
    File,
    /// In a member of the archive that the source is.
    Member,
    /// In a spool file.
    Spool,
}

/// Layers a disk may lie under: archive in compression, disk in compression in the archive. A file
/// can be made that unpacks to itself.
const LAYERS_MAX: u32 = 4;

/// A source on its way to a disk.
pub(super) struct Opening<'a> {
    pub(super) path: &'a Path,
    pub(super) workshop: Workshop<'a>,
    /// Layers opened so far, 0 at first.
    pub(super) layers: u32,
}

impl Opening<'_> {
    /// The disk in `extract`, which lies where `origin` says.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub(super) fn open(&mut self, extract: Extract, origin: Origin) -> Result<Disk, SourceError> {
        let mut head = vec![0; HEAD_BYTES.min(extract.raw_bytes() as usize)];
        let read = extract.read_exact_at(0, &mut head);
        read.map_err(|source| self.fail(Format::Raw, Fault::Read(source)))?;
        let format = Format::of(&head);
        self.layers += 1;
        if self.layers > LAYERS_MAX {
            let fault = Fault::refuse("it is packed again and again; unpack it by hand");
            return Err(self.fail(format, fault));
        }
        match format {
            Format::Packed(packing) if origin != Origin::Spool => {
                if packing == Packing::Zstd && Image::open(self.path).is_ok() {
                    let path = self.path.to_owned();
                    return Err(SourceError::Image { path });
                }
                let spooled = self.spool(&extract, Some(packing));
                let spooled = spooled.map_err(|fault| self.fail(format, fault))?;
                self.open(spooled, Origin::Spool)
            }
            Format::Tar if origin != Origin::Member => {
                let found = ova::open(&extract, &mut self.workshop);
                let (member, notes) = found.map_err(|fault| self.fail(format, fault))?;
                let mut disk = self.open(member, Origin::Member)?;
                disk.notes.extend(notes);
                Ok(disk)
            }
            Format::Qcow2 => self.convert(&extract, &head, origin),
            Format::Other(format) => Err(SourceError::Format {
                path: self.path.to_owned(),
                format,
            }),
            _ => {
                let disk = self.map(extract, format, origin);
                disk.map_err(|fault| self.fail(format, fault))
            }
        }
    }

    /// A disk that needs nothing but reading, or no more than a spool file.
    fn map(&mut self, extract: Extract, format: Format, origin: Origin) -> Result<Disk, Fault> {
        let medium: Box<dyn Medium> = match format {
            Format::Partclone => Box::new(self.spool(&extract, None)?),
            Format::Vmdk => vmdk::open_sparse(extract)?,
            Format::VmdkDescriptor => {
                let beside = self.path.parent().filter(|_| origin == Origin::File);
                vmdk::open_descriptor(&extract, beside)?
            }
            Format::Vhd => vhd::open(extract)?,
            Format::Vhdx => {
                let (medium, sector_bytes) = vhdx::open(extract)?;
                let mut disk = Disk::from(medium);
                disk.sector_bytes = Some(sector_bytes);
                return Ok(disk);
            }
            Format::Packed(_) => {
                return Err(Fault::refuse(
                    "it is compressed twice; unpack it once by hand",
                ));
            }
            Format::Tar => return Err(Fault::refuse("it is an archive in an archive")),
            Format::Raw | Format::Qcow2 | Format::Other(_) => {
                let footed = vhd::fixed(&extract).map_err(Fault::Read)?;
                Box::new(footed.unwrap_or(extract))
            }
        };
        Ok(Disk::from(medium))
    }

    fn fail(&self, format: Format, fault: Fault) -> SourceError {
        fault.of(self.path, format.name(), self.workshop.scratch)
    }

    /// Unpacks `extract` into a spool file; a file system saved by partclone is restored at once.
    fn spool(&mut self, extract: &Extract, packing: Option<Packing>) -> Result<Extract, Fault> {
        let total_bytes = extract.raw_bytes();
        let (counted, count) = Counted::new(extract.front_to_back());
        let read_bytes = || count.load(Ordering::Relaxed);
        let failed = |error| Fault::decoding(read_bytes(), error);
        let reader: Box<dyn Read + Send> = match packing {
            Some(packing) => packing.unpack(counted).map_err(failed)?,
            None => Box::new(counted),
        };
        let (head, mut reader) = peek(reader).map_err(failed)?;
        let spool = self.workshop.spool()?;
        let workshop = &mut self.workshop;
        let bytes = match Format::of(&head) {
            Format::Partclone => {
                let progress = Progress {
                    read_bytes: &read_bytes,
                    total_bytes,
                };
                let room = u64::from(FRAMES_MAX) * u64::from(FRAME_BYTES);
                partclone::restore(&mut reader, &spool, 0, room, &progress, workshop)?
            }
            _ => spool.fill(0, &mut reader, &read_bytes, total_bytes, workshop)?,
        };
        spool.finish(bytes)
    }

    fn convert(
        &mut self,
        extract: &Extract,
        head: &[u8],
        origin: Origin,
    ) -> Result<Disk, SourceError> {
        let fail = |reason: String| SourceError::Qcow2 {
            path: self.path.to_owned(),
            reason,
        };
        let path = match origin {
            // A spool file has no name but this.
            Origin::Spool => {
                let number = extract.file().as_raw_fd();
                PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()))
            }
            Origin::Member => return Err(fail("it is in an archive; unpack it first".into())),
            Origin::File => self.path.canonicalize().map_err(|e| fail(e.to_string()))?,
        };
        let converted = qcow2::convert(&path, head, self.workshop.scratch).map_err(fail)?;
        let read = |source| SourceError::Io {
            path: self.path.to_owned(),
            source,
        };
        let file = File::open(converted.path()).map_err(read)?;
        let bytes = file.metadata().map_err(read)?.len();
        let mut disk = Disk::from(Box::new(Extract::new(file, bytes)) as Box<dyn Medium>);
        disk._converted = Some(converted);
        Ok(disk)
    }
}
