//! An image becomes a raw file, a stream, or, through [`Deploy`], a disk; and is compared with one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::checked::{CheckedFrames, FrameError, each_frame};
use crate::deploy::{
    Audit, AuditDepth, Deploy, DeployError, DeployObserver, DeployOptions, DeployReport, audit_with,
};
use crate::id::FrameId;
use crate::image::{Image, ImageError};
use crate::manifest::{FRAME_BYTES, Manifest};
use crate::part_file::PartFile;
use crate::target::Target;

/// Why an image was not extracted.
#[derive(Debug, Error)]
pub enum ExtractError {
    /// The image cannot be read, or is damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A frame is not what the manifest says.
    #[error("frame {frame} of the image is damaged, at byte {offset} of the file")]
    Damaged {
        /// Which frame.
        frame: FrameId,
        /// Where it lies in the image file.
        offset: u64,
    },
    /// The raw file or stream cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file; `-` is standard output.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The decompressor could not be made.
    #[error("extracting the image")]
    Io(#[from] io::Error),
    /// The disk refused.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The stop flag was set.
    #[error("interrupted")]
    Interrupted,
}

/// Writes the raw disk to `output`, checking every frame before it is written. `observer` is told
/// how many raw bytes are done.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract_to_stream(
    image: &Image,
    output: &mut dyn Write,
    observer: &mut dyn FnMut(u64),
    stop: &AtomicBool,
) -> Result<(), ExtractError> {
    let refuse = |source| ExtractError::Write {
        path: "-".into(),
        source,
    };
    let manifest = image.manifest();
    let zeros = vec![0; FRAME_BYTES as usize];
    let mut frames = CheckedFrames::new(image)?;
    for frame in (0..manifest.frame_count()).map(FrameId) {
        if stop.load(Ordering::Relaxed) {
            return Err(ExtractError::Interrupted);
        }
        let range = manifest.frame_range(frame);
        let content = frames.read(frame);
        let raw = content.map_err(|error| refused(manifest, frame, error))?;
        let blank = &zeros[..(range.end - range.start) as usize];
        output.write_all(raw.unwrap_or(blank)).map_err(refuse)?;
        observer(range.end);
    }
    output.flush().map_err(refuse)
}

/// Writes the raw disk as the file `path`, with holes where nothing is used, on `threads` threads.
/// It appears complete or not at all, in place of a file that may be there. `observer` is told how
/// many raw bytes are done, from any of the threads.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract_to_file(
    image: &Image,
    path: &Path,
    threads: usize,
    observer: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
) -> Result<(), ExtractError> {
    let refuse = |source| ExtractError::Write {
        path: path.to_owned(),
        source,
    };
    let part = PartFile::create(path).map_err(refuse)?;
    let file: &File = part.file();
    let manifest = image.manifest();
    file.set_len(manifest.raw_bytes()).map_err(refuse)?;
    each_frame(
        image,
        threads,
        observer,
        stop,
        || ExtractError::Interrupted,
        |frame, content| {
            let raw = content.map_err(|error| refused(manifest, frame, error))?;
            let offset = manifest.frame_range(frame).start;
            raw.map_or(Ok(()), |raw| file.write_all_at(raw, offset))
                .map_err(refuse)
        },
    )?;
    part.finish(path).map_err(refuse)
}

/// Brings all frames that `deploy` wants from the image to the disk, and commits.
///
/// # Errors
/// See [`ExtractError`].
pub fn extract_to_disk(image: &Image, mut deploy: Deploy) -> Result<DeployReport, ExtractError> {
    let mut wanted = deploy.wanted().clone();
    // Ends: a frame that reads back wrong twice is an error of `settle`.
    loop {
        for frame in wanted.iter() {
            let mut payload = Vec::with_capacity(image.manifest().stored_bytes(frame) as usize);
            image.read_stored(frame, &mut payload)?;
            deploy.submit(vec![frame], payload)?;
            refuse_damage(image, &mut deploy)?;
        }
        wanted = deploy.settle()?;
        refuse_damage(image, &mut deploy)?;
        if wanted.is_empty() {
            return Ok(deploy.commit()?);
        }
    }
}

/// Compares a disk with an image, or the part of it that is in scope, and writes nothing. Where a frame of the image is
/// in scope in part, its content is read, too.
///
/// # Errors
/// When the image is damaged or does not fit the disk, or the disk cannot be read.
pub fn audit_image(
    image: &Image,
    target: Target,
    options: &DeployOptions,
    depth: AuditDepth,
    observer: &DeployObserver,
) -> Result<Audit, ExtractError> {
    let manifest = image.manifest();
    let mut frames = CheckedFrames::new(image)?;
    let content = |frame| -> Result<Vec<u8>, ExtractError> {
        let range = manifest.frame_range(frame);
        let content = frames.read(frame);
        let raw = content.map_err(|error| refused(manifest, frame, error))?;
        Ok(raw.map_or_else(
            || vec![0; (range.end - range.start) as usize],
            <[u8]>::to_vec,
        ))
    };
    audit_with(
        Arc::clone(manifest),
        target,
        options,
        depth,
        observer,
        content,
    )
}

/// Takes the outcomes there are; the image is the only source, so what it has wrong stays wrong.
fn refuse_damage(image: &Image, deploy: &mut Deploy) -> Result<(), ExtractError> {
    while let Some(outcome) = deploy.try_outcome() {
        if !outcome.written {
            return Err(damaged(image.manifest(), outcome.frame));
        }
    }
    Ok(())
}

fn refused(manifest: &Manifest, frame: FrameId, error: FrameError) -> ExtractError {
    match error {
        FrameError::Image(error) => error.into(),
        FrameError::Wrong(_) => damaged(manifest, frame),
    }
}

fn damaged(manifest: &Manifest, frame: FrameId) -> ExtractError {
    ExtractError::Damaged {
        frame,
        offset: manifest.stored_range(frame).start,
    }
}
