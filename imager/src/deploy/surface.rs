//! The disk as the image wants it: where each frame lies on *this* disk, and whether what is there is right.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::deploy::error::DeployError;
use crate::device::AlignedBuffer;
use crate::extent::ExtentKind;
use crate::fit::FittedTables;
use crate::id::FrameId;
use crate::manifest::{FRAME_BYTES, Manifest};
use crate::mask::mask_frame;
use crate::target::Target;

/// An image and the disk it goes to.
pub(crate) struct Surface {
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) target: Target,
    pub(crate) tables: FittedTables,
    /// On a disk smaller than the image one frame may be cut by the disk's end. Its hash in the manifest says nothing
    /// about the part that is on the disk: this is the hash of that part, known once the frame has been checked whole.
    cut_hash: OnceLock<[u8; 32]>,
    /// The hash of a whole frame of zeros.
    zeros_hash: OnceLock<[u8; 32]>,
}

/// Which sectors do not count when a frame on the disk is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    /// Those of the source's tables: before the commit.
    Source,
    /// Those of the tables fitted to this disk as well: they may be there already.
    Fitted,
}

impl Surface {
    pub(crate) fn new(manifest: Arc<Manifest>, target: Target, tables: FittedTables) -> Self {
        Self {
            manifest,
            target,
            tables,
            cut_hash: OnceLock::new(),
            zeros_hash: OnceLock::new(),
        }
    }

    /// A buffer for one frame.
    pub(crate) fn buffer() -> AlignedBuffer {
        AlignedBuffer::new(FRAME_BYTES as usize)
    }

    /// Where the frame begins on the disk.
    pub(crate) fn offset(&self, frame: FrameId) -> u64 {
        self.manifest.frame_range(frame).start
    }

    /// How many bytes of the frame are on this disk: fewer than it has when the disk ends within it or before.
    pub(crate) fn bytes_on_disk(&self, frame: FrameId) -> usize {
        let range = self.manifest.frame_range(frame);
        (range
            .end
            .min(self.target.bytes())
            .saturating_sub(range.start)) as usize
    }

    /// Every frame of which something is on this disk.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameId> + '_ {
        let on_disk = self.target.bytes().div_ceil(u64::from(FRAME_BYTES));
        (0..self
            .manifest
            .frame_count()
            .min(u32::try_from(on_disk).unwrap_or(u32::MAX)))
            .map(FrameId)
    }

    /// Whole sectors that hold `bytes`.
    pub(crate) fn padded(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.target.sector_bytes() as usize)
    }

    /// Reads what the disk holds where the frame belongs.
    pub(crate) fn read(
        &self,
        frame: FrameId,
        buffer: &mut AlignedBuffer,
    ) -> Result<(), DeployError> {
        let offset = self.offset(frame);
        let bytes = self.padded(self.bytes_on_disk(frame));
        self.target
            .device
            .read_at(buffer, bytes, offset)
            .map_err(|source| self.read_error(offset, source))
    }

    /// Whether the disk holds the frame as it should be, free runs as zeros where `free_as_zero`. What it holds is
    /// then in `buffer`, masked.
    pub(crate) fn reads_right(
        &self,
        frame: FrameId,
        buffer: &mut AlignedBuffer,
        mask: Mask,
        free_as_zero: bool,
    ) -> Result<bool, DeployError> {
        if self.is_plainly_empty(frame) {
            return Ok(false);
        }
        self.read(frame, buffer)?;
        if free_as_zero && !self.free_is_zero(frame, buffer) {
            return Ok(false);
        }
        Ok(self.is_right(frame, buffer, mask))
    }

    /// Whether the frame lies in a hole of a file and ought not to be zeros: that need not be read. A survey of a new
    /// file takes no time so.
    fn is_plainly_empty(&self, frame: FrameId) -> bool {
        let (offset, bytes) = (self.offset(frame), self.bytes_on_disk(frame));
        if bytes != FRAME_BYTES as usize || !self.target.device.is_hole(offset, bytes as u64) {
            return false;
        }
        let zeros = || *blake3::hash(&vec![0; FRAME_BYTES as usize]).as_bytes();
        self.manifest.hash(frame) != *self.zeros_hash.get_or_init(zeros)
    }

    /// Whether `buffer`, as read from the disk, is what the frame should be; masks it on the way.
    pub(crate) fn is_right(&self, frame: FrameId, buffer: &mut [u8], mask: Mask) -> bool {
        let raw = &mut buffer[..self.bytes_on_disk(frame)];
        mask_frame(&self.manifest, frame, raw);
        if mask == Mask::Fitted {
            self.tables.mask(self.offset(frame), raw);
        }
        if raw.len() as u64 == self.frame_bytes(frame) {
            return self.manifest.hash(frame) == *blake3::hash(raw).as_bytes();
        }
        match self.cut_hash.get() {
            Some(hash) => hash == blake3::hash(raw).as_bytes(),
            None => !self.manifest.is_sent(frame) && raw.iter().all(|byte| *byte == 0),
        }
    }

    /// Whether every free run of the frame reads as zeros in `buffer`.
    pub(crate) fn free_is_zero(&self, frame: FrameId, buffer: &[u8]) -> bool {
        let start = self.offset(frame);
        let on_disk = self.bytes_on_disk(frame);
        self.manifest
            .frame_extents(frame)
            .filter(|run| run.kind == ExtentKind::Free)
            .all(|run| {
                let from = ((run.offset - start) as usize).min(on_disk);
                let to = ((run.end() - start) as usize).min(on_disk);
                let mut rest = buffer[from..to].to_vec();
                self.tables.mask(run.offset, &mut rest);
                rest.iter().all(|byte| *byte == 0)
            })
    }

    /// Unpacks a frame as it is stored into `buffer` and checks it: true when it is what the manifest says. Then the
    /// buffer holds what belongs on the disk, padded with zeros to whole sectors.
    pub(crate) fn unpack(
        &self,
        frame: FrameId,
        stored: &[u8],
        unpacker: &mut zstd::bulk::Decompressor<'_>,
        buffer: &mut AlignedBuffer,
    ) -> bool {
        let bytes = self.frame_bytes(frame) as usize;
        let unpacked = unpacker.decompress_to_buffer(stored, &mut buffer[..bytes]);
        if !unpacked.is_ok_and(|found| found == bytes) {
            return false;
        }
        mask_frame(&self.manifest, frame, &mut buffer[..bytes]);
        // Without this check `a_wrong_frame_is_refused_and_the_disk_stays_as_it_was` fails.
        if *blake3::hash(&buffer[..bytes]).as_bytes() != self.manifest.hash(frame) {
            return false;
        }
        let on_disk = self.bytes_on_disk(frame);
        if on_disk < bytes {
            self.cut_hash
                .get_or_init(|| *blake3::hash(&buffer[..on_disk]).as_bytes());
        }
        let end = self.padded(on_disk);
        buffer[on_disk..end].fill(0);
        true
    }

    /// Writes a frame that [`Surface::unpack`] has put into `buffer`.
    pub(crate) fn write(&self, frame: FrameId, buffer: &AlignedBuffer) -> Result<(), DeployError> {
        let bytes = self.padded(self.bytes_on_disk(frame));
        self.write_at(buffer, bytes, self.offset(frame))
    }

    pub(crate) fn write_at(
        &self,
        data: &AlignedBuffer,
        bytes: usize,
        offset: u64,
    ) -> Result<(), DeployError> {
        self.target
            .device
            .write_at(data, bytes, offset)
            .map_err(|source| self.write_error(offset, source))
    }

    pub(crate) fn zero(&self, offset: u64, bytes: u64) -> Result<(), DeployError> {
        self.target
            .device
            .zero(offset, bytes)
            .map_err(|source| self.write_error(offset, source))
    }

    pub(crate) fn flush(&self) -> Result<(), DeployError> {
        self.target
            .device
            .flush()
            .map_err(|source| DeployError::Flush {
                path: self.path(),
                cause: Arc::new(source),
            })
    }

    /// Whether the fitted tables are on the disk already.
    pub(crate) fn tables_are_right(&self) -> Result<bool, DeployError> {
        for run in &self.tables.runs {
            if !self.holds(run.offset, &run.data)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the disk holds `data` (whole sectors) at `offset`.
    pub(crate) fn holds(&self, offset: u64, data: &[u8]) -> Result<bool, DeployError> {
        let mut found = AlignedBuffer::new(data.len());
        self.target
            .device
            .read_at(&mut found, data.len(), offset)
            .map_err(|source| self.read_error(offset, source))?;
        Ok(found[..] == *data)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.target.path().into()
    }

    fn frame_bytes(&self, frame: FrameId) -> u64 {
        let range = self.manifest.frame_range(frame);
        range.end - range.start
    }

    fn read_error(&self, offset: u64, source: std::io::Error) -> DeployError {
        DeployError::Read {
            path: self.path(),
            offset,
            cause: Arc::new(source),
        }
    }

    pub(crate) fn write_error(&self, offset: u64, source: std::io::Error) -> DeployError {
        DeployError::Write {
            path: self.path(),
            offset,
            cause: Arc::new(source),
        }
    }
}
