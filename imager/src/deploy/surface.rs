//! The disk as the image wants it: where each frame lies on *this* disk, and whether what is there is right.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use crate::deploy::error::DeployError;
use crate::deploy::hold::Hold;
use crate::deploy::territory::Territory;
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
    /// What may be written; what lies beyond it counts as zeros in every buffer here.
    pub(crate) territory: Territory,
    /// The end of the disk, or of what may be written, may lie within a frame. Its hash in the manifest says nothing
    /// about the part that counts: these are the hashes of such parts, known once their frames have been checked whole.
    part_hashes: Mutex<BTreeMap<FrameId, [u8; 32]>>,
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

/// How a frame on the disk is compared.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) mask: Mask,
    /// Free runs must read as zeros as well.
    pub(crate) free_as_zero: bool,
    /// What the disk does not hold yet.
    pub(crate) hold: Option<&'a Hold>,
}

impl Surface {
    pub(crate) fn new(
        manifest: Arc<Manifest>,
        target: Target,
        tables: FittedTables,
        territory: Territory,
    ) -> Self {
        Self {
            manifest,
            target,
            tables,
            territory,
            part_hashes: Mutex::default(),
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

    /// The parts of the frame that are on this disk and may be written, in bytes of the disk.
    pub(crate) fn parts(&self, frame: FrameId) -> impl Iterator<Item = Range<u64>> + '_ {
        self.territory.open.within(self.manifest.frame_range(frame))
    }

    /// How many bytes that is: fewer than the frame has when the disk ends within it or before, or a part of it stays.
    pub(crate) fn bytes_in_scope(&self, frame: FrameId) -> usize {
        self.parts(frame)
            .map(|part| part.end - part.start)
            .sum::<u64>() as usize
    }

    /// Every frame of which something is on this disk and may be written.
    pub(crate) fn frames(&self) -> impl Iterator<Item = FrameId> + '_ {
        (0..self.manifest.frame_count())
            .map(FrameId)
            .filter(|frame| self.parts(*frame).next().is_some())
    }

    /// Whether the manifest alone tells if the frame is right on this disk: what does not count is zeros in its hash.
    pub(crate) fn is_judged_by_hash(&self, frame: FrameId) -> bool {
        let range = self.manifest.frame_range(frame);
        let masked = |run: &Range<u64>| {
            let mut tables = self.manifest.masked().iter();
            tables.any(|table| table.start <= run.start && run.end <= table.end)
        };
        self.territory.open.gaps(range).all(|gap| {
            let mut runs = self.manifest.extents().within(gap);
            runs.all(|run| run.kind != ExtentKind::Used || masked(&(run.offset..run.end())))
        })
    }

    /// `end` rounded up to whole sectors.
    fn sector_up(&self, end: u64) -> u64 {
        end.next_multiple_of(u64::from(self.target.sector_bytes()))
    }

    /// Reads what the disk holds where the frame belongs; what is not in scope is zeros.
    fn read(&self, frame: FrameId, buffer: &mut AlignedBuffer) -> Result<(), DeployError> {
        let start = self.offset(frame);
        if self.bytes_in_scope(frame) != buffer.len() {
            buffer.fill(0);
        }
        for part in self.parts(frame) {
            let place = (part.start - start) as usize..(self.sector_up(part.end) - start) as usize;
            self.target
                .device
                .read_at(&mut buffer[place], part.start)
                .map_err(|source| self.read_error(part.start, source))?;
        }
        Ok(())
    }

    /// Whether the disk holds the frame as it should be, free runs as zeros where `free_as_zero`, and what `hold` has
    /// withheld in its place. What it holds is then in `buffer`, masked.
    pub(crate) fn reads_right(
        &self,
        frame: FrameId,
        buffer: &mut AlignedBuffer,
        how: Reading<'_>,
    ) -> Result<bool, DeployError> {
        if self.is_plainly_empty(frame) {
            return Ok(false);
        }
        self.read(frame, buffer)?;
        if let Some(hold) = how.hold {
            hold.overlay(self, frame, buffer);
        }
        if how.free_as_zero && !self.free_is_zero(frame, buffer) {
            return Ok(false);
        }
        Ok(self.is_right(frame, buffer, how.mask))
    }

    /// Whether the frame lies in a hole of a file and ought not to be zeros: that need not be read. A survey of a new
    /// file takes no time so.
    fn is_plainly_empty(&self, frame: FrameId) -> bool {
        let (offset, bytes) = (self.offset(frame), self.bytes_in_scope(frame));
        if bytes != FRAME_BYTES as usize || !self.target.device.is_hole(offset, bytes as u64) {
            return false;
        }
        let zeros = || *blake3::hash(&vec![0; FRAME_BYTES as usize]).as_bytes();
        self.manifest.hash(frame) != *self.zeros_hash.get_or_init(zeros)
    }

    /// Whether `buffer`, as read from the disk, is what the frame should be; masks it on the way.
    fn is_right(&self, frame: FrameId, buffer: &mut [u8], mask: Mask) -> bool {
        let raw = &mut buffer[..self.frame_bytes(frame)];
        mask_frame(&self.manifest, frame, raw);
        if mask == Mask::Fitted {
            self.tables.mask(self.offset(frame), raw);
        }
        if self.is_judged_by_hash(frame) {
            return self.manifest.hash(frame) == *blake3::hash(raw).as_bytes();
        }
        let known = self.part_hashes().get(&frame).copied();
        known.is_some_and(|hash| hash == *blake3::hash(raw).as_bytes())
    }

    /// Whether every free run of the frame reads as zeros in `buffer`.
    fn free_is_zero(&self, frame: FrameId, buffer: &[u8]) -> bool {
        let start = self.offset(frame);
        self.manifest
            .frame_extents(frame)
            .filter(|run| run.kind == ExtentKind::Free)
            .all(|run| {
                let place = (run.offset - start) as usize..(run.end() - start) as usize;
                let mut rest = buffer[place].to_vec();
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
        let bytes = self.frame_bytes(frame);
        let unpacked = unpacker.decompress_to_buffer(stored, &mut buffer[..bytes]);
        if !unpacked.is_ok_and(|found| found == bytes) {
            return false;
        }
        mask_frame(&self.manifest, frame, &mut buffer[..bytes]);
        // Without this check `a_wrong_frame_is_refused_and_the_disk_stays_as_it_was` fails.
        if *blake3::hash(&buffer[..bytes]).as_bytes() != self.manifest.hash(frame) {
            return false;
        }
        self.cut_to_scope(frame, &mut buffer[..bytes]);
        buffer[bytes..].fill(0);
        true
    }

    /// Learns from the raw bytes of a frame what the parts of it that are in scope should be, for [`Mask::Fitted`].
    pub(crate) fn learn(&self, frame: FrameId, raw: &mut [u8]) {
        mask_frame(&self.manifest, frame, raw);
        self.tables.mask(self.offset(frame), raw);
        self.cut_to_scope(frame, raw);
    }

    /// Clears what is not in scope; of a frame that its hash cannot judge, remembers that of the rest.
    fn cut_to_scope(&self, frame: FrameId, raw: &mut [u8]) {
        let range = self.manifest.frame_range(frame);
        for gap in self.territory.open.gaps(range.clone()) {
            raw[(gap.start - range.start) as usize..(gap.end - range.start) as usize].fill(0);
        }
        if !self.is_judged_by_hash(frame) {
            let hash = *blake3::hash(raw).as_bytes();
            self.part_hashes().insert(frame, hash);
        }
    }

    /// Writes a part of a frame that lies in `buffer`.
    pub(crate) fn write_part(
        &self,
        frame: FrameId,
        buffer: &AlignedBuffer,
        part: Range<u64>,
    ) -> Result<(), DeployError> {
        let start = self.offset(frame);
        let place = (part.start - start) as usize..(self.sector_up(part.end) - start) as usize;
        self.write_at(&buffer[place], part.start)
    }

    /// Writes whole sectors, from a place in an aligned buffer at which a sector begins.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> Result<(), DeployError> {
        self.target
            .device
            .write_at(data, offset)
            .map_err(|source| self.write_error(offset, source))
    }

    /// Writes zeros, whatever commands the disk has for that.
    pub(crate) fn write_zeros(&self, range: Range<u64>) -> Result<(), DeployError> {
        self.target
            .device
            .write_zeros(range.start, range.end - range.start)
            .map_err(|source| self.write_error(range.start, source))
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
            .read_at(&mut found, offset)
            .map_err(|source| self.read_error(offset, source))?;
        Ok(found[..] == *data)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.target.path().into()
    }

    fn frame_bytes(&self, frame: FrameId) -> usize {
        let range = self.manifest.frame_range(frame);
        (range.end - range.start) as usize
    }

    fn part_hashes(&self) -> MutexGuard<'_, BTreeMap<FrameId, [u8; 32]>> {
        self.part_hashes
            .lock()
            .expect("nothing panics while it holds the lock")
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
