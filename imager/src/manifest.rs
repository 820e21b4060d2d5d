//! The manifest: everything about an image but its data.
//!
//! It travels alone (in-band, before the data of a session), so it is parsed from bytes and knows
//! no file. Its bytes are its identity: parsing accepts exactly one form of each value, and
//! [`Manifest::new`] goes through the parser, so there is one place that decides what is valid.
//!
//! The layout is in `docs/IMAGE-FORMAT.md`.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use thiserror::Error;

use crate::bytes::{Malformed, Reader, Writer};
use crate::extent::{Extent, Extents};
use crate::id::{FrameId, ImageId};
use crate::partition::{self, BootModes, Partition};
use crate::tables::Tables;

mod table_codec;

pub(crate) use table_codec::{ENTRY_ARRAY_MAX, LBA_MAX};

/// Raw bytes in a frame; only the last frame of a disk may hold fewer.
pub const FRAME_BYTES: u32 = 1 << 20;

/// Largest compressed frame: what `ZSTD_compressBound` gives for 1 MiB, and some room.
pub const STORED_BYTES_MAX: u32 = FRAME_BYTES + (1 << 13);

/// Most frames of an image: the zstd seek table holds no more than 2^27 entries.
pub const FRAMES_MAX: u32 = (1 << 27) - 16;

const MAGIC: [u8; 8] = *b"NFMANIF\n";
const VERSION: u16 = 1;
const NOTE_MAX: usize = 4096;
const SECTOR_SIZES: [u32; 2] = [512, 4096];
const HASH_BYTES: usize = 32;

static ZERO_FRAME_HASH: LazyLock<[u8; 32]> = LazyLock::new(|| zero_hash(u64::from(FRAME_BYTES)));

/// Bytes that are not a manifest.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// They begin with something else.
    #[error("not a netflash manifest")]
    Foreign,
    /// They were written by a newer netflash.
    #[error(
        "manifest format {version} is newer than this program knows ({VERSION}); update netflash"
    )]
    Version {
        /// The format version found.
        version: u16,
    },
    /// They are damaged or were made to harm.
    #[error("damaged manifest: {0}")]
    Malformed(#[from] Malformed),
}

/// What a manifest is made of.
#[derive(Clone, Debug)]
pub struct ManifestParts {
    /// Logical sector size of the disk, bytes: 512 or 4096.
    pub sector_bytes: u32,
    /// When the image was made, seconds since 1970 (UTC).
    pub created: u64,
    /// Smallest disk the image fits on, bytes.
    pub min_target_bytes: u64,
    /// The image this one was made from.
    pub parent: Option<ImageId>,
    /// A person's note, up to 4096 bytes.
    pub note: String,
    /// What each part of the disk is; they also give its size.
    pub extents: Extents,
    /// Compressed size of every frame, in order.
    pub stored_bytes: Vec<u32>,
    /// Hash of every frame with a used byte, in order; see [`crate::mask_frame`].
    pub hashes: Vec<[u8; 32]>,
    /// Partition tables.
    pub tables: Tables,
    /// Facts about the partitions.
    pub partitions: Vec<Partition>,
}

/// A valid manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Arc<[u8]>,
    id: ImageId,
    parts: ManifestParts,
    // Where each stored frame begins in the file; one entry more than there are frames.
    offsets: Vec<u64>,
    sent: Vec<FrameId>,
    masked: Vec<Range<u64>>,
    tail_zero_hash: [u8; 32],
}

impl Manifest {
    /// Builds a manifest.
    ///
    /// # Errors
    /// When the parts contradict each other.
    pub fn new(parts: &ManifestParts) -> Result<Manifest, ManifestError> {
        Manifest::parse(&render(parts))
    }

    /// Parses the bytes of a manifest. Allocates in proportion to `bytes`, whatever they claim.
    ///
    /// # Errors
    /// When the bytes are not exactly one valid manifest; the error says where and why.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(ManifestError::Foreign);
        }
        let mut reader = Reader::new(bytes);
        reader.take(MAGIC.len(), "magic")?;
        let version = reader.u16("version")?;
        if version != VERSION {
            return Err(ManifestError::Version { version });
        }
        let parts = read_parts(&mut reader)?;
        reader.end()?;

        let mut offsets = Vec::with_capacity(parts.stored_bytes.len() + 1);
        offsets.push(0);
        let mut end = 0u64;
        for &stored in &parts.stored_bytes {
            end += u64::from(stored);
            offsets.push(end);
        }
        let raw_bytes = parts.extents.raw_bytes();
        let tail = frame_range(parts.stored_bytes.len() as u32 - 1, raw_bytes);
        Ok(Manifest {
            bytes: bytes.into(),
            id: ImageId::of(bytes),
            sent: used_frames(&parts.extents),
            masked: parts.tables.masked(raw_bytes),
            tail_zero_hash: zero_hash(tail.end - tail.start),
            offsets,
            parts,
        })
    }

    /// The bytes that were parsed: what is stored, sent and hashed.
    pub fn to_bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// The id of the image: the hash of [`Manifest::to_bytes`].
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// Size of the raw disk, bytes.
    pub fn raw_bytes(&self) -> u64 {
        self.parts.extents.raw_bytes()
    }

    /// Raw bytes in every frame but the last.
    pub fn frame_bytes(&self) -> u32 {
        FRAME_BYTES
    }

    /// Logical sector size of the disk, bytes: 512 or 4096.
    pub fn sector_bytes(&self) -> u32 {
        self.parts.sector_bytes
    }

    /// Number of frames; at least one.
    pub fn frame_count(&self) -> u32 {
        self.parts.stored_bytes.len() as u32
    }

    /// The raw bytes that `frame` covers.
    ///
    /// # Panics
    /// When the image has no such frame; so do the other functions that take one.
    pub fn frame_range(&self, frame: FrameId) -> Range<u64> {
        assert!(
            frame.0 < self.frame_count(),
            "{frame:?} of {}",
            self.frame_count()
        );
        frame_range(frame.0, self.raw_bytes())
    }

    /// Where the compressed `frame` lies in the image file.
    pub fn stored_range(&self, frame: FrameId) -> Range<u64> {
        self.offsets[frame.index()]..self.offsets[frame.index() + 1]
    }

    /// Compressed size of `frame`, bytes.
    pub fn stored_bytes(&self, frame: FrameId) -> u32 {
        self.parts.stored_bytes[frame.index()]
    }

    /// Compressed size of all frames, bytes: where they end in the image file.
    pub fn stored_total(&self) -> u64 {
        *self
            .offsets
            .last()
            .expect("one entry more than there are frames")
    }

    /// BLAKE3 of the masked raw bytes of `frame`.
    pub fn hash(&self, frame: FrameId) -> [u8; 32] {
        match self.sent.binary_search(&frame) {
            Ok(index) => self.parts.hashes[index],
            Err(_) if frame.0 + 1 == self.frame_count() => self.tail_zero_hash,
            Err(_) => *ZERO_FRAME_HASH,
        }
    }

    /// The frames with at least one used byte, in order: what is sent.
    pub fn sent(&self) -> &[FrameId] {
        &self.sent
    }

    /// Whether `frame` has a used byte.
    pub fn is_sent(&self, frame: FrameId) -> bool {
        self.sent.binary_search(&frame).is_ok()
    }

    /// What each part of the disk is.
    pub fn extents(&self) -> &Extents {
        &self.parts.extents
    }

    /// The extents of `frame`, with offsets on the raw disk.
    pub fn frame_extents(&self, frame: FrameId) -> impl Iterator<Item = Extent> + '_ {
        self.parts.extents.within(self.frame_range(frame))
    }

    /// Partition tables.
    pub fn tables(&self) -> &Tables {
        &self.parts.tables
    }

    /// The byte ranges of the disk that tables occupy: masked in the hashes, in rising order.
    pub fn masked(&self) -> &[Range<u64>] {
        &self.masked
    }

    /// Facts about the partitions.
    pub fn partitions(&self) -> &[Partition] {
        &self.parts.partitions
    }

    /// How firmware may start this disk.
    pub fn boot(&self) -> BootModes {
        self.partitions()
            .iter()
            .fold(BootModes::default(), |modes, p| modes.union(p.boot))
    }

    /// Smallest disk the image fits on, bytes.
    pub fn min_target_bytes(&self) -> u64 {
        self.parts.min_target_bytes
    }

    /// When the image was made, seconds since 1970 (UTC).
    pub fn created(&self) -> u64 {
        self.parts.created
    }

    /// A person's note.
    pub fn note(&self) -> &str {
        &self.parts.note
    }

    /// The image this one was made from.
    pub fn parent(&self) -> Option<ImageId> {
        self.parts.parent
    }
}

impl PartialEq for Manifest {
    fn eq(&self, other: &Manifest) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Manifest {}

/// How many frames a disk of `raw_bytes` has.
pub(crate) fn frames_of(raw_bytes: u64) -> u64 {
    raw_bytes.div_ceil(u64::from(FRAME_BYTES))
}

fn frame_range(frame: u32, raw_bytes: u64) -> Range<u64> {
    let start = u64::from(frame) * u64::from(FRAME_BYTES);
    start..(start + u64::from(FRAME_BYTES)).min(raw_bytes)
}

/// The frames with a used byte.
pub(crate) fn used_frames(extents: &Extents) -> Vec<FrameId> {
    let mut frames: Vec<FrameId> = Vec::new();
    for run in extents
        .iter()
        .filter(|run| run.kind == crate::extent::ExtentKind::Used)
    {
        let first = (run.offset / u64::from(FRAME_BYTES)) as u32;
        let last = ((run.end() - 1) / u64::from(FRAME_BYTES)) as u32;
        let first = frames.last().map_or(first, |seen| first.max(seen.0 + 1));
        frames.extend((first..=last).map(FrameId));
    }
    frames
}

fn zero_hash(length: u64) -> [u8; 32] {
    let zeros = [0u8; 4096];
    let mut hasher = blake3::Hasher::new();
    let mut left = length;
    while left > 0 {
        let piece = left.min(zeros.len() as u64);
        hasher.update(&zeros[..piece as usize]);
        left -= piece;
    }
    *hasher.finalize().as_bytes()
}

fn render(parts: &ManifestParts) -> Vec<u8> {
    let mut writer = Writer::default();
    writer
        .raw(&MAGIC)
        .u16(VERSION)
        .u32(FRAME_BYTES)
        .u32(parts.sector_bytes);
    writer
        .u64(parts.extents.raw_bytes())
        .u64(parts.min_target_bytes)
        .u64(parts.created);
    match parts.parent {
        None => writer.u8(0),
        Some(parent) => writer.u8(1).raw(&parent.0),
    };
    writer.text(&parts.note, NOTE_MAX);
    parts.extents.write(&mut writer);
    parts
        .stored_bytes
        .iter()
        .for_each(|&stored| _ = writer.u32(stored));
    parts.hashes.iter().for_each(|hash| _ = writer.raw(hash));
    table_codec::write(&parts.tables, &mut writer);
    partition::write_all(&parts.partitions, &mut writer);
    writer.finish()
}

fn read_parts(reader: &mut Reader<'_>) -> Result<ManifestParts, Malformed> {
    let frame_bytes = reader.u32("frame size")?;
    if frame_bytes != FRAME_BYTES {
        return Err(reader.refuse(
            4,
            format!("frames of {frame_bytes} bytes, only {FRAME_BYTES} is known"),
        ));
    }
    let sector_bytes = reader.u32("sector size")?;
    if !SECTOR_SIZES.contains(&sector_bytes) {
        return Err(reader.refuse(4, format!("sectors of {sector_bytes} bytes")));
    }
    let raw_bytes = reader.u64("raw size")?;
    let frames = frames_of(raw_bytes);
    if frames == 0 || frames > u64::from(FRAMES_MAX) {
        return Err(reader.refuse(8, format!("raw size of {raw_bytes} bytes")));
    }
    let min_target_bytes = reader.u64("minimum target size")?;
    if min_target_bytes > raw_bytes.next_multiple_of(u64::from(sector_bytes)) {
        return Err(reader.refuse(
            8,
            format!("minimum target of {min_target_bytes} bytes is above the raw size"),
        ));
    }
    let created = reader.u64("creation time")?;
    let parent = match reader.u8("parent")? {
        0 => None,
        1 => Some(ImageId(reader.array("parent")?)),
        other => return Err(reader.refuse(1, format!("parent flag {other}"))),
    };
    let note = reader.text(NOTE_MAX, "note")?;
    let extents = Extents::read(reader, raw_bytes)?;

    // Checked against the bytes at hand before anything of that size is allocated.
    let stored_bytes = reader.take(frames as usize * 4, "sizes of the stored frames")?;
    let stored_bytes: Vec<u32> = stored_bytes
        .chunks_exact(4)
        .map(|size| u32::from_le_bytes(size.try_into().expect("four bytes")))
        .collect();
    if let Some(frame) = stored_bytes
        .iter()
        .position(|size| !(1..=STORED_BYTES_MAX).contains(size))
    {
        let back = (stored_bytes.len() - frame) * 4;
        return Err(reader.refuse(
            back,
            format!("frame {frame} is stored in {} bytes", stored_bytes[frame]),
        ));
    }
    let hashes = reader.take(
        used_frames(&extents).len() * HASH_BYTES,
        "hashes of the frames",
    )?;
    let hashes = hashes
        .chunks_exact(HASH_BYTES)
        .map(|hash| hash.try_into().expect("as long as a hash"))
        .collect();
    Ok(ManifestParts {
        sector_bytes,
        created,
        min_target_bytes,
        parent,
        note,
        extents,
        stored_bytes,
        hashes,
        tables: table_codec::read(reader, sector_bytes)?,
        partitions: partition::read_all(reader, raw_bytes)?,
    })
}

#[cfg(test)]
pub(crate) mod tests;
