//! `netflash image create`.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, ValueEnum};
use netflash_imager::{
    Image, ImageId, ImportOptions, ImportProgress, PartitionSet, SealError, SealOptions, Source,
    SourceError, Whole, seal,
};

use crate::Exit;
use crate::cmd::image::info::{ImageFacts, print_facts};
use crate::cmd::image::{Pace, megabytes, threads};
use crate::interrupt::stop_on_signal;

/// Make an image of a disk
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash image create /dev/sda debian-13.img.zst --note 'room 4, spring'
  netflash image create vm.qcow2 vm.img.zst
  netflash image create /home/partimag/lab3 lab3.img.zst     # of Clonezilla
  ssh lab1 cat /dev/sda | netflash image create - lab1.img.zst")]
pub(crate) struct CreateArgs {
    /// Disk, file of a disk (raw, compressed, or of another program), or -
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The image, by custom NAME.img.zst
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Leave out what the file systems and tables prove to be free
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    used_only: UsedOnly,
    /// Keep these partitions byte for byte, also if dirty: 2,3 or all
    #[arg(long, value_name = "N,M|all")]
    whole: Option<Whole>,
    /// Take only these partitions; the others are left empty
    #[arg(long, value_name = "N,M")]
    only: Option<PartitionSet>,
    /// Which disk, when SRC has several (OVA, Clonezilla)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    disk: Option<u32>,
    /// zstd level, 1 (fast) to 19 (small)
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// A note for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// The image this one was made from: a file, or its id
    #[arg(long, value_name = "IMG")]
    parent: Option<String>,
}

/// What `--used-only` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsedOnly {
    /// Wherever that is proved
    Auto,
    /// Keep every byte
    Off,
}

pub(super) fn run(args: &CreateArgs, json: bool) -> anyhow::Result<Exit> {
    let stop = stop_on_signal()?;
    let scratch = match args.output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut pace = Pace::new();
    let import = ImportOptions {
        scratch: scratch.to_owned(),
        disk: args.disk,
    };
    let mut show = |progress: ImportProgress| {
        pace.show(
            progress.read_bytes,
            Some(progress.total_bytes),
            "  unpacking",
        );
    };
    let source = match Source::import(&args.source, &import, &mut show, &stop) {
        Err(SourceError::Interrupted) => return Ok(Exit::Interrupted),
        other => other?,
    };
    let options = SealOptions {
        used_only: args.used_only == UsedOnly::Auto,
        whole: args.whole.clone().unwrap_or_default(),
        only: args.only.clone(),
        level: args.level,
        note: args.note.clone(),
        parent: args.parent.as_deref().map(parent_id).transpose()?,
        created: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        threads: threads(),
    };
    let mut pace = Pace::new();
    let mut show = |progress: netflash_imager::SealProgress| {
        let stored = format!("  image {:.0} MB", megabytes(progress.stored_bytes));
        pace.show(progress.raw_bytes, progress.raw_total, &stored);
    };
    let sealed = match seal(source, &args.output, &options, &mut show, &stop) {
        Err(SealError::Interrupted) => return Ok(Exit::Interrupted),
        other => other.with_context(|| format!("making an image of {}", args.source.display()))?,
    };
    let seconds = pace.seconds();
    drop(pace);
    for note in &sealed.notes {
        eprintln!("note: {note}");
    }
    let facts = ImageFacts::of(&sealed.manifest);
    if json {
        let mut result = serde_json::to_value(&facts)?;
        result["seconds"] = seconds.into();
        result["notes"] = sealed.notes.into();
        println!("{result}");
    } else {
        print_facts(&args.output, &facts);
        println!(
            "made in {seconds:.1} s, {:.0} MB/s",
            megabytes(facts.raw_bytes) / seconds.max(0.001)
        );
    }
    Ok(Exit::Done)
}

fn parent_id(text: &str) -> anyhow::Result<ImageId> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => Ok(Image::open(Path::new(text))
            .context("opening the parent image")?
            .id()),
    }
}
