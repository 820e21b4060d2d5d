//! The threads of sealing: one reads, several compress, the caller writes in order.
//!
//! A fixed number of pieces goes round; a piece is free again only when it was written in its
//! turn, so memory is bounded however unequal the pieces are.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::extent::{ExtentKind, UNIT_BYTES};
use crate::manifest::{FRAME_BYTES, FRAMES_MAX};
use crate::seal::{SealError, SealOptions};
use crate::source::Source;

/// Pieces for each compressing thread, and as many again for reading and writing.
const PIECES_PER_THREAD: usize = 3;

/// One frame on its way; its buffers are used again.
#[derive(Default)]
pub(super) struct Piece {
    index: u32,
    raw: Vec<u8>,
    /// The frame, compressed.
    pub(super) stored: Vec<u8>,
    /// What the frame is made of, in order.
    pub(super) runs: Vec<(ExtentKind, u64)>,
    /// Hash of the frame when it has a used byte.
    pub(super) hash: Option<[u8; 32]>,
}

/// Reads all of `source` and gives each frame, compressed, to `write`, in order.
pub(super) fn run(
    source: &mut Source,
    free: &[Range<u64>],
    options: &SealOptions,
    stop: &AtomicBool,
    write: &mut dyn FnMut(&Piece) -> Result<(), SealError>,
) -> Result<(), SealError> {
    let threads = options.threads.max(1);
    let (pool_in, pool) = channel::<Piece>();
    let (work_in, work) = channel::<Piece>();
    let (done_in, done) = channel::<Result<Piece, SealError>>();
    let work = Mutex::new(work);
    for _ in 0..(threads + 1) * PIECES_PER_THREAD {
        pool_in
            .send(Piece::default())
            .expect("its receiver lives in this function");
    }
    thread::scope(|scope| {
        let failed = done_in.clone();
        scope.spawn(move || {
            if let Err(error) = feed(source, free, &pool, &work_in, stop) {
                // The writer is gone only when it has failed itself.
                let _ = failed.send(Err(error));
            }
        });
        for _ in 0..threads {
            let (work, done_in) = (&work, done_in.clone());
            scope.spawn(move || press(work, free, options.level, &done_in));
        }
        drop(done_in);
        collect(done, &pool_in, write)
    })
}

/// Fills pieces from the source until it ends, somebody else failed, or `stop` is set.
fn feed(
    source: &mut Source,
    free: &[Range<u64>],
    pool: &Receiver<Piece>,
    work: &Sender<Piece>,
    stop: &AtomicBool,
) -> Result<(), SealError> {
    let limit = FRAME_BYTES as usize;
    for index in 0.. {
        let Ok(mut piece) = pool.recv() else {
            return Ok(());
        };
        if stop.load(Ordering::Relaxed) {
            return Err(SealError::Interrupted);
        }
        let offset = u64::from(index) * u64::from(FRAME_BYTES);
        let frame = offset..offset + u64::from(FRAME_BYTES);
        let wholly_free = free_within(free, &frame).any(|range| range == frame);
        if wholly_free {
            piece.raw.clear();
            piece.raw.resize(limit, 0);
        } else {
            source
                .read_next(offset, &mut piece.raw, limit)
                .map_err(|source| SealError::Read { offset, source })?;
        }
        if piece.raw.is_empty() {
            return Ok(());
        }
        if index >= FRAMES_MAX {
            return Err(SealError::TooLarge);
        }
        piece.index = index;
        let last = piece.raw.len() < limit;
        if work.send(piece).is_err() || last {
            return Ok(());
        }
    }
    Ok(())
}

/// Compresses pieces until there are no more.
fn press(
    work: &Mutex<Receiver<Piece>>,
    free: &[Range<u64>],
    level: i32,
    done: &Sender<Result<Piece, SealError>>,
) {
    let mut compressor = match compressor(level) {
        Ok(compressor) => compressor,
        Err(source) => {
            let _ = done.send(Err(SealError::Compress { source }));
            return;
        }
    };
    loop {
        let next = work
            .lock()
            .expect("no thread panics with the lock held")
            .recv();
        let Ok(mut piece) = next else { return };
        let result = piece.press(free, &mut compressor).map(|()| piece);
        if done
            .send(result.map_err(|source| SealError::Compress { source }))
            .is_err()
        {
            return;
        }
    }
}

fn compressor(level: i32) -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(level)?;
    // With it `zstd -t` checks the content, not only the form.
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    Ok(compressor)
}

/// Puts the pieces back in order and writes them.
fn collect(
    done: Receiver<Result<Piece, SealError>>,
    pool: &Sender<Piece>,
    write: &mut dyn FnMut(&Piece) -> Result<(), SealError>,
) -> Result<(), SealError> {
    let mut early: BTreeMap<u32, Piece> = BTreeMap::new();
    let mut next = 0;
    for result in done {
        let piece = result?;
        early.insert(piece.index, piece);
        while let Some(piece) = early.remove(&next) {
            write(&piece)?;
            next += 1;
            // The reader may have come to the end and gone.
            let _ = pool.send(piece);
        }
    }
    Ok(())
}

impl Piece {
    /// Finds out what the frame is made of, puts zeros into its free units, hashes, compresses.
    fn press(
        &mut self,
        free: &[Range<u64>],
        compressor: &mut Compressor<'static>,
    ) -> io::Result<()> {
        let start = u64::from(self.index) * u64::from(FRAME_BYTES);
        let end = start + self.raw.len() as u64;
        for range in free_within(free, &(start..end)) {
            self.raw[(range.start - start) as usize..(range.end - start) as usize].fill(0);
        }
        self.runs.clear();
        let mut free = free_within(free, &(start..end)).peekable();
        for (unit, offset) in self
            .raw
            .chunks(UNIT_BYTES as usize)
            .zip((start..).step_by(UNIT_BYTES as usize))
        {
            while free.next_if(|range| range.end <= offset).is_some() {}
            let kind = if free.peek().is_some_and(|range| range.start <= offset) {
                ExtentKind::Free
            } else if is_zero(unit) {
                ExtentKind::Zero
            } else {
                ExtentKind::Used
            };
            match self.runs.last_mut() {
                Some((last, bytes)) if *last == kind => *bytes += unit.len() as u64,
                _ => self.runs.push((kind, unit.len() as u64)),
            }
        }
        let used = self.runs.iter().any(|(kind, _)| *kind == ExtentKind::Used);
        self.hash = used.then(|| *blake3::hash(&self.raw).as_bytes());
        self.stored.resize(compress_bound(self.raw.len()), 0);
        let length = compressor.compress_to_buffer(&self.raw, self.stored.as_mut_slice())?;
        self.stored.truncate(length);
        Ok(())
    }
}

/// The free ranges within `frame`, cut at its ends.
fn free_within<'a>(
    free: &'a [Range<u64>],
    frame: &Range<u64>,
) -> impl Iterator<Item = Range<u64>> + use<'a> {
    let Range { start, end } = *frame;
    let first = free.partition_point(|range| range.end <= start);
    free[first..]
        .iter()
        .take_while(move |range| range.start < end)
        .map(move |range| range.start.max(start)..range.end.min(end))
}

fn is_zero(unit: &[u8]) -> bool {
    static ZEROS: [u8; UNIT_BYTES as usize] = [0; UNIT_BYTES as usize];
    unit == &ZEROS[..unit.len()]
}
