//! The threads of sealing: some read, several compress, the caller writes in order.
//!
//! A fixed number of pieces goes round; a piece is free again only when it was written in its
//! turn, so memory is bounded however unequal the pieces are. Whoever reads has a piece before it
//! chooses its frame: the frame that is due always has one, so nobody waits for ever.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread;

use crate::manifest::{FRAME_BYTES, FRAMES_MAX, frames_of};
use crate::read_at::ReadAt;
use crate::seal::piece::Piece;
use crate::seal::press::Press;
use crate::seal::{SealError, SealOptions};
use crate::source::{Disk, Reading, Source};

/// Reads in flight at once: a disk is fastest when it has a choice.
const READERS: usize = 3;
/// Pieces for each compressing thread, besides one for each reader and one to write.
const PIECES_PER_THREAD: usize = 2;
/// What all pieces and compressors together may take, in bytes.
const MEMORY_MAX: usize = 128 << 20;
/// A piece: a frame as it is, and compressed.
const PIECE_BYTES: usize = 2 * FRAME_BYTES as usize + (64 << 10);

/// Reads all of `source` and gives each frame, compressed, to `write`, in order.
pub(super) fn run(
    source: &mut Source,
    free: &[Range<u64>],
    options: &SealOptions,
    stop: &AtomicBool,
    write: &mut dyn FnMut(&Piece) -> Result<(), SealError>,
) -> Result<(), SealError> {
    let threads = threads_within(MEMORY_MAX, options);
    let (pool_in, pool) = channel::<Piece>();
    let (work_in, work) = channel::<Piece>();
    let (done_in, done) = channel::<Result<Piece, SealError>>();
    let (pool, work) = (Mutex::new(pool), Mutex::new(work));
    for _ in 0..pieces(threads) {
        pool_in
            .send(Piece::new())
            .expect("its receiver lives in this function");
    }
    let feed = Feed {
        free,
        pool: &pool,
        next: AtomicU32::new(0),
        stop,
    };
    thread::scope(|scope| {
        let feed = &feed;
        let read = |failed: Sender<_>, work_in: Sender<Piece>, reading: Reading<'_>| {
            let fed = match reading {
                Reading::Disk(disk) => feed.disk(disk, &work_in),
                Reading::Stream(stream) => feed.stream(stream, &work_in),
            };
            if let Err(error) = fed {
                // The writer is gone only when it has failed itself.
                let _ = failed.send(Err(error));
            }
        };
        match source.reading() {
            Reading::Disk(disk) => {
                for _ in 0..READERS {
                    let (failed, work_in) = (done_in.clone(), work_in.clone());
                    scope.spawn(move || read(failed, work_in, Reading::Disk(disk)));
                }
            }
            stream => {
                let (failed, work_in) = (done_in.clone(), work_in.clone());
                scope.spawn(move || read(failed, work_in, stream));
            }
        }
        drop(work_in);
        for _ in 0..threads {
            let (work, done_in) = (&work, done_in.clone());
            scope.spawn(move || press(work, free, options.level, &done_in));
        }
        drop(done_in);
        collect(done, pool_in, write)
    })
}

/// How many threads may compress: as many as asked for, and no more than memory allows.
fn threads_within(memory: usize, options: &SealOptions) -> usize {
    // What zstd takes for a window of a frame, measured and rounded up: see the tests of `memory`.
    let context_bytes = match options.level {
        ..=9 => 4 << 20,
        10..=15 => 10 << 20,
        _ => 20 << 20,
    };
    let each = context_bytes + PIECES_PER_THREAD * PIECE_BYTES;
    let rest = memory - pieces(0) * PIECE_BYTES;
    options.threads.clamp(1, (rest / each).max(1))
}

fn pieces(threads: usize) -> usize {
    threads * PIECES_PER_THREAD + READERS + 1
}

/// What readers share.
struct Feed<'a> {
    free: &'a [Range<u64>],
    pool: &'a Mutex<Receiver<Piece>>,
    /// The next frame nobody reads yet.
    next: AtomicU32,
    stop: &'a AtomicBool,
}

impl Feed<'_> {
    /// Fills pieces from `disk` until there are no more frames, somebody else failed, or `stop` is set.
    fn disk(&self, disk: &Disk, work: &Sender<Piece>) -> Result<(), SealError> {
        let frames = u32::try_from(frames_of(disk.raw_bytes())).map_err(|_| SealError::TooLarge)?;
        while let Some(mut piece) = self.piece()? {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= frames {
                return Ok(());
            }
            piece
                .read(index, disk, self.free)
                .map_err(|(offset, source)| SealError::Read { offset, source })?;
            if work.send(piece).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The same from a stream, which nobody else reads.
    fn stream(
        &self,
        stream: &mut (dyn Read + Send),
        work: &Sender<Piece>,
    ) -> Result<(), SealError> {
        for index in 0.. {
            let Some(mut piece) = self.piece()? else {
                return Ok(());
            };
            piece
                .take(index, stream)
                .map_err(|(offset, source)| SealError::Read { offset, source })?;
            if piece.raw_bytes == 0 {
                return Ok(());
            }
            if index >= FRAMES_MAX {
                return Err(SealError::TooLarge);
            }
            let is_last = piece.raw_bytes < FRAME_BYTES as usize;
            if work.send(piece).is_err() || is_last {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A piece to be filled; none when the writer has ended.
    fn piece(&self) -> Result<Option<Piece>, SealError> {
        let piece = lock(self.pool).recv().ok();
        match self.stop.load(Ordering::Relaxed) {
            true => Err(SealError::Interrupted),
            false => Ok(piece),
        }
    }
}

/// Compresses pieces until there are no more.
fn press(
    work: &Mutex<Receiver<Piece>>,
    free: &[Range<u64>],
    level: i32,
    done: &Sender<Result<Piece, SealError>>,
) {
    let mut press = match Press::new(level) {
        Ok(press) => press,
        Err(source) => {
            let _ = done.send(Err(SealError::Compress { source }));
            return;
        }
    };
    loop {
        let next = lock(work).recv();
        let Ok(mut piece) = next else { return };
        let result = piece.press(free, &mut press).map(|()| piece);
        if done
            .send(result.map_err(|source| SealError::Compress { source }))
            .is_err()
        {
            return;
        }
    }
}

/// Puts the pieces back in order and writes them.
fn collect(
    done: Receiver<Result<Piece, SealError>>,
    pool: Sender<Piece>,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with the lock held")
}
