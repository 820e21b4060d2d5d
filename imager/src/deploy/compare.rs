//! Comparing the disk with the image, many frames at a time: for the survey, for the read-back, for an audit.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use crate::deploy::error::DeployError;
use crate::deploy::options::{DeployEvent, DeployObserver, DeployOptions, DeployPhase};
use crate::deploy::surface::{Reading, Surface};
use crate::device::AlignedBuffer;
use crate::frame_set::FrameSet;
use crate::id::FrameId;

/// Reads in flight at once, at the least: a disk is fastest when it has a choice.
const READERS_MIN: usize = 4;

/// What frames are compared with, and how.
pub(crate) struct Comparison<'a> {
    pub(crate) surface: &'a Surface,
    pub(crate) options: &'a DeployOptions,
    pub(crate) observer: &'a DeployObserver,
    pub(crate) phase: DeployPhase,
    pub(crate) how: Reading<'a>,
}

impl Comparison<'_> {
    /// The frames of `frames` that the disk holds as the image wants them. `keep` is shown each of these, masked.
    ///
    /// # Errors
    /// When the disk cannot be read, or the deploy is told to stop.
    pub(crate) fn right(
        &self,
        frames: &[FrameId],
        keep: impl Fn(FrameId, &AlignedBuffer) + Sync,
    ) -> Result<FrameSet, DeployError> {
        let right = Mutex::new(FrameSet::empty(self.surface.manifest.frame_count() as usize));
        self.each(frames, |frame, is_right, buffer| {
            if is_right {
                keep(frame, buffer);
                lock(&right).insert(frame);
            }
            ControlFlow::Continue(())
        })?;
        Ok(right.into_inner().expect("no reader panics with the lock"))
    }

    /// A frame of `frames` that the disk does not hold as the image wants it: the first that was found, if there is
    /// one. The rest is not read.
    ///
    /// # Errors
    /// As of [`Comparison::right`].
    pub(crate) fn any_wrong(&self, frames: &[FrameId]) -> Result<Option<FrameId>, DeployError> {
        let wrong = Mutex::new(None);
        self.each(frames, |frame, is_right, _| {
            if is_right {
                return ControlFlow::Continue(());
            }
            lock(&wrong).get_or_insert(frame);
            ControlFlow::Break(())
        })?;
        Ok(wrong.into_inner().expect("no reader panics with the lock"))
    }

    /// Reads `frames`, several at a time, and shows each to `look` with whether it is right, until that breaks off.
    fn each(
        &self,
        frames: &[FrameId],
        look: impl Fn(FrameId, bool, &AlignedBuffer) -> ControlFlow<()> + Sync,
    ) -> Result<(), DeployError> {
        let total_bytes = frames
            .iter()
            .map(|frame| self.surface.bytes_in_scope(*frame) as u64)
            .sum();
        let next = AtomicUsize::new(0);
        let done_bytes = AtomicU64::new(0);
        let failure = Mutex::new(None);
        let break_off = || next.store(frames.len(), Ordering::Relaxed);
        let read_all = || {
            let mut buffer = Surface::buffer();
            while let Some(frame) = frames.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = self
                    .options
                    .check_stop()
                    .and_then(|()| self.is_right(*frame, &mut buffer));
                match found.map(|is_right| look(*frame, is_right, &buffer)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return break_off(),
                    Err(error) => {
                        lock(&failure).get_or_insert(error);
                        return break_off();
                    }
                }
                let bytes = self.surface.bytes_in_scope(*frame) as u64;
                let done_bytes = done_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
                (self.observer)(DeployEvent {
                    phase: self.phase,
                    done_bytes,
                    total_bytes,
                });
            }
        };
        let readers = self
            .options
            .thread_count()
            .max(READERS_MIN)
            .min(frames.len().max(1));
        thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(read_all);
            }
        });
        let failure = failure
            .into_inner()
            .expect("no reader panics with the lock");
        failure.map_or(Ok(()), Err)
    }

    fn is_right(&self, frame: FrameId, buffer: &mut AlignedBuffer) -> Result<bool, DeployError> {
        self.surface.reads_right(frame, buffer, self.how)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no reader panics with the lock")
}
