//! What the threads of a deploy share: what is to be done, and what became of it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::deploy::blank::Blank;
use crate::deploy::error::DeployError;
use crate::deploy::readback::ReadBack;
use crate::device::RANGE_MAX;
use crate::id::FrameId;

/// The longest range one thread makes blank before it looks at the queue again, in bytes.
const BLANK_STEP_BYTES: u64 = 64 << 20;

const _: () = assert!(BLANK_STEP_BYTES <= RANGE_MAX);

/// What became of a submitted frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOutcome {
    /// Which frame.
    pub frame: FrameId,
    /// Whether its content was right and is written (or was on the disk already). If not, it stays wanted.
    pub written: bool,
}

/// A frame as it is stored, within a payload that carries several.
pub(crate) struct Job {
    pub(crate) frame: FrameId,
    pub(crate) payload: Arc<Vec<u8>>,
    pub(crate) stored: Range<usize>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) queue: VecDeque<Job>,
    pub(crate) queued_bytes: u64,
    /// Jobs that a thread has taken and not finished.
    pub(crate) running: usize,
    pub(crate) blank: VecDeque<Blank>,
    pub(crate) blanking: bool,
    /// Whether what could boot is cleared. Nothing else is written or made blank before, and that is not before a frame
    /// has come: a deploy nobody feeds leaves the disk alone.
    pub(crate) cleared: bool,
    pub(crate) outcomes: VecDeque<FrameOutcome>,
    pub(crate) read_back: ReadBack,
    /// Payloads whose frames are all done.
    pub(crate) spent: Vec<Vec<u8>>,
    pub(crate) failure: Option<DeployError>,
    pub(crate) stop: bool,
    pub(crate) counts: Counts,
}

/// What was done with a frame that came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Written,
    /// It was on the disk already.
    Kept,
    /// It is not what the manifest says.
    Rejected,
}

/// What the threads have done.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) written_frames: u64,
    /// Of written and kept frames.
    pub(crate) done_bytes: u64,
    /// Frames that turned out to be on the disk already.
    pub(crate) kept_frames: u64,
    pub(crate) rejected_frames: u64,
    pub(crate) zeroed_bytes: u64,
}

impl State {
    pub(crate) fn check(&self) -> Result<(), DeployError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn is_idle(&self) -> bool {
        let writing = !self.queue.is_empty() || self.running > 0;
        let blanking = self.blanking || self.cleared && !self.blank.is_empty();
        !writing && !blanking && self.read_back.is_idle()
    }

    /// Takes the next piece of what is to be blank, if its time has come. One thread at a time: the others write.
    pub(crate) fn next_blank(&mut self) -> Option<Blank> {
        if !self.cleared || self.blanking {
            return None;
        }
        let mut blank = self.blank.pop_front()?;
        let cut = blank.range.start.saturating_add(BLANK_STEP_BYTES);
        if cut < blank.range.end {
            self.blank.push_front(Blank {
                range: cut..blank.range.end,
                with: blank.with,
            });
            blank.range.end = cut;
        }
        Some(blank)
    }
}
