//! `netflash image diff`.

use std::path::PathBuf;

use clap::Args;
use netflash_imager::{Image, diff};

use crate::Exit;
use crate::cmd::image::megabytes;

/// Tell what a machine with image A needs to become image B
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash image diff spring.img.zst summer.img.zst")]
pub(crate) struct DiffArgs {
    /// What the machine has
    #[arg(value_name = "A")]
    from: PathBuf,
    /// What it shall become
    #[arg(value_name = "B")]
    to: PathBuf,
}

pub(super) fn run(args: &DiffArgs, json: bool) -> anyhow::Result<Exit> {
    let (from, to) = (Image::open(&args.from)?, Image::open(&args.to)?);
    let found = diff(from.manifest(), to.manifest());
    if json {
        println!("{}", serde_json::to_string(&found)?);
        return Ok(Exit::Done);
    }
    for range in &found.changed {
        println!(
            "changed  {:>14} .. {:>14}",
            range.offset,
            range.offset + range.bytes
        );
    }
    println!(
        "{} frames are the same, {} differ",
        found.same_frames, found.changed_frames
    );
    println!(
        "to be sent: {} frames, {:.1} MB",
        found.sent_frames,
        megabytes(found.sent_bytes)
    );
    if found.tables_differ {
        println!("the partition tables differ");
    }
    Ok(Exit::Done)
}
