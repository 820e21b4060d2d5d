//! Frames of an image as raw bytes, each checked against the manifest before anybody sees it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use thiserror::Error;

use crate::extent::ExtentKind;
use crate::id::FrameId;
use crate::image::{Image, ImageError};
use crate::mask::mask_frame;
use crate::stored::Unpacker;

/// Why a frame is not to be used.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It is not what the manifest says.
    #[error("{0}")]
    Wrong(String),
}

/// What a thread needs to read frames one after another.
pub(crate) struct CheckedFrames<'a> {
    image: &'a Image,
    unpacker: Unpacker,
    stored: Vec<u8>,
    raw: Vec<u8>,
    masked: Vec<u8>,
    /// How zeros of some length were stored when they were unpacked last: most of a large disk is such frames, and
    /// what is stored in the same way holds the same.
    zeros: Option<(usize, Vec<u8>)>,
}

impl<'a> CheckedFrames<'a> {
    pub(crate) fn new(image: &'a Image) -> io::Result<CheckedFrames<'a>> {
        Ok(CheckedFrames {
            image,
            unpacker: Unpacker::new()?,
            stored: Vec::new(),
            raw: Vec::new(),
            masked: Vec::new(),
            zeros: None,
        })
    }

    /// The raw bytes of `frame`; none when they are all zeros.
    ///
    /// # Errors
    /// When the image cannot be read, or the frame is not what the manifest says.
    pub(crate) fn read(&mut self, frame: FrameId) -> Result<Option<&[u8]>, FrameError> {
        let manifest = self.image.manifest();
        self.stored.clear();
        self.image.read_stored(frame, &mut self.stored)?;
        let range = manifest.frame_range(frame);
        let raw_bytes = (range.end - range.start) as usize;
        let is_blank = !manifest.is_sent(frame);
        if is_blank
            && let Some((bytes, zeros)) = &self.zeros
            && (*bytes, &**zeros) == (raw_bytes, &*self.stored)
        {
            return Ok(None);
        }
        self.unpacker
            .unpack(&self.stored, raw_bytes, &mut self.raw)
            .map_err(|error| FrameError::Wrong(error.to_string()))?;
        for run in manifest
            .frame_extents(frame)
            .filter(|run| run.kind != ExtentKind::Used)
        {
            let place = (run.offset - range.start) as usize..(run.end() - range.start) as usize;
            if self.raw[place].iter().any(|&byte| byte != 0) {
                return Err(FrameError::Wrong(format!(
                    "data where the manifest says there is none, at raw byte {}",
                    run.offset
                )));
            }
        }
        if is_blank {
            self.zeros = Some((raw_bytes, self.stored.clone()));
            return Ok(None);
        }
        // Free runs are zeros already: only tables are left to be masked.
        let has_table = manifest
            .masked()
            .iter()
            .any(|table| table.start < range.end && range.start < table.end);
        let hashed = if has_table {
            self.masked.clone_from(&self.raw);
            mask_frame(manifest, frame, &mut self.masked);
            &self.masked
        } else {
            &self.raw
        };
        if *blake3::hash(hashed).as_bytes() != manifest.hash(frame) {
            return Err(FrameError::Wrong(
                "content differs from its hash".to_owned(),
            ));
        }
        Ok(Some(&self.raw))
    }
}

/// Gives every frame of `image` to `take`, on `threads` threads, in no order. `observer` is told how many raw bytes are
/// done, from any of them.
///
/// # Errors
/// The first of `take`, after which nothing more is begun; `interrupted` gives it when `stop` is set, and a decompressor
/// that cannot be made is an error too.
pub(crate) fn each_frame<E: From<io::Error> + Send>(
    image: &Image,
    threads: usize,
    observer: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
    interrupted: impl Fn() -> E + Sync,
    take: impl Fn(FrameId, Result<Option<&[u8]>, FrameError>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let manifest = image.manifest();
    let count = manifest.frame_count();
    let next = AtomicU32::new(0);
    let done = AtomicU64::new(0);
    let work = || -> Result<(), E> {
        let mut frames = CheckedFrames::new(image)?;
        loop {
            let frame = FrameId(next.fetch_add(1, Ordering::Relaxed));
            // Several threads go beyond the end by one each: far from where the counter would begin anew.
            if frame.0 >= count {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(interrupted());
            }
            take(frame, frames.read(frame))
                .inspect_err(|_| next.store(count, Ordering::Relaxed))?;
            let range = manifest.frame_range(frame);
            let bytes = range.end - range.start;
            observer(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("reading frames does not panic"))
            .fold(Ok(()), Result::and)
    })
}
