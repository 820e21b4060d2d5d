//! What is held back so that a half-written disk never boots, and the writes at either end of a deploy.
//!
//! ```text
//!  disk:   | LBA 0,1 | rest of the first MiB | ................. | last MiB |
//!  clear:      1               2                                     3         each followed by a flush
//!  data:                                       4 4 4 4 4 4 4 4 4 4 4 4 4 4     flush, read-back
//!  commit:     7               5                                     6         each followed by a flush
//! ```
//!
//! The last MiB is cleared because firmware restores a bad primary table from the backup there: an old backup could
//! bring a half-written disk to life. A power cut before 1 leaves the former disk, between 1 and 6 a disk without a
//! table or boot sector, after 7 the image. Once the backup table is there (6) all but LBA 0 and 1 is: firmware that
//! restores the table from it starts the whole image (`docs/decisions/0003-commit-order.md`).
//!
//! When single partitions are written, the table stays and each partition is held back on its own: see `parcel`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use crate::deploy::error::DeployError;
use crate::deploy::parcel::Parcel;
use crate::deploy::surface::Surface;
use crate::device::AlignedBuffer;
use crate::id::FrameId;
use crate::manifest::FRAME_BYTES;
use crate::ranges::Ranges;

/// What is cleared at the start and at the end of the disk, in bytes. The first frame is exactly as long.
pub(crate) const EDGE_BYTES: u64 = 1 << 20;

const _: () = assert!(EDGE_BYTES == FRAME_BYTES as u64);

/// What a deploy keeps in memory until the commit, and in which order it clears and commits.
#[derive(Default)]
pub(crate) struct Hold {
    /// Cleared before anything else is written, step by step.
    clear: Vec<Ranges>,
    /// What is cleared and written at the commit only.
    withheld: Ranges,
    /// What the commit writes, step by step: withheld, or tables.
    commit: Vec<Ranges>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// What is withheld as it shall be, tables aside, by where it begins; a range that is not there is zeros.
    withheld: BTreeMap<u64, AlignedBuffer>,
    /// Right frames that are cleared but not withheld: to be written again just after the clearing.
    rewrite: BTreeMap<FrameId, AlignedBuffer>,
}

impl Hold {
    /// The hold of a deploy that may write all that is its own.
    pub(crate) fn new(surface: &Surface) -> Hold {
        if surface.territory.is_whole() {
            Hold::of_disk(surface)
        } else {
            Hold::of_parcels(surface, surface.territory.parcels.iter())
        }
    }

    fn of_disk(surface: &Surface) -> Hold {
        let sector = u64::from(surface.target.sector_bytes());
        let disk = surface.target.bytes() / sector * sector;
        // LBA 0 and 1: boot sector and primary table header.
        let boot = (2 * sector).min(disk);
        let first = EDGE_BYTES.min(disk);
        let last = disk.saturating_sub(EDGE_BYTES).max(first);
        let tables = surface.tables.runs.iter();
        let tables = tables.map(|run| run.offset..run.offset + run.data.len() as u64);
        Hold {
            clear: [0..boot, boot..first, last..disk].map(Ranges::one).into(),
            withheld: Ranges::one(0..first),
            commit: vec![
                Ranges::one(boot..first),
                Ranges::of(tables).minus(&Ranges::one(0..first)),
                Ranges::one(0..boot),
            ],
            kept: Mutex::default(),
        }
    }

    fn of_parcels<'a>(
        surface: &Surface,
        parcels: impl Iterator<Item = &'a Parcel> + Clone,
    ) -> Hold {
        let union = |of: fn(&Parcel) -> Ranges| {
            let each = parcels.clone().map(of).collect::<Vec<_>>();
            Ranges::of(each.iter().flat_map(Ranges::iter))
        };
        let (guards, crowns) = (union(Parcel::guards), union(Parcel::crown));
        let any_crown = parcels.clone().map(Parcel::any_crown).collect::<Vec<_>>();
        let any_crown: Vec<Ranges> = (0..any_crown.first().map_or(0, Vec::len))
            .map(|step| Ranges::of(any_crown.iter().flat_map(|steps| steps[step].iter())))
            .collect();
        let all = Ranges::of(any_crown.iter().flat_map(Ranges::iter));
        let lba0 = surface.territory.dead_lba0.as_ref();
        let lba0 = Ranges::of(lba0.map(|sector| 0..sector.len() as u64));
        Hold {
            clear: [lba0.clone()]
                .into_iter()
                .chain(any_crown)
                .chain([guards.minus(&all)])
                .collect(),
            commit: vec![guards.minus(&crowns), crowns, lba0],
            withheld: guards,
            kept: Mutex::default(),
        }
    }

    /// The same for a deploy that finds everything right but `frames`: what is not touched is not cleared.
    pub(crate) fn narrowed(self, surface: &Surface, frames: impl Iterator<Item = FrameId>) -> Hold {
        if surface.territory.is_whole() {
            return self;
        }
        let parts = Ranges::of(frames.flat_map(|frame| surface.parts(frame)));
        let parcels = surface.territory.parcels.iter();
        let narrow = Hold::of_parcels(
            surface,
            parcels.filter(|parcel| parts.touch(parcel.range.clone())),
        );
        for range in narrow.withheld.iter() {
            if let Some(content) = self.content(range.clone()) {
                narrow.kept().withheld.insert(range.start, content);
            }
        }
        narrow
    }

    /// Whether all of the frame is written at the commit only.
    pub(crate) fn withholds(&self, surface: &Surface, frame: FrameId) -> bool {
        surface.parts(frame).all(|part| self.withheld.hold(part))
    }

    /// Keeps what of a frame, in `buffer` as it shall be on the disk, clearing would hit.
    pub(crate) fn keep(&self, surface: &Surface, frame: FrameId, buffer: &AlignedBuffer) {
        self.put(surface, frame, buffer);
        let cleared = |part: &Range<u64>| self.clear.iter().any(|step| step.touch(part.clone()));
        if surface
            .parts(frame)
            .flat_map(|part| self.beside_withheld(part))
            .any(|part| cleared(&part))
        {
            let copy = AlignedBuffer::padded(buffer, surface.target.sector_bytes());
            self.kept().rewrite.insert(frame, copy);
        }
    }

    /// Writes what of a frame is not withheld, and keeps the rest.
    ///
    /// # Errors
    /// When a write fails.
    pub(crate) fn write(
        &self,
        surface: &Surface,
        frame: FrameId,
        buffer: &AlignedBuffer,
    ) -> Result<(), DeployError> {
        self.put(surface, frame, buffer);
        for part in surface
            .parts(frame)
            .flat_map(|part| self.beside_withheld(part))
        {
            surface.write_part(frame, buffer, part)?;
        }
        Ok(())
    }

    /// Puts what is withheld into `buffer`, which holds what the disk has where the frame belongs.
    pub(crate) fn overlay(&self, surface: &Surface, frame: FrameId, buffer: &mut AlignedBuffer) {
        let start = surface.offset(frame);
        for range in surface
            .parts(frame)
            .flat_map(|part| self.withheld.within(part))
        {
            let to = (range.start - start) as usize..(range.end - start) as usize;
            match self.content(range) {
                Some(content) => buffer[to.clone()].copy_from_slice(&content[..to.len()]),
                None => buffer[to].fill(0),
            }
        }
    }

    /// The frames that are written again after the clearing.
    pub(crate) fn rewritten(&self) -> Vec<FrameId> {
        self.kept().rewrite.keys().copied().collect()
    }

    /// Clears what could boot or be mounted, and writes again what was right of it and is not withheld.
    ///
    /// # Errors
    /// When a write or a flush fails.
    pub(crate) fn clear(&self, surface: &Surface) -> Result<(), DeployError> {
        for step in self.clear.iter().filter(|step| !step.is_empty()) {
            for range in step.iter() {
                match &surface.territory.dead_lba0 {
                    Some(dead) if range.start == 0 => {
                        let dead = AlignedBuffer::padded(dead, surface.target.sector_bytes());
                        surface.write_at(&dead, 0)?;
                    }
                    _ => surface.write_zeros(range)?,
                }
            }
            // Without it a disk may boot half-written: `every_power_cut_leaves_a_whole_or_a_dead_disk`.
            surface.flush()?;
        }
        let rewrite = std::mem::take(&mut self.kept().rewrite);
        for (frame, content) in rewrite {
            self.write(surface, frame, &content)?;
        }
        Ok(())
    }

    /// Writes what is withheld and the tables, and reads all of it back.
    ///
    /// # Errors
    /// When a write, a flush or a read fails, or the disk reads back something else.
    pub(crate) fn commit(&self, surface: &Surface) -> Result<(), DeployError> {
        for step in self.commit.iter().filter(|step| !step.is_empty()) {
            for range in step.iter().flat_map(pieces) {
                surface.write_at(&self.committed(surface, &range), range.start)?;
            }
            surface.flush()?;
            for range in step.iter().flat_map(pieces) {
                if !surface.holds(range.start, &self.committed(surface, &range))? {
                    return Err(DeployError::ReadBack {
                        path: surface.path(),
                        offset: range.start,
                    });
                }
            }
        }
        Ok(())
    }

    /// What the disk shall hold in a range that the commit writes.
    fn committed(&self, surface: &Surface, range: &Range<u64>) -> AlignedBuffer {
        let zeros = || AlignedBuffer::new((range.end - range.start) as usize);
        let mut data = self.content(range.clone()).unwrap_or_else(zeros);
        surface.tables.overlay(range.start, &mut data);
        data
    }

    /// Keeps what of a frame is withheld.
    fn put(&self, surface: &Surface, frame: FrameId, buffer: &AlignedBuffer) {
        let start = surface.offset(frame);
        for part in surface
            .parts(frame)
            .flat_map(|part| self.withheld.within(part))
        {
            let whole = self.withheld_around(&part);
            let mut kept = self.kept();
            let content = kept
                .withheld
                .entry(whole.start)
                .or_insert_with(|| AlignedBuffer::new((whole.end - whole.start) as usize));
            let from = (part.start - start) as usize..(part.end - start) as usize;
            let to = (part.start - whole.start) as usize;
            content[to..to + from.len()].copy_from_slice(&buffer[from]);
        }
    }

    /// What is known of a range that is withheld.
    fn content(&self, range: Range<u64>) -> Option<AlignedBuffer> {
        let kept = self.kept();
        let (start, content) = kept.withheld.range(..=range.start).next_back()?;
        let from = (range.start - start) as usize;
        let found = content.get(from..from + (range.end - range.start) as usize)?;
        let mut copy = AlignedBuffer::new(found.len());
        copy.copy_from_slice(found);
        Some(copy)
    }

    /// The withheld range that holds `part`, which is withheld.
    fn withheld_around(&self, part: &Range<u64>) -> Range<u64> {
        let whole = self.withheld.around(part.start);
        whole.expect("what is within the withheld ranges is in one of them")
    }

    /// What of `part` is written at once.
    pub(crate) fn beside_withheld(
        &self,
        part: Range<u64>,
    ) -> impl Iterator<Item = Range<u64>> + '_ {
        self.withheld.gaps(part)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept
            .lock()
            .expect("nothing panics while it holds the lock")
    }
}

/// What is written and read back at once: nowhere is it more than a frame.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let Range { start, end } = range;
    let piece = move |from: u64| from..end.min(from + EDGE_BYTES);
    (start..end).step_by(EDGE_BYTES as usize).map(piece)
}
