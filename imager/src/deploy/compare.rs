//! Comparing the disk with the image, many frames at a time: for the survey, for the read-back, for an audit.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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
        let count = self.surface.manifest.frame_count() as usize;
        let total_bytes = frames
            .iter()
            .map(|frame| self.surface.bytes_in_scope(*frame) as u64)
            .sum();
        let next = AtomicUsize::new(0);
        let done_bytes = AtomicU64::new(0);
        let right = Mutex::new(Ok(FrameSet::empty(count)));
        let read_all = || {
            let mut buffer = Surface::buffer();
            while let Some(frame) = frames.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = self
                    .options
                    .check_stop()
                    .and_then(|()| self.is_right(*frame, &mut buffer));
                if matches!(found, Ok(true)) {
                    keep(*frame, &buffer);
                }
                let mut right = right
                    .lock()
                    .expect("no reader panics while it holds the lock");
                match (&mut *right, found) {
                    (Ok(set), Ok(true)) => _ = set.insert(*frame),
                    (Ok(_), Ok(false)) => {}
                    (Ok(_), Err(error)) => *right = Err(error),
                    (Err(_), _) => return,
                }
                drop(right);
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
        right
            .into_inner()
            .expect("no reader panics while it holds the lock")
    }

    fn is_right(&self, frame: FrameId, buffer: &mut AlignedBuffer) -> Result<bool, DeployError> {
        self.surface.reads_right(frame, buffer, self.how)
    }
}
