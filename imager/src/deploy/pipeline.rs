//! Threads that unpack, check and write frames from a bounded queue, and zero what must read as zeros. When nothing
//! is to be written, they read back what was (see `readback`).
//!
//! Memory: at most [`QUEUE_BYTES`] and one payload queued, [`SPENT_MAX`] payloads that nobody has fetched again, and
//! one frame for each thread.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use crate::deploy::blank::{Blank, Blanking};
use crate::deploy::error::DeployError;
use crate::deploy::hold::Hold;
use crate::deploy::options::{DeployEvent, DeployObserver, DeployPhase};
use crate::deploy::readback::{Chore, Judged, ReadBack};
use crate::deploy::state::{Counts, Fate, FrameOutcome, Job, State};
use crate::deploy::surface::{Mask, Reading, Surface};
use crate::device::AlignedBuffer;
use crate::frame_set::FrameSet;
use crate::id::FrameId;

/// Stored bytes queued before [`Pipeline::submit`] blocks.
pub(crate) const QUEUE_BYTES: u64 = 16 << 20;
/// Payloads done with that wait to be used again.
const SPENT_MAX: usize = 4;

struct Shared {
    surface: Arc<Surface>,
    hold: Hold,
    unsure: FrameSet,
    differs: bool,
    observer: DeployObserver,
    total_bytes: u64,
    free_as_zero: bool,
    state: Mutex<State>,
    /// Something to do, or time to stop.
    work: Condvar,
    /// Something was done: there is room, or nothing is left.
    done: Condvar,
    /// Held by whoever clears, so that no other thread writes before that.
    clearing: Mutex<()>,
}

/// The queue and its threads.
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a pipeline starts with.
pub(crate) struct PipelineSetup {
    pub(crate) surface: Arc<Surface>,
    pub(crate) hold: Hold,
    /// Wanted frames that may be right.
    pub(crate) unsure: FrameSet,
    /// Whether the disk is to be written whatever else comes.
    pub(crate) differs: bool,
    /// What is to be blank and is not.
    pub(crate) blank: Vec<Blank>,
    /// Raw bytes of all wanted frames.
    pub(crate) total_bytes: u64,
    pub(crate) observer: DeployObserver,
    pub(crate) threads: usize,
    /// Whether frames are read back while others arrive.
    pub(crate) reads_early: bool,
    /// Free runs must read as zeros as well.
    pub(crate) free_as_zero: bool,
}

impl Pipeline {
    pub(crate) fn start(setup: PipelineSetup) -> Result<Pipeline, DeployError> {
        let mut read_back = ReadBack::default();
        if !setup.reads_early {
            read_back.pause();
        }
        let shared = Arc::new(Shared {
            surface: setup.surface,
            hold: setup.hold,
            unsure: setup.unsure,
            differs: setup.differs,
            observer: setup.observer,
            total_bytes: setup.total_bytes,
            free_as_zero: setup.free_as_zero,
            state: Mutex::new(State {
                blank: setup.blank.into(),
                read_back,
                ..State::default()
            }),
            work: Condvar::new(),
            done: Condvar::new(),
            clearing: Mutex::new(()),
        });
        let mut pipeline = Pipeline {
            shared,
            threads: Vec::with_capacity(setup.threads),
        };
        for _ in 0..setup.threads {
            let thread = pipeline
                .start_thread()
                .map_err(|cause| DeployError::Threads {
                    cause: Arc::new(cause),
                })?;
            pipeline.threads.push(thread);
        }
        Ok(pipeline)
    }

    fn start_thread(&self) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let unpacker = zstd::bulk::Decompressor::new()?;
        thread::Builder::new()
            .name("writer".into())
            .spawn(move || shared.run(unpacker))
    }

    /// Queues frames whose stored bytes follow each other in `payload`. Blocks while the queue is full.
    pub(crate) fn submit(
        &self,
        frames: &[(FrameId, Range<usize>)],
        payload: Vec<u8>,
    ) -> Result<(), DeployError> {
        let payload = Arc::new(payload);
        let mut state = self.shared.state();
        while state.queued_bytes >= QUEUE_BYTES && state.failure.is_none() {
            state = self
                .shared
                .done
                .wait(state)
                .expect("no thread panics while it holds the lock");
        }
        state.check()?;
        for (frame, stored) in frames {
            state.queued_bytes += stored.len() as u64;
            let payload = Arc::clone(&payload);
            state.queue.push_back(Job {
                frame: *frame,
                payload,
                stored: stored.clone(),
            });
        }
        self.shared.work.notify_all();
        Ok(())
    }

    /// Reports a frame that needed no work, or was not worth any.
    pub(crate) fn settle_at_once(&self, outcome: FrameOutcome) {
        self.shared.state().outcomes.push_back(outcome);
    }

    pub(crate) fn try_outcome(&self) -> Option<FrameOutcome> {
        self.shared.state().outcomes.pop_front()
    }

    /// A payload whose frames are all done.
    pub(crate) fn reclaim(&self) -> Option<Vec<u8>> {
        self.shared.state().spent.pop()
    }

    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.shared.state().queued_bytes
    }

    pub(crate) fn has_room(&self) -> bool {
        let state = self.shared.state();
        state.queued_bytes < QUEUE_BYTES || state.failure.is_some()
    }

    pub(crate) fn failure(&self) -> Option<DeployError> {
        self.shared.state().failure.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// Whether the disk is not as the image wants it, as far as is known: if not, nothing was written.
    pub(crate) fn differs(&self) -> bool {
        self.shared.differs || self.shared.state().cleared
    }

    /// What is not on the disk yet.
    pub(crate) fn hold(&self) -> &Hold {
        &self.shared.hold
    }

    /// Waits until everything queued is written, everything blank is zeroed, and the disk has flushed its cache. Gives
    /// what was read back before that; no more is until [`Pipeline::resume_reading`].
    pub(crate) fn drain(&self) -> Result<Judged, DeployError> {
        // A disk that differs in its tables only is cleared too: from here on it is being written.
        if self.shared.differs {
            self.shared.ensure_cleared()?;
        }
        let mut state = self.shared.state();
        state.read_back.pause();
        self.shared.work.notify_all();
        while !state.is_idle() && state.failure.is_none() {
            state = self
                .shared
                .done
                .wait(state)
                .expect("no thread panics while it holds the lock");
        }
        state.check()?;
        let judged = state.read_back.take();
        let written = state.cleared;
        drop(state);
        if written {
            self.shared.surface.flush()?;
        }
        Ok(judged)
    }

    /// Frames that were read back early so far.
    #[cfg(test)]
    pub(crate) fn judged_frames(&self) -> usize {
        self.shared.state().read_back.judged_frames()
    }

    /// What is written from now on is read back early again.
    pub(crate) fn resume_reading(&self) {
        self.shared.state().read_back.resume();
    }

    /// Writes the tables: see [`Hold::commit`].
    pub(crate) fn commit(&self) -> Result<(), DeployError> {
        self.shared.hold.commit(&self.shared.surface)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a writer thread panicked");
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no thread panics while it holds the lock")
    }

    fn clearing(&self) -> MutexGuard<'_, ()> {
        self.clearing
            .lock()
            .expect("no thread panics while it clears")
    }

    /// What each thread does until it is told to stop, or the disk fails.
    fn run(&self, mut unpacker: zstd::bulk::Decompressor<'_>) {
        let mut buffer = Surface::buffer();
        let mut state = self.state();
        while !state.stop && state.failure.is_none() {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                let written = self.write(&job, &mut unpacker, &mut buffer);
                state = self.state();
                state.running -= 1;
                state.queued_bytes -= job.stored.len() as u64;
                let progress = self.account(&mut state, job.frame, written);
                if let Some(payload) = Arc::into_inner(job.payload)
                    && state.spent.len() < SPENT_MAX
                {
                    state.spent.push(payload);
                }
                self.done.notify_all();
                if let Some(event) = progress {
                    drop(state);
                    (self.observer)(event);
                    state = self.state();
                }
            } else if let Some(blank) = state.next_blank() {
                state.blanking = true;
                drop(state);
                let blanked = self.blank(&blank);
                state = self.state();
                state.blanking = false;
                match blanked {
                    Ok(bytes) => state.counts.zeroed_bytes += bytes,
                    Err(error) => _ = state.failure.get_or_insert(error),
                }
                self.done.notify_all();
                // Whoever sleeps may take the next piece.
                self.work.notify_one();
            } else if let Some(chore) = state.read_back.next() {
                drop(state);
                let read_back = self.read_back(chore, &mut buffer);
                state = self.state();
                if let Err(error) = read_back {
                    state.failure.get_or_insert(error);
                }
                self.done.notify_all();
            } else {
                state = self
                    .work
                    .wait(state)
                    .expect("no thread panics while it holds the lock");
            }
        }
        // The others and whoever waits must see the failure.
        drop(state);
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Unpacks, checks and writes one frame. When its content is wrong, nothing is written.
    fn write(
        &self,
        job: &Job,
        unpacker: &mut zstd::bulk::Decompressor<'_>,
        buffer: &mut AlignedBuffer,
    ) -> Result<Fate, DeployError> {
        let stored = &job.payload[job.stored.clone()];
        if !self.surface.unpack(job.frame, stored, unpacker, buffer) {
            return Ok(Fate::Rejected);
        }
        if self.unsure.contains(job.frame) && self.is_there(job.frame, buffer)? {
            return Ok(Fate::Kept);
        }
        self.ensure_cleared()?;
        self.hold.write(&self.surface, job.frame, buffer)?;
        Ok(Fate::Written)
    }

    /// Whether the disk has the frame, which is in `buffer`, while nothing has been cleared.
    fn is_there(&self, frame: FrameId, buffer: &AlignedBuffer) -> Result<bool, DeployError> {
        // Another thread may be about to clear: what is found right by then must be in the hold.
        let _clearing = self.clearing();
        if self.state().cleared {
            return Ok(false);
        }
        let how = Reading {
            mask: Mask::Fitted,
            free_as_zero: self.free_as_zero,
            hold: None,
        };
        let there = self
            .surface
            .reads_right(frame, &mut Surface::buffer(), how)?;
        if there {
            self.hold.keep(&self.surface, frame, buffer);
        }
        Ok(there)
    }

    fn account(
        &self,
        state: &mut State,
        frame: FrameId,
        fate: Result<Fate, DeployError>,
    ) -> Option<DeployEvent> {
        match fate {
            Ok(fate @ (Fate::Written | Fate::Kept)) => {
                if fate == Fate::Kept {
                    state.counts.kept_frames += 1;
                } else {
                    state.counts.written_frames += 1;
                    // What is withheld is read back when it is written, by the commit.
                    if !self.hold.withholds(&self.surface, frame) {
                        state.read_back.written(frame);
                    }
                }
                state.counts.done_bytes += self.surface.bytes_in_scope(frame) as u64;
                state.outcomes.push_back(FrameOutcome {
                    frame,
                    written: true,
                });
                return Some(DeployEvent {
                    phase: DeployPhase::Write,
                    done_bytes: state.counts.done_bytes.min(self.total_bytes),
                    total_bytes: self.total_bytes,
                });
            }
            Ok(Fate::Rejected) => {
                state.counts.rejected_frames += 1;
                state.outcomes.push_back(FrameOutcome {
                    frame,
                    written: false,
                });
            }
            Err(error) => _ = state.failure.get_or_insert(error),
        }
        None
    }

    fn read_back(&self, chore: Chore, buffer: &mut AlignedBuffer) -> Result<(), DeployError> {
        match chore {
            Chore::Flush(frames) => {
                self.surface.flush()?;
                self.state().read_back.flushed(frames);
                // Others may read as well.
                self.work.notify_all();
            }
            Chore::Read(frame) => {
                let how = Reading {
                    mask: Mask::Source,
                    free_as_zero: self.free_as_zero,
                    hold: Some(&self.hold),
                };
                let right = self.surface.reads_right(frame, buffer, how)?;
                self.state().read_back.read(frame, right);
            }
        }
        Ok(())
    }

    /// Makes one range of the disk blank; gives how many bytes read as zeros now.
    fn blank(&self, blank: &Blank) -> Result<u64, DeployError> {
        let bytes = blank.range.end - blank.range.start;
        match blank.with {
            Blanking::Zeros => self.surface.zero(blank.range.start, bytes).map(|()| bytes),
            Blanking::Discard => {
                self.surface.target.device.discard(blank.range.start, bytes);
                Ok(0)
            }
        }
    }

    /// Before the first write of a deploy, what could boot is cleared; all threads wait for it.
    fn ensure_cleared(&self) -> Result<(), DeployError> {
        let _clearing = self.clearing();
        if self.state().cleared {
            return Ok(());
        }
        self.hold.clear(&self.surface)?;
        let mut state = self.state();
        state.cleared = true;
        self.work.notify_all();
        Ok(())
    }
}
