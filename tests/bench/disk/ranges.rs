//! Plain reading: the floor under everything that has to look at a disk.

use std::{
    fs::OpenOptions,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use netflash_imager::{ExtentKind, Image};

/// Bytes in one read.
const STEP: u64 = 1 << 20;
/// Alignment that direct reads want.
const ALIGNMENT: usize = 4096;
/// Threads that read.
const THREADS: usize = 2;

/// The used and the zero parts of an image's disk, cut into reads.
pub(super) fn that_matter(image: &Image) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let manifest = image.manifest();
    for run in manifest.extents().within(0..manifest.raw_bytes()) {
        if run.kind == ExtentKind::Free {
            continue;
        }
        let mut start = run.offset;
        while start < run.end() {
            let end = run.end().min((start / STEP + 1) * STEP);
            match ranges.last_mut() {
                Some(last) if last.end == start && !start.is_multiple_of(STEP) => last.end = end,
                _ => ranges.push(start..end),
            }
            start = end;
        }
    }
    ranges
}

/// Seconds that two threads take to read these ranges of `device` past the page cache.
pub(super) fn read_seconds(device: &str, ranges: &[Range<u64>]) -> Result<f64> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(device)
        .with_context(|| format!("opening {device}"))?;
    let next = AtomicUsize::new(0);
    let read_all = || -> Result<()> {
        let mut storage = vec![0; STEP as usize + ALIGNMENT];
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        let buffer = &mut storage[start..start + STEP as usize];
        while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            let bytes = ((range.end - range.start) as usize).next_multiple_of(ALIGNMENT);
            file.read_at(&mut buffer[..bytes], range.start)
                .context("reading plainly")?;
        }
        Ok(())
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..THREADS).map(|_| scope.spawn(read_all)).collect();
        readers
            .into_iter()
            .try_for_each(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?)
    })?;
    Ok(started.elapsed().as_secs_f64())
}
