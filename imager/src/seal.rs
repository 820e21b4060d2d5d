//! Sealing: a disk becomes an image, in one pass and with bounded memory.
//!
//! ```text
//!  source ──► readers ──► workers: find zeros, hash, compress ──► writer (in order) ──► NAME.part
//!     ▲                                                              │
//!     └──────────────── empty pieces go round and round ◄───────────┘
//!  then: tables and facts read back from NAME.part, manifest, seek table, fsync, rename, fsync
//! ```
//!
//! Tables are read from the frames just stored once more: the manifest speaks of the data the image
//! holds, also when the source was a pipe.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use thiserror::Error;

use crate::bytes::Writer as Fields;
use crate::extent::{ExtentKind, Extents};
use crate::id::{FrameId, ImageId};
use crate::manifest::{
    FRAME_BYTES, FRAMES_MAX, Manifest, ManifestError, ManifestParts, frames_of, used_frames,
};
use crate::mask::mask;
use crate::part_file::PartFile;
use crate::partition::Partition;
use crate::read_at::ReadAt;
use crate::scan::{Refusal, Scan, scan, scan_tables};
use crate::scope::PartitionSet;

use crate::seal::consent::{check_consent, numbers, sentences, told, told_of_source, unchanged};
use crate::seal::piece::Piece;
use crate::seal::pipeline::run;
use crate::seek_table::{self, Entry, SKIPPABLE_HEADER_BYTES, SKIPPABLE_MAGIC};
use crate::source::Source;
use crate::stored::StoredDisk;
use crate::tables::Tables;
use crate::whole::Whole;

mod consent;
mod piece;
mod pipeline;
mod press;
mod stream;

pub use stream::seal_to;

/// How a disk is sealed.
#[derive(Clone, Debug)]
pub struct SealOptions {
    /// Leave out what is proved to be free.
    pub used_only: bool,
    /// Partitions kept byte for byte all the same, also when that is refused otherwise.
    pub whole: Whole,
    /// The only partitions whose content is taken; all when nothing is said.
    pub only: Option<PartitionSet>,
    /// zstd level, 1 (fast) to 19 (small).
    pub level: i32,
    /// A note for people.
    pub note: String,
    /// The image this one was made from.
    pub parent: Option<ImageId>,
    /// When the image is made, seconds since 1970 (UTC).
    pub created: u64,
    /// Compressing threads, at least 1; fewer are taken where memory would not hold them.
    pub threads: usize,
}

/// How far sealing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealProgress {
    /// Raw bytes done.
    pub raw_bytes: u64,
    /// Raw bytes there are; not known of a stream.
    pub raw_total: Option<u64>,
    /// Compressed bytes written.
    pub stored_bytes: u64,
}

/// A sealed image.
#[derive(Debug)]
pub struct Sealed {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// What a person should know: which partition was kept whole, and why.
    pub notes: Vec<String>,
}

/// Why there is no image. Nothing is left behind.
#[derive(Debug, Error)]
pub enum SealError {
    /// The source failed.
    #[error("reading the source at byte {offset}")]
    Read {
        /// Where on the raw disk.
        offset: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// The image.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The image is there already.
    #[error("{} exists; remove it or choose another name", path.display())]
    Exists {
        /// The image.
        path: PathBuf,
    },
    /// Partitions whose image would be useless or wrong.
    #[error("not safe to capture: {}", sentences(partitions))]
    Unsafe {
        /// Each with what to do.
        partitions: Vec<Refusal>,
    },
    /// A partition that was named is not there.
    #[error("there is no partition {number}; the source has {}", numbers(there))]
    NoPartition {
        /// As asked for.
        number: u32,
        /// Those of the source.
        there: Vec<u32>,
    },
    /// Another table or other partitions were found after reading than before.
    #[error("the source changed while it was read; capture a disk that is not in use")]
    Changed,
    /// Whoever takes the image failed.
    #[error("handing on the image")]
    Sink {
        /// What it said.
        source: io::Error,
    },
    /// A stream cannot be read twice.
    #[error("a stream cannot be sealed on the way; name a file or device")]
    Stream,
    /// Of a stream nothing is known before it is read.
    #[error("partitions cannot be left out of a stream; name a file or device")]
    OnlyOfStream,
    /// More than an image can hold.
    #[error("the source is larger than {} TiB, the most an image can hold", u64::from(FRAMES_MAX) >> 20)]
    TooLarge,
    /// zstd failed.
    #[error("compressing")]
    Compress {
        /// What it said.
        source: io::Error,
    },
    /// Sealed nonsense: an error in this program.
    #[error("the manifest of the new image is not valid")]
    Manifest(#[from] ManifestError),
    /// The stop flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Seals `source` as the image `output`.
///
/// The image appears under its name complete and on stable storage, or not at all.
///
/// # Errors
/// See [`SealError`].
pub fn seal(
    mut source: Source,
    output: &Path,
    options: &SealOptions,
    observer: &mut dyn FnMut(SealProgress),
    stop: &AtomicBool,
) -> Result<Sealed, SealError> {
    let write_error = |source| SealError::Write {
        path: output.to_owned(),
        source,
    };
    if output.symlink_metadata().is_ok() {
        return Err(SealError::Exists {
            path: output.to_owned(),
        });
    }
    check_size(&source)?;
    let sector_bytes = source.disk().and_then(|disk| disk.sector_bytes());
    let before = match source.disk() {
        Some(disk) => {
            let found = scan(disk, sector_bytes, &options.whole, options.only.as_ref());
            Some(found.map_err(|source| SealError::Read { offset: 0, source })?)
        }
        None => None,
    };
    if let Some(found) = &before {
        check_consent(found, options)?;
    }
    let mut notes = told_of_source(&source);
    let free = match &before {
        Some(found) => found.skipped(options.used_only),
        None if options.only.is_some() => return Err(SealError::OnlyOfStream),
        None => Vec::new(),
    };

    let part = PartFile::create(output).map_err(write_error)?;
    let mut draft = Draft::default();
    {
        let mut out = BufWriter::with_capacity(FRAME_BYTES as usize, part.file());
        let mut write = |stored: &[u8]| out.write_all(stored).map_err(write_error);
        draft.fill(&mut source, &free, options, &mut write, observer, stop)?;
        out.flush().map_err(write_error)?;
    }

    let stored = draft.disk(part.file()).map_err(write_error)?;
    let found = match before {
        Some(before) => {
            let after = scan_tables(&stored, sector_bytes).map_err(write_error)?;
            unchanged(before, &after)?
        }
        None => {
            let mut found =
                scan(&stored, sector_bytes, &options.whole, None).map_err(write_error)?;
            found.notes.clear();
            if options.used_only {
                let note = "a stream is kept whole: free space is only told from a file or device";
                found.notes.push(note.into());
            }
            found
        }
    };
    let (data_end, hashes) = draft
        .mask_tables(&stored, &found.tables)
        .map_err(write_error)?;
    drop(stored);
    draft.hashes = hashes;
    let manifest = Manifest::new(&draft.parts(&found, data_end, options))?;
    tail(&manifest)
        .and_then(|tail| part.file().write_all_at(&tail, manifest.stored_total()))
        .map_err(write_error)?;
    part.finish(output).map_err(write_error)?;

    notes.extend(told(found));
    Ok(Sealed {
        manifest: Arc::new(manifest),
        notes,
    })
}

/// Refuses a source that no image can hold.
fn check_size(source: &Source) -> Result<(), SealError> {
    match source.raw_bytes() {
        Some(bytes) if frames_of(bytes) > u64::from(FRAMES_MAX) => Err(SealError::TooLarge),
        _ => Ok(()),
    }
}

/// The manifest as it grows.
struct Draft {
    extents: Extents,
    offsets: Vec<u64>,
    hashes: Vec<[u8; 32]>,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            extents: Extents::new(),
            offsets: vec![0],
            hashes: Vec::new(),
        }
    }
}

impl Draft {
    /// Gives every frame of `source` to `write`, in order, and keeps what the manifest says of it.
    fn fill(
        &mut self,
        source: &mut Source,
        free: &[Range<u64>],
        options: &SealOptions,
        write: &mut dyn FnMut(&[u8]) -> Result<(), SealError>,
        observer: &mut dyn FnMut(SealProgress),
        stop: &AtomicBool,
    ) -> Result<(), SealError> {
        let raw_total = source.raw_bytes();
        run(source, free, options, stop, &mut |piece: &Piece| {
            write(&piece.stored)?;
            self.append(piece);
            observer(SealProgress {
                raw_bytes: self.extents.raw_bytes(),
                raw_total,
                stored_bytes: *self.offsets.last().expect("never empty"),
            });
            Ok(())
        })
    }

    fn append(&mut self, piece: &Piece) {
        for &(kind, bytes) in &piece.runs {
            self.extents.push(kind, bytes);
        }
        let end = self.offsets.last().expect("never empty") + piece.stored.len() as u64;
        self.offsets.push(end);
        self.hashes.extend(piece.hash);
    }

    /// What was stored, as a disk.
    fn disk<'a>(&'a self, file: &'a File) -> io::Result<StoredDisk<'a>> {
        StoredDisk::new(file, &self.offsets, self.extents.raw_bytes())
    }

    /// Hashes the few frames with tables once more, now that it is known where tables are. Gives
    /// the end of the last data on the disk that is not a table, and all hashes.
    fn mask_tables(&self, disk: &dyn ReadAt, tables: &Tables) -> io::Result<(u64, Vec<[u8; 32]>)> {
        let raw_bytes = self.extents.raw_bytes();
        let mut hashes = self.hashes.clone();
        let masked = tables.masked(raw_bytes);
        let mut data_end = 0;
        for (frame, hash) in used_frames(&self.extents).into_iter().zip(&mut hashes) {
            let start = u64::from(frame.0) * u64::from(FRAME_BYTES);
            let range = start..(start + u64::from(FRAME_BYTES)).min(raw_bytes);
            if masked
                .iter()
                .any(|table| table.start < range.end && range.start < table.end)
            {
                let mut raw = vec![0; (range.end - range.start) as usize];
                disk.read_exact_at(range.start, &mut raw)?;
                mask(self.extents.within(range.clone()), &masked, range, &mut raw);
                *hash = *blake3::hash(&raw).as_bytes();
                data_end = raw
                    .iter()
                    .rposition(|&byte| byte != 0)
                    .map_or(data_end, |last| start + last as u64 + 1);
            } else {
                let used = self
                    .extents
                    .within(range)
                    .filter(|run| run.kind == ExtentKind::Used);
                data_end = used.last().map_or(data_end, |run| run.end());
            }
        }
        Ok((data_end, hashes))
    }

    fn parts(self, found: &Scan, data_end: u64, options: &SealOptions) -> ManifestParts {
        ManifestParts {
            sector_bytes: found.tables.sector_bytes,
            created: options.created,
            min_target_bytes: min_target_bytes(data_end, self.extents.raw_bytes(), found),
            parent: options.parent,
            note: options.note.clone(),
            stored_bytes: self
                .offsets
                .windows(2)
                .map(|pair| (pair[1] - pair[0]) as u32)
                .collect(),
            extents: self.extents,
            hashes: self.hashes,
            tables: found.tables.clone(),
            partitions: found.partitions.clone(),
        }
    }
}

/// The smallest disk that holds all partitions, all data, and the backup of a GPT behind them.
fn min_target_bytes(data_end: u64, raw_bytes: u64, found: &Scan) -> u64 {
    let sector_bytes = found.tables.sector_bytes;
    if found.tables.lba0.is_none() {
        return raw_bytes;
    }
    let last_partition = found
        .partitions
        .iter()
        .map(Partition::end_bytes)
        .max()
        .unwrap_or(0);
    let end = data_end
        .max(last_partition)
        .next_multiple_of(u64::from(sector_bytes));
    let backup = found
        .tables
        .gpt
        .as_ref()
        .map_or(0, |gpt| gpt.entries_sectors(sector_bytes) + 1);
    (end + backup * u64::from(sector_bytes)).min(raw_bytes)
}

/// What follows the frames: the manifest and the seek table.
fn tail(manifest: &Manifest) -> io::Result<Vec<u8>> {
    let bytes = manifest.to_bytes();
    let length = u32::try_from(bytes.len())
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "manifest above 4 GiB"))?;
    let mut entries: Vec<Entry> = (0..manifest.frame_count())
        .map(|frame| {
            let range = manifest.frame_range(FrameId(frame));
            Entry {
                stored_bytes: manifest.stored_bytes(FrameId(frame)),
                raw_bytes: (range.end - range.start) as u32,
            }
        })
        .collect();
    entries.push(Entry {
        stored_bytes: length + SKIPPABLE_HEADER_BYTES as u32,
        raw_bytes: 0,
    });
    let mut tail = Fields::default();
    tail.u32(SKIPPABLE_MAGIC)
        .u32(length)
        .raw(bytes)
        .raw(&seek_table::render(&entries));
    Ok(tail.finish())
}
