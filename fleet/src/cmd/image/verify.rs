//! `netflash image verify`.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;
use netflash_imager::{Image, VerifyError, verify};

use crate::Exit;
use crate::cmd::image::{Pace, threads};
use crate::interrupt::stop_on_signal;

/// Check every byte of an image
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash image verify debian-13.img.zst")]
pub(crate) struct VerifyArgs {
    /// The image
    #[arg(value_name = "IMG")]
    image: PathBuf,
}

pub(super) fn run(args: &VerifyArgs, json: bool) -> anyhow::Result<Exit> {
    let stop = stop_on_signal()?;
    let image = Image::open(&args.image)?;
    let total = image.manifest().raw_bytes();
    let pace = Mutex::new(Pace::new());
    let show = |done| {
        pace.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .show(done, Some(total), "")
    };
    let found = match verify(&image, threads(), &show, &stop) {
        Err(VerifyError::Interrupted) => return Ok(Exit::Interrupted),
        other => other?,
    };
    drop(pace);
    if json {
        let mut result = serde_json::to_value(&found)?;
        result["image_id"] = image.id().to_string().into();
        result["ok"] = found.is_clean().into();
        println!("{result}");
    } else if found.is_clean() {
        println!(
            "{}: {} frames, all right",
            args.image.display(),
            found.frames
        );
    } else {
        for bad in &found.bad {
            println!(
                "frame {} at byte {} of the image: {}",
                bad.frame, bad.file_offset, bad.reason
            );
        }
        if !found.tables_right {
            println!("the partition tables are not those of the manifest");
        }
        println!(
            "{}: {} of {} frames are damaged",
            args.image.display(),
            found.bad_frames,
            found.frames
        );
    }
    Ok(if found.is_clean() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
