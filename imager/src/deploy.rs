//! An image becomes a disk.
//!
//! ```text
//! begin ──> survey ──> submit … try_outcome … ──> settle ──> commit
//!   │ refused: nothing      │   a wrong frame stays      │      │ tables written last
//!   ▼ was written           │   wanted: submit it again  │ wrong frames: back to submit
//!                           ▼
//!              a broken disk: every call fails, the disk does not boot
//! ```
//!
//! Nothing is written before the first frame has been checked, and no table before everything has been read back: a
//! power cut at any instant leaves a disk that does not boot, or is whole (see `hold`). When nothing differs, nothing
//! is written. A new deploy finds by survey what an interrupted one has brought.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use crate::deploy::blank::blanks;
use crate::deploy::check::check_fit;
use crate::deploy::compare::Comparison;
use crate::deploy::hold::Hold;
use crate::deploy::pipeline::{Pipeline, PipelineSetup};
use crate::deploy::surface::{Mask, Reading, Surface};
use crate::deploy::survey::Survey;
use crate::frame_set::FrameSet;
use crate::id::FrameId;
use crate::manifest::Manifest;
use crate::target::Target;

mod audit;
mod blank;
mod check;
mod compare;
mod error;
mod hold;
mod layout;
mod options;
mod parcel;
mod pipeline;
mod place;
mod readback;
mod state;
mod surface;
mod survey;
mod territory;

pub(crate) use audit::audit_with;
pub use audit::{Audit, AuditDepth, audit};
pub use error::DeployError;
pub use layout::LayoutError;
pub use options::{
    DeployEvent, DeployObserver, DeployOptions, DeployPhase, DeployReport, FreePolicy, VerifyPolicy,
};
pub use place::Place;
pub use state::FrameOutcome;

/// With [`VerifyPolicy::Sample`], one written frame in so many is read back.
const SAMPLE_STEP: usize = 16;
/// Of the frames that were read back before the last was written, one in so many is read again: a disk that claims to
/// be larger than it is begins anew at its start, and writes over what was right.
const AGAIN_STEP: usize = 16;
/// How often the kernel is asked to read the new partition table while it says that the disk is busy.
const REREAD_TRIES: u32 = 5;
/// The pause between two tries.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// An image on its way to a disk.
pub struct Deploy {
    // First, so that its threads end before the disk is closed.
    pipeline: Pipeline,
    surface: Arc<Surface>,
    options: DeployOptions,
    observer: DeployObserver,
    wanted: FrameSet,
    /// Written and not yet read back.
    unverified: FrameSet,
    /// Read back wrong once.
    suspect: FrameSet,
    outcomes: VecDeque<FrameOutcome>,
    own_frames: u64,
    kept_frames: u64,
    verified_frames: u64,
    final_bytes: u64,
}

impl Deploy {
    /// Checks that the image fits the disk, and finds out what the disk lacks. Writes nothing.
    ///
    /// # Errors
    /// When the disk is too small, has other sectors, was opened read-only, or cannot be read.
    pub fn begin(
        manifest: Arc<Manifest>,
        mut target: Target,
        options: DeployOptions,
        observer: DeployObserver,
    ) -> Result<Deploy, DeployError> {
        if target.is_read_only() {
            return Err(DeployError::ReadOnly {
                path: target.path().into(),
            });
        }
        let fitted = check_fit(&manifest, &mut target, &options)?;
        let surface = Surface::new(manifest, target, fitted.tables, fitted.territory);
        let surface = Arc::new(surface);
        let hold = Hold::new(&surface);
        let survey = Survey::take(&surface, &options, &observer, true, |frame, content| {
            hold.keep(&surface, frame, content)
        })?;
        let hold = hold.narrowed(&surface, survey.wanted.iter().chain(survey.blank.iter()));

        let mut unverified = FrameSet::empty(surface.manifest.frame_count() as usize);
        let again = hold.rewritten().into_iter().chain(survey.blank.iter());
        again.for_each(|frame| _ = unverified.insert(frame));
        let is_sent = |frame: &FrameId| surface.manifest.is_sent(*frame);
        let own_frames = surface.frames().filter(is_sent).count() as u64;
        let total_bytes = survey
            .wanted
            .iter()
            .map(|frame| surface.bytes_in_scope(frame) as u64)
            .sum();
        let pipeline = Pipeline::start(PipelineSetup {
            surface: Arc::clone(&surface),
            blank: blanks(&surface, &hold, &survey.blank, options.free),
            hold,
            differs: survey.differs(),
            unsure: survey.unsure,
            total_bytes,
            observer: Arc::clone(&observer),
            threads: options.thread_count(),
            reads_early: options.verify == VerifyPolicy::Full,
            free_as_zero: options.free == FreePolicy::Zero,
        })?;
        Ok(Deploy {
            pipeline,
            suspect: FrameSet::empty(surface.manifest.frame_count() as usize),
            surface,
            options,
            observer,
            own_frames,
            kept_frames: survey.kept.len() as u64,
            wanted: survey.wanted,
            unverified,
            outcomes: VecDeque::new(),
            verified_frames: 0,
            final_bytes: fitted.final_bytes,
        })
    }

    /// The frames that are still lacking, as far as [`Deploy::try_outcome`] has told.
    pub fn wanted(&self) -> &FrameSet {
        &self.wanted
    }

    /// The image that is being written.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.surface.manifest
    }

    /// Frames with used bytes that this deploy is about: of the image, those in scope.
    pub fn own_frames(&self) -> u64 {
        self.own_frames
    }

    /// Frames that were on the disk already.
    pub fn kept_frames(&self) -> u64 {
        self.kept_frames
    }

    /// Hands over frames as they are stored in the image, one after the other in `payload`. Frames that are not wanted
    /// are accepted unseen; of a payload that is not as long as its frames, none is.
    ///
    /// Blocks while the queue is full: see [`Deploy::room`].
    ///
    /// # Errors
    /// When the disk has failed, or the deploy is told to stop.
    pub fn submit(&mut self, frames: Vec<FrameId>, payload: Vec<u8>) -> Result<(), DeployError> {
        self.options.check_stop()?;
        let manifest = &self.surface.manifest;
        let mut jobs = Vec::with_capacity(frames.len());
        let mut end = 0;
        for frame in &frames {
            if frame.0 >= manifest.frame_count() {
                end = usize::MAX;
                break;
            }
            let start = end;
            end = start.saturating_add(manifest.stored_bytes(*frame) as usize);
            jobs.push((*frame, start..end));
        }
        let whole = end == payload.len();
        for frame in frames
            .iter()
            .filter(|frame| !whole || !self.wanted.contains(**frame))
        {
            self.pipeline.settle_at_once(FrameOutcome {
                frame: *frame,
                written: whole,
            });
        }
        jobs.retain(|(frame, _)| whole && self.wanted.contains(*frame));
        if jobs.is_empty() {
            return self.pipeline.failure().map_or(Ok(()), Err);
        }
        self.pipeline.submit(&jobs, payload)
    }

    /// What has become of a submitted frame; `None` when there is no news. A frame that was not written stays wanted.
    pub fn try_outcome(&mut self) -> Option<FrameOutcome> {
        if let Some(outcome) = self.outcomes.pop_front() {
            return Some(outcome);
        }
        let outcome = self.pipeline.try_outcome()?;
        self.note(outcome);
        Some(outcome)
    }

    /// Bytes that were submitted and are not on the disk yet.
    pub fn backlog_bytes(&self) -> u64 {
        self.pipeline.backlog_bytes()
    }

    /// Whether [`Deploy::submit`] would not block.
    pub fn room(&self) -> bool {
        self.pipeline.has_room()
    }

    /// The memory of a payload that was [submitted](Deploy::submit) and is done with, for the next.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        self.pipeline.reclaim()
    }

    /// Why the deploy has failed, if it has.
    pub fn failure(&self) -> Option<DeployError> {
        self.pipeline.failure()
    }

    /// Waits until all that was submitted is on the medium and reads back, past the page cache, what was not read back
    /// while more came (see `readback`). The frames that read back wrong are returned; they are wanted again.
    ///
    /// # Errors
    /// When the disk fails, the deploy is told to stop, or a frame reads back wrong for the second time.
    pub fn settle(&mut self) -> Result<FrameSet, DeployError> {
        let mut wrong = FrameSet::empty(self.surface.manifest.frame_count() as usize);
        let judged = self.pipeline.drain()?;
        while let Some(outcome) = self.pipeline.try_outcome() {
            self.note(outcome);
            self.outcomes.push_back(outcome);
        }
        if !self.pipeline.differs() {
            return Ok(wrong);
        }

        for (place, frame) in judged.right.iter().enumerate() {
            if !place.is_multiple_of(AGAIN_STEP) && self.unverified.remove(*frame) {
                self.verified_frames += 1;
            }
        }
        for frame in &judged.wrong {
            self.unverified.remove(*frame);
            self.warn_misread(*frame);
        }
        let step = match self.options.verify {
            VerifyPolicy::Full => 1,
            VerifyPolicy::Sample => SAMPLE_STEP,
        };
        let written = self.unread();
        let mut misread = self.misread(written.into_iter().step_by(step).collect())?;
        misread.extend(judged.wrong);
        self.unverified = FrameSet::empty(self.unverified.count());
        let (fetched, blank): (Vec<FrameId>, Vec<FrameId>) = misread
            .into_iter()
            .partition(|frame| self.surface.manifest.is_sent(*frame));
        self.blank_again(blank)?;
        for frame in fetched {
            if !self.suspect.insert(frame) {
                return Err(self.reads_back_wrong(frame));
            }
            // What was kept and rewritten has no source here but the image: it is wanted like any other.
            wrong.insert(frame);
            self.wanted.insert(frame);
        }
        if self.options.verify == VerifyPolicy::Full {
            self.pipeline.resume_reading();
        }
        Ok(wrong)
    }

    /// Writes the partition tables and the first MiB, LBA 0 and 1 last, each step flushed and read back; then the
    /// kernel is asked to read the new table.
    ///
    /// # Errors
    /// When frames are still wanted or not settled, or the disk fails.
    pub fn commit(self) -> Result<DeployReport, DeployError> {
        let differs = self.pipeline.differs();
        let unread = if differs { self.unread() } else { Vec::new() };
        let open: Vec<FrameId> = self.wanted.iter().chain(unread).collect();
        if let Some(first) = open.first() {
            return Err(DeployError::Unsettled {
                frames: open.len(),
                first: *first,
            });
        }
        let mut stale_table = None;
        if differs {
            let total_bytes = self.surface.target.bytes();
            let tell = |done_bytes| {
                (self.observer)(DeployEvent {
                    phase: DeployPhase::Commit,
                    done_bytes,
                    total_bytes,
                });
            };
            tell(0);
            self.pipeline.commit()?;
            stale_table = self.reread_table().err().map(|error| error.to_string());
            tell(total_bytes);
        }
        // A file may have been given whole sectors; it ends where the image ends.
        if self.surface.target.is_file() && self.final_bytes != self.surface.target.bytes() {
            self.surface.cut_file(self.final_bytes)?;
        }
        let counts = self.pipeline.counts();
        Ok(DeployReport {
            disk_bytes: self.surface.target.bytes(),
            kept_frames: self.kept_frames + counts.kept_frames,
            written_frames: counts.written_frames,
            rejected_frames: counts.rejected_frames,
            zeroed_bytes: counts.zeroed_bytes,
            verified_frames: self.verified_frames,
            direct: self.surface.target.device.is_direct(),
            changed: differs,
            stale_table,
        })
    }

    /// The frames of `frames` that the disk does not give back as they were written.
    fn misread(&mut self, mut frames: Vec<FrameId>) -> Result<Vec<FrameId>, DeployError> {
        let comparison = Comparison {
            surface: &self.surface,
            options: &self.options,
            observer: &self.observer,
            phase: DeployPhase::Verify,
            how: Reading {
                mask: Mask::Source,
                free_as_zero: self.options.free == FreePolicy::Zero,
                hold: Some(self.pipeline.hold()),
            },
        };
        let right = comparison.right(&frames, |_, _| {})?;
        self.verified_frames += right.len() as u64;
        frames.retain(|frame| !right.contains(*frame));
        frames.iter().for_each(|frame| self.warn_misread(*frame));
        Ok(frames)
    }

    /// What was written and not read back. What is withheld is read back when it is written, by the commit.
    fn unread(&self) -> Vec<FrameId> {
        let hold = self.pipeline.hold();
        self.unverified
            .iter()
            .filter(|frame| !hold.withholds(&self.surface, *frame))
            .collect()
    }

    fn warn_misread(&self, frame: FrameId) {
        let (disk, offset) = (self.surface.path(), self.surface.offset(frame));
        log::warn!(
            "disk={} frame={frame} offset={offset} state=misread",
            disk.display()
        );
    }

    /// Some disks accept the command to zero a range and do not obey: zeros are written then, whole frames of them.
    fn blank_again(&mut self, frames: Vec<FrameId>) -> Result<(), DeployError> {
        if frames.is_empty() {
            return Ok(());
        }
        let zeros = Surface::buffer();
        for frame in &frames {
            self.pipeline.hold().write(&self.surface, *frame, &zeros)?;
        }
        self.surface.flush()?;
        match self.misread(frames)?.first() {
            Some(frame) => Err(self.reads_back_wrong(*frame)),
            None => Ok(()),
        }
    }

    fn reads_back_wrong(&self, frame: FrameId) -> DeployError {
        DeployError::ReadBack {
            path: self.surface.path(),
            offset: self.surface.offset(frame),
        }
    }

    fn note(&mut self, outcome: FrameOutcome) {
        if outcome.written && self.wanted.remove(outcome.frame) {
            self.unverified.insert(outcome.frame);
        }
    }

    fn reread_table(&self) -> io::Result<()> {
        let mut tries = 1;
        loop {
            match self.surface.target.device.reread_table() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < REREAD_TRIES => {
                    tries += 1;
                    thread::sleep(REREAD_PAUSE);
                }
                done => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests;
