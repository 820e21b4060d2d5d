//! Checking an image against its own manifest, every byte of it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

use serde::Serialize;
use thiserror::Error;

use crate::extent::ExtentKind;
use crate::id::FrameId;
use crate::image::{Image, ImageError, Unpacking};
use crate::mask::mask_frame;
use crate::scan::scan_tables;

/// Most damaged frames that are listed one by one.
const LISTED_MAX: usize = 100;

/// A frame that is not what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadFrame {
    /// Which frame.
    pub frame: FrameId,
    /// Where it lies in the image file.
    pub file_offset: u64,
    /// Where its content belongs on the raw disk.
    pub raw_offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Frames checked: all of them.
    pub frames: u32,
    /// How many are damaged.
    pub bad_frames: u32,
    /// The first hundred of these, in order.
    pub bad: Vec<BadFrame>,
    /// Whether the partition tables in the data are those of the manifest.
    pub tables_right: bool,
}

impl Verification {
    /// Whether the image is whole.
    pub fn is_clean(&self) -> bool {
        self.bad_frames == 0 && self.tables_right
    }
}

/// Why a check could not be made.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The decompressor could not be made, or the tables not be read.
    #[error("checking the image")]
    Io(#[from] io::Error),
    /// The stop flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Decompresses and hashes every frame of `image` on `threads` threads. `observer` is told how many
/// raw bytes are done, from any of them.
///
/// # Errors
/// See [`VerifyError`]; damage found is no error but a result.
pub fn verify(
    image: &Image,
    threads: usize,
    observer: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
) -> Result<Verification, VerifyError> {
    let manifest = image.manifest();
    let next = AtomicU32::new(0);
    let done = AtomicU64::new(0);
    let bad = Mutex::new(Vec::new());
    let check = || -> Result<(), VerifyError> {
        let mut unpacking = Unpacking::new()?;
        let mut raw = Vec::new();
        loop {
            let frame = FrameId(next.fetch_add(1, Ordering::Relaxed));
            if frame.0 >= manifest.frame_count() {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(VerifyError::Interrupted);
            }
            if let Some(reason) = check_frame(image, frame, &mut unpacking, &mut raw)? {
                bad.lock()
                    .expect("no thread panics with the lock held")
                    .push(BadFrame {
                        frame,
                        file_offset: manifest.stored_range(frame).start,
                        raw_offset: manifest.frame_range(frame).start,
                        reason,
                    });
            }
            let range = manifest.frame_range(frame);
            let bytes = range.end - range.start;
            observer(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(check)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("checking does not panic"))
    })?;
    let mut bad = bad
        .into_inner()
        .expect("no thread panicked with the lock held");
    bad.sort_by_key(|entry| entry.frame);
    let bad_frames = bad.len() as u32;
    bad.truncate(LISTED_MAX);
    let tables_right = match scan_tables(&image.disk()?, Some(manifest.sector_bytes())) {
        Ok(found) => found.tables == *manifest.tables(),
        // The damaged frame that keeps the tables from being read is in the list already.
        Err(_) if bad_frames > 0 => false,
        Err(error) => return Err(error.into()),
    };
    Ok(Verification {
        frames: manifest.frame_count(),
        bad_frames,
        bad,
        tables_right,
    })
}

/// What is wrong with `frame`, if anything.
fn check_frame(
    image: &Image,
    frame: FrameId,
    unpacking: &mut Unpacking,
    raw: &mut Vec<u8>,
) -> Result<Option<String>, ImageError> {
    let manifest = image.manifest();
    match image.read_raw(frame, unpacking, raw) {
        Ok(()) => {}
        Err(ImageError::Damaged { reason, .. }) => return Ok(Some(reason)),
        Err(error) => return Err(error),
    }
    let start = manifest.frame_range(frame).start;
    for run in manifest
        .frame_extents(frame)
        .filter(|run| run.kind != ExtentKind::Used)
    {
        let content = &raw[(run.offset - start) as usize..(run.end() - start) as usize];
        if content.iter().any(|&byte| byte != 0) {
            return Ok(Some(format!(
                "data where the manifest says there is none, at raw byte {}",
                run.offset
            )));
        }
    }
    mask_frame(manifest, frame, raw);
    let right = *blake3::hash(raw).as_bytes() == manifest.hash(frame);
    Ok((!right).then(|| "content differs from its hash".to_owned()))
}
