//! Checking an image against its own manifest, every byte of it.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use thiserror::Error;

use crate::checked::{FrameError, each_frame};
use crate::id::FrameId;
use crate::image::{Image, ImageError};
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
    let bad = Mutex::new(Vec::new());
    let check = |frame, content: Result<Option<&[u8]>, FrameError>| {
        let reason = match content {
            Ok(_) => return Ok(()),
            Err(FrameError::Wrong(reason)) => reason,
            Err(FrameError::Image(error)) => return Err(error.into()),
        };
        bad.lock()
            .expect("no thread panics with the lock held")
            .push(BadFrame {
                frame,
                file_offset: manifest.stored_range(frame).start,
                raw_offset: manifest.frame_range(frame).start,
                reason,
            });
        Ok(())
    };
    each_frame(
        image,
        threads,
        observer,
        stop,
        || VerifyError::Interrupted,
        check,
    )?;
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
