//! An image file, opened for reading.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::bytes::Malformed;
use crate::id::{FrameId, ImageId};
use crate::manifest::{Manifest, ManifestError};
use crate::seek_table::{self, Entry, FOOTER_BYTES, SKIPPABLE_HEADER_BYTES, SKIPPABLE_MAGIC};
use crate::stored::StoredDisk;

/// Skippable frames of our kinds behind the data: a manifest, a signature, and room for later.
const TRAILERS_MAX: usize = 4;

/// Why a file cannot be opened or read as an image.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The file cannot be opened or read.
    #[error("{}: reading at byte {offset}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is no netflash image: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// It is an image, but not whole.
    #[error("{} is damaged at byte {offset}: {reason}", path.display())]
    Damaged {
        /// The image.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        reason: String,
    },
    /// Its manifest cannot be read.
    #[error("{}: manifest at byte {offset}", path.display())]
    Manifest {
        /// The image.
        path: PathBuf,
        /// Where in the file the manifest begins.
        offset: u64,
        /// What is wrong with it.
        source: ManifestError,
    },
}

/// An open image. All of it is checked on opening but the frames themselves.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    manifest: Arc<Manifest>,
    offsets: Vec<u64>,
}

impl Image {
    /// Opens an image: reads its seek table and manifest and compares them with each other and
    /// with the size of the file.
    ///
    /// # Errors
    /// See [`ImageError`]. Nothing larger than the file is allocated, whatever it claims.
    pub fn open(path: &Path) -> Result<Image, ImageError> {
        let opening = Opening { path };
        let file = File::open(path).map_err(|source| opening.io(0, source))?;
        let length = file
            .metadata()
            .map_err(|source| opening.io(0, source))?
            .len();
        let (entries, frames_end) = opening.read_seek_table(&file, length)?;
        let data = entries
            .iter()
            .take_while(|entry| entry.raw_bytes > 0)
            .count();
        let manifest = opening.read_manifest(&file, &entries, data, frames_end)?;
        opening.compare(&entries[..data], &manifest)?;
        let offsets =
            (0..manifest.frame_count()).map(|frame| manifest.stored_range(FrameId(frame)).start);
        let offsets = offsets.chain([manifest.stored_total()]).collect();
        Ok(Image {
            path: path.to_owned(),
            file,
            manifest: Arc::new(manifest),
            offsets,
        })
    }

    /// Where the image lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The bytes of its manifest.
    pub fn manifest_bytes(&self) -> &Arc<[u8]> {
        self.manifest.to_bytes()
    }

    /// Its id.
    pub fn id(&self) -> ImageId {
        self.manifest.id()
    }

    /// Appends `frame`, as it is stored, to `stored`.
    ///
    /// # Errors
    /// When the file cannot be read or has become shorter.
    pub fn read_stored(&self, frame: FrameId, stored: &mut Vec<u8>) -> Result<(), ImageError> {
        let range = self.manifest.stored_range(frame);
        let before = stored.len();
        stored.resize(before + (range.end - range.start) as usize, 0);
        let read = self.file.read_exact_at(&mut stored[before..], range.start);
        read.map_err(|source| ImageError::Io {
            path: self.path.clone(),
            offset: range.start,
            source,
        })
    }

    /// Size of the file, bytes, as far as the manifest knows it: all frames. What follows them is not counted.
    pub fn stored_bytes(&self) -> u64 {
        self.manifest.stored_total()
    }

    /// Fills `bytes` from the file, as it is stored, from `offset` on.
    ///
    /// # Errors
    /// When the file cannot be read or has become shorter.
    pub fn read_file(&self, offset: u64, bytes: &mut [u8]) -> Result<(), ImageError> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|source| ImageError::Io {
            path: self.path.clone(),
            offset,
            source,
        })
    }

    /// The raw disk in the image.
    pub(crate) fn disk(&self) -> io::Result<StoredDisk<'_>> {
        StoredDisk::new(&self.file, &self.offsets, self.manifest.raw_bytes())
    }
}

struct Opening<'a> {
    path: &'a Path,
}

impl Opening<'_> {
    fn io(&self, offset: u64, source: io::Error) -> ImageError {
        ImageError::Io {
            path: self.path.to_owned(),
            offset,
            source,
        }
    }

    fn foreign(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Foreign {
            path: self.path.to_owned(),
            reason: reason.into(),
        }
    }

    fn damaged(&self, offset: u64, reason: impl Into<String>) -> ImageError {
        ImageError::Damaged {
            path: self.path.to_owned(),
            offset,
            reason: reason.into(),
        }
    }

    fn malformed(&self, base: u64, error: Malformed) -> ImageError {
        self.damaged(base + error.offset, error.reason)
    }

    fn read(&self, file: &File, offset: u64, count: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![0; count as usize];
        file.read_exact_at(&mut bytes, offset)
            .map_err(|source| self.io(offset, source))?;
        Ok(bytes)
    }

    /// The entries, and where the frames they describe end.
    fn read_seek_table(&self, file: &File, length: u64) -> Result<(Vec<Entry>, u64), ImageError> {
        if length < FOOTER_BYTES {
            return Err(self.foreign(format!("it has {length} bytes")));
        }
        let footer = self.read(file, length - FOOTER_BYTES, FOOTER_BYTES)?;
        let table_bytes = seek_table::table_bytes(&footer)
            .map_err(|error| self.foreign(format!("{}; was it cut off?", error.reason)))?;
        if table_bytes > length {
            return Err(self.damaged(
                length - FOOTER_BYTES,
                format!("seek table of {table_bytes} bytes in {length}"),
            ));
        }
        let start = length - table_bytes;
        let table = self.read(file, start, table_bytes)?;
        let entries = seek_table::parse(&table).map_err(|error| self.malformed(start, error))?;
        let frames_end: u64 = entries
            .iter()
            .map(|entry| u64::from(entry.stored_bytes))
            .sum();
        if frames_end != start {
            return Err(self.damaged(
                start,
                format!("seek table accounts for {frames_end} bytes before it"),
            ));
        }
        Ok((entries, start))
    }

    /// Finds the manifest among the skippable frames behind the data.
    fn read_manifest(
        &self,
        file: &File,
        entries: &[Entry],
        data: usize,
        frames_end: u64,
    ) -> Result<Manifest, ImageError> {
        let trailers = &entries[data..];
        let foreign = || self.foreign("a zstd file without a netflash manifest");
        if trailers.is_empty()
            || trailers.len() > TRAILERS_MAX
            || trailers.iter().any(|t| t.raw_bytes != 0)
        {
            return Err(foreign());
        }
        let mut offset = frames_end
            - trailers
                .iter()
                .map(|t| u64::from(t.stored_bytes))
                .sum::<u64>();
        for trailer in trailers {
            let stored = u64::from(trailer.stored_bytes);
            if stored < SKIPPABLE_HEADER_BYTES {
                return Err(self.damaged(offset, "skippable frame shorter than its header"));
            }
            let header = self.read(file, offset, SKIPPABLE_HEADER_BYTES)?;
            let (magic, length) = header.split_at(4);
            if magic == SKIPPABLE_MAGIC.to_le_bytes() {
                let length = u32::from_le_bytes(length.try_into().expect("four bytes"));
                if u64::from(length) + SKIPPABLE_HEADER_BYTES != stored {
                    return Err(self.damaged(
                        offset,
                        "manifest of another length than the seek table says",
                    ));
                }
                let place = offset + SKIPPABLE_HEADER_BYTES;
                let bytes = self.read(file, place, u64::from(length))?;
                return Manifest::parse(&bytes).map_err(|source| match source {
                    ManifestError::Foreign => foreign(),
                    source => ImageError::Manifest {
                        path: self.path.to_owned(),
                        offset: place,
                        source,
                    },
                });
            }
            offset += stored;
        }
        Err(foreign())
    }

    fn compare(&self, data: &[Entry], manifest: &Manifest) -> Result<(), ImageError> {
        if data.len() != manifest.frame_count() as usize {
            let reason = format!(
                "seek table of {} frames, manifest of {}",
                data.len(),
                manifest.frame_count()
            );
            return Err(self.damaged(0, reason));
        }
        for (entry, frame) in data.iter().zip((0..).map(FrameId)) {
            let range = manifest.frame_range(frame);
            let same = entry.stored_bytes == manifest.stored_bytes(frame)
                && u64::from(entry.raw_bytes) == range.end - range.start;
            if !same {
                let offset = manifest.stored_range(frame).start;
                return Err(self.damaged(
                    offset,
                    format!("seek table and manifest differ about frame {frame}"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
