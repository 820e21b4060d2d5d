//! `netflash verify`: is a disk what an image says?

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde::Serialize;

use netflash_imager::{
    AuditDepth, DeployError, DeployEvent, DeployOptions, ExtractError, FreePolicy, Image,
    LastPartition, Place, Target, TargetOptions, audit_image,
};

use super::show;
use crate::Exit;
use crate::cmd::image::Pace;
use crate::cmd::scope::ScopeArgs;
use crate::interrupt::stop_on_signal;
use crate::table::{Table, bytes};

/// Compare a disk with an image; nothing is written
#[derive(Debug, Args)]
#[command(after_help = "\
Tables count as they should be on this disk. Free space does not count.
Ends with 1 when something differs.

Example:
  netflash verify /dev/sda debian-13.img.zst --json")]
pub(crate) struct VerifyArgs {
    /// Block device, or a file with a raw disk
    #[arg(value_name = "DISK")]
    disk: PathBuf,
    /// The image
    #[arg(value_name = "IMG")]
    image: PathBuf,
    /// Free space must read as zeros as well
    #[arg(long)]
    free_zero: bool,
    /// What a larger disk's last partition is expected to be
    #[arg(long, value_enum, value_name = "HOW", default_value = "keep")]
    last_partition: LastWord,
    #[command(flatten)]
    scope: ScopeArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LastWord {
    /// As large as in the image
    Keep,
    /// Grown to the disk's end
    Grow,
}

/// How much differs, and where.
#[derive(Debug, Serialize)]
struct Found {
    equal: bool,
    image_id: String,
    right_frames: u64,
    differing_frames: usize,
    differing_bytes: u64,
    tables_right: bool,
    places: Vec<Place>,
}

pub(crate) fn run(args: &VerifyArgs, json: bool) -> anyhow::Result<Exit> {
    let stop = stop_on_signal()?;
    let image = Image::open(&args.image)?;
    let target = Target::open(
        &args.disk,
        TargetOptions {
            read_only: true,
            ..TargetOptions::default()
        },
    )?;
    let options = DeployOptions {
        free: if args.free_zero {
            FreePolicy::Zero
        } else {
            FreePolicy::Leave
        },
        last_partition: match args.last_partition {
            LastWord::Keep => LastPartition::Keep,
            LastWord::Grow => LastPartition::Grow,
        },
        stop,
        ..args.scope.options()
    };
    let manifest = image.manifest();
    let pace = Mutex::new(Some(Pace::new()));
    let pace = Arc::new(pace);
    let shown = Arc::clone(&pace);
    let view = move |event: DeployEvent| {
        let mut pace = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = pace.as_mut() {
            pace.show(event.done_bytes, Some(event.total_bytes), "");
        }
    };
    let audited = audit_image(
        &image,
        target,
        &options,
        AuditDepth::Whole,
        &(Arc::new(view) as _),
    );
    pace.lock().unwrap_or_else(PoisonError::into_inner).take();
    let audited = match audited {
        Err(ExtractError::Deploy(DeployError::Stopped)) => return Ok(Exit::Interrupted),
        other => other.with_context(|| format!("comparing {}", args.disk.display()))?,
    };
    let found = Found {
        equal: audited.is_clean(),
        image_id: image.id().to_string(),
        right_frames: audited.right_frames,
        differing_frames: audited.differing.len(),
        differing_bytes: audited.differing_bytes(manifest),
        tables_right: audited.tables_right,
        places: audited.places(manifest),
    };
    show(json, &found, || text(args, &found))?;
    Ok(if found.equal {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn text(args: &VerifyArgs, found: &Found) -> String {
    let what = args.scope.part_of(args.disk.display());
    if found.equal {
        return format!("{what} is image {}\n", found.image_id);
    }
    let mut table = Table::new(["PARTITION", "FS", "LABEL", "DIFFERS", "FRAMES", "FROM BYTE"]);
    for place in &found.places {
        let name = place.partition.map(|number| number.to_string());
        table.row([
            name.unwrap_or_else(|| "outside".to_owned()),
            place.fs.clone(),
            place.label.clone(),
            bytes(place.differing_bytes),
            place.differing_frames.to_string(),
            place
                .first_offset
                .map(|at| at.to_string())
                .unwrap_or_default(),
        ]);
    }
    let tables = if found.tables_right {
        ""
    } else {
        "The partition tables differ.\n"
    };
    format!(
        "{}{tables}{what} is not image {}: {} of its frames differ\n",
        table.render(),
        found.image_id,
        found.differing_frames
    )
}
