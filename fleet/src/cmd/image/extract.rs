//! `netflash image extract`.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::Args;
use netflash_imager::{
    Deploy, DeployError, DeployEvent, DeployObserver, DeployOptions, DeployPhase, ExtractError,
    Image, Target, TargetOptions, extract_to_disk, extract_to_file, extract_to_stream,
};
use serde_json::json;

use crate::Exit;
use crate::cmd::image::{Pace, threads};
use crate::cmd::scope::ScopeArgs;
use crate::confirm::confirm_erasing;
use crate::interrupt::stop_on_signal;

/// Put an image on a disk, into a file, or on standard output
#[derive(Debug, Args)]
#[command(after_help = "\
A file becomes the raw disk, byte for byte, with holes where nothing is used.
A block device is surveyed first; only what differs is written, then read back.
So is a file that holds a disk, with --only and --keep.

Examples:
  netflash image extract debian-13.img.zst /dev/sdb
  netflash image extract debian-13.img.zst debian-13.raw
  netflash image extract debian-13.img.zst /dev/sdb --keep 4
  netflash image extract debian-13.img.zst - | qemu-img dd -f raw of=x.raw")]
pub(crate) struct ExtractArgs {
    /// The image
    #[arg(value_name = "IMG")]
    image: PathBuf,
    /// Block device, file, or - for standard output
    #[arg(value_name = "DISK")]
    disk: PathBuf,
    #[command(flatten)]
    scope: ScopeArgs,
    /// Erase what is there without asking
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &ExtractArgs, json: bool) -> anyhow::Result<Exit> {
    let stop = stop_on_signal()?;
    let image = Image::open(&args.image)?;
    let extracted = if args.disk == Path::new("-") {
        anyhow::ensure!(
            args.scope.is_whole(),
            "--only and --keep need a disk, not a stream"
        );
        to_stream(&image, &stop).map(|()| json!({}))
    } else {
        let there = args.disk.metadata().ok();
        let is_device = there
            .as_ref()
            .is_some_and(|meta| meta.file_type().is_block_device());
        if is_device || there.is_some_and(|meta| meta.len() > 0) {
            confirm_erasing(&args.scope.part_of(args.disk.display()), args.yes)?;
        }
        if is_device || !args.scope.is_whole() {
            to_disk(&image, &args.disk, &args.scope, stop)
        } else {
            to_file(&image, &args.disk, &stop)
        }
    };
    let mut result = match extracted {
        Ok(result) => result,
        Err(error) if was_interrupted(&error) => return Ok(Exit::Interrupted),
        Err(error) => return Err(error.context(format!("extracting {}", args.image.display()))),
    };
    // On standard output there is the disk.
    if args.disk != Path::new("-") {
        if json {
            result["image_id"] = image.id().to_string().into();
            result["raw_bytes"] = image.manifest().raw_bytes().into();
            println!("{result}");
        } else {
            let words = args.scope.part_of(args.disk.display());
            println!("{words} is image {}", image.id());
        }
    }
    Ok(Exit::Done)
}

fn to_stream(image: &Image, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut pace = Pace::new();
    let total = image.manifest().raw_bytes();
    let mut show = |done| pace.show(done, Some(total), "");
    Ok(extract_to_stream(
        image,
        &mut io::stdout().lock(),
        &mut show,
        stop,
    )?)
}

fn to_file(image: &Image, path: &Path, stop: &AtomicBool) -> anyhow::Result<serde_json::Value> {
    let pace = Mutex::new(Pace::new());
    let total = image.manifest().raw_bytes();
    let show = |done| {
        let mut pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.show(done, Some(total), "");
    };
    extract_to_file(image, path, threads(), &show, stop)?;
    Ok(json!({}))
}

fn to_disk(
    image: &Image,
    path: &Path,
    scope: &ScopeArgs,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<serde_json::Value> {
    let target = Target::open(path, TargetOptions::default())?;
    let options = DeployOptions {
        stop,
        ..scope.options()
    };
    let deploy = Deploy::begin(Arc::clone(image.manifest()), target, options, view())?;
    let report = extract_to_disk(image, deploy)?;
    if let Some(reason) = &report.stale_table {
        eprintln!(
            "the kernel still has the old partition table ({reason}); reboot, or run partprobe"
        );
    }
    serde_json::to_value(&report).context("describing the result")
}

/// Shows each phase of the deploy with a pace of its own.
fn view() -> DeployObserver {
    let state: Mutex<Option<(DeployPhase, Pace)>> = Mutex::new(None);
    Arc::new(move |event: DeployEvent| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .as_ref()
            .is_none_or(|(phase, _)| *phase != event.phase)
        {
            *state = Some((event.phase, Pace::new()));
        }
        if let Some((phase, pace)) = state.as_mut() {
            let doing = match phase {
                DeployPhase::Survey => "  survey",
                DeployPhase::Write => "  writing",
                DeployPhase::Verify => "  reading back",
                DeployPhase::Commit => "  tables",
            };
            pace.show(event.done_bytes, Some(event.total_bytes), doing);
        }
    })
}

fn was_interrupted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(ExtractError::Interrupted | ExtractError::Deploy(DeployError::Stopped))
        ) || matches!(cause.downcast_ref(), Some(DeployError::Stopped))
    })
}
