//! What is read back while more arrives, by threads that have nothing to write.
//!
//! ```text
//!   written ──as many as a flush is worth──> flushed ──> read: right, or wrong
//! ```
//!
//! Where the network is slower than the disk, all but the last few MiB are judged when the last frame has come. A
//! frame is read after a flush that began when it was written, as at the end; only the moment differs.

use std::collections::VecDeque;

use crate::id::FrameId;

/// Written frames that are worth a flush, which takes a disk as long as writing one or two.
const FLUSH_FRAMES: usize = 16;

/// The frames between their writing and their verdict.
#[derive(Default)]
pub(crate) struct ReadBack {
    /// Nothing is begun: the deploy does not want it, or it settles.
    paused: bool,
    written: Vec<FrameId>,
    flushed: VecDeque<FrameId>,
    /// Frames that a flush is under way for.
    flushing: bool,
    reading: usize,
    judged: Judged,
}

/// Frames that were read back.
#[derive(Default)]
pub(crate) struct Judged {
    /// In the order of their reading.
    pub(crate) right: Vec<FrameId>,
    pub(crate) wrong: Vec<FrameId>,
}

/// What a thread may do when it has nothing to write.
pub(crate) enum Chore {
    /// Flush the disk, for the sake of these frames.
    Flush(Vec<FrameId>),
    /// Read a frame and compare.
    Read(FrameId),
}

impl ReadBack {
    /// The frame has been written.
    pub(crate) fn written(&mut self, frame: FrameId) {
        self.written.push(frame);
    }

    /// What there is to do now.
    pub(crate) fn next(&mut self) -> Option<Chore> {
        if self.paused {
            return None;
        }
        if let Some(frame) = self.flushed.pop_front() {
            self.reading += 1;
            return Some(Chore::Read(frame));
        }
        if self.flushing || self.written.len() < FLUSH_FRAMES {
            return None;
        }
        self.flushing = true;
        Some(Chore::Flush(std::mem::take(&mut self.written)))
    }

    /// These frames are on the medium, as far as the disk can be believed.
    pub(crate) fn flushed(&mut self, frames: Vec<FrameId>) {
        self.flushing = false;
        self.flushed.extend(frames);
    }

    /// The frame has been read.
    pub(crate) fn read(&mut self, frame: FrameId, right: bool) {
        self.reading -= 1;
        if right {
            self.judged.right.push(frame);
        } else {
            self.judged.wrong.push(frame);
        }
    }

    /// Whether nothing of it is under way.
    pub(crate) fn is_idle(&self) -> bool {
        !self.flushing && self.reading == 0
    }

    /// Frames that were judged and not taken.
    #[cfg(test)]
    pub(crate) fn judged_frames(&self) -> usize {
        self.judged.right.len() + self.judged.wrong.len()
    }

    /// Nothing more is begun.
    pub(crate) fn pause(&mut self) {
        self.paused = true;
    }

    /// Frames may be read again. Those not judged before are not judged any more: whoever settled has read them.
    pub(crate) fn resume(&mut self) {
        self.paused = false;
    }

    /// What was judged; all that was not is forgotten.
    pub(crate) fn take(&mut self) -> Judged {
        self.written.clear();
        self.flushed.clear();
        std::mem::take(&mut self.judged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(read_back: &mut ReadBack, from: u32, count: u32) {
        (from..from + count).for_each(|frame| read_back.written(FrameId(frame)));
    }

    #[test]
    fn nothing_is_read_before_it_is_flushed() {
        let mut read_back = ReadBack::default();
        frames(&mut read_back, 0, FLUSH_FRAMES as u32 - 1);
        assert!(read_back.next().is_none());
        frames(&mut read_back, FLUSH_FRAMES as u32 - 1, 1);
        let Some(Chore::Flush(flushing)) = read_back.next() else {
            panic!("enough frames are there");
        };
        // Written while the flush was under way: not for this one.
        frames(&mut read_back, 99, FLUSH_FRAMES as u32);
        assert!(read_back.next().is_none() && !read_back.is_idle());
        read_back.flushed(flushing);
        for frame in 0..FLUSH_FRAMES as u32 {
            assert!(matches!(read_back.next(), Some(Chore::Read(read)) if read == FrameId(frame)));
            read_back.read(FrameId(frame), frame != 3);
        }
        assert!(read_back.is_idle());
        assert!(matches!(read_back.next(), Some(Chore::Flush(_))));
        let judged = read_back.take();
        assert_eq!(judged.right.len(), FLUSH_FRAMES - 1);
        assert_eq!(judged.wrong, [FrameId(3)]);
    }

    #[test]
    fn a_pause_begins_nothing_and_forgets_what_waits() {
        let mut read_back = ReadBack::default();
        frames(&mut read_back, 0, 20);
        read_back.pause();
        assert!(read_back.next().is_none());
        assert!(read_back.take().right.is_empty());
        read_back.resume();
        assert!(
            read_back.next().is_none(),
            "they were read by whoever settled"
        );
    }
}
