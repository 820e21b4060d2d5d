//! `netflash image info`, and what other commands tell about an image.

use std::path::{Path, PathBuf};

use clap::Args;
use netflash_imager::{BootModes, ExtentKind, Image, ImageId, Manifest, Partition};
use serde::Serialize;

use crate::Exit;
use crate::cmd::image::megabytes;

/// Tell what is in an image
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash image info debian-13.img.zst --json")]
pub(crate) struct InfoArgs {
    /// The image
    #[arg(value_name = "IMG")]
    image: PathBuf,
}

/// The facts of an image, under their stable names.
#[derive(Debug, Serialize)]
pub(super) struct ImageFacts {
    pub(super) image_id: ImageId,
    /// Size of the disk, bytes.
    pub(super) raw_bytes: u64,
    /// Bytes of the disk that hold data; the others are zero or free.
    pub(super) used_bytes: u64,
    /// Bytes of the disk that must read as zero.
    pub(super) zero_bytes: u64,
    /// Bytes of the disk that are proved to be unallocated.
    pub(super) free_bytes: u64,
    /// Bytes of all frames as they are stored.
    pub(super) stored_bytes: u64,
    /// Bytes a session sends to a blank machine, without repair.
    pub(super) sent_bytes: u64,
    pub(super) frame_bytes: u32,
    pub(super) frames: u32,
    pub(super) sector_bytes: u32,
    pub(super) min_target_bytes: u64,
    /// `gpt`, `mbr`, or nothing.
    pub(super) table: Option<&'static str>,
    pub(super) boot: BootModes,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) note: String,
    pub(super) parent: Option<ImageId>,
    pub(super) partitions: Vec<Partition>,
}

impl ImageFacts {
    pub(super) fn of(manifest: &Manifest) -> ImageFacts {
        let tables = manifest.tables();
        let sent = manifest
            .sent()
            .iter()
            .map(|&frame| u64::from(manifest.stored_bytes(frame)));
        ImageFacts {
            image_id: manifest.id(),
            raw_bytes: manifest.raw_bytes(),
            used_bytes: manifest.extents().bytes_of(ExtentKind::Used),
            zero_bytes: manifest.extents().bytes_of(ExtentKind::Zero),
            free_bytes: manifest.extents().bytes_of(ExtentKind::Free),
            stored_bytes: manifest.stored_total(),
            sent_bytes: sent.sum(),
            frame_bytes: manifest.frame_bytes(),
            frames: manifest.frame_count(),
            sector_bytes: manifest.sector_bytes(),
            min_target_bytes: manifest.min_target_bytes(),
            table: match (&tables.gpt, &tables.lba0) {
                (Some(_), _) => Some("gpt"),
                (None, Some(_)) => Some("mbr"),
                (None, None) => None,
            },
            boot: manifest.boot(),
            created: manifest.created(),
            note: manifest.note().to_owned(),
            parent: manifest.parent(),
            partitions: manifest.partitions().to_vec(),
        }
    }
}

pub(super) fn run(args: &InfoArgs, json: bool) -> anyhow::Result<Exit> {
    let image = Image::open(&args.image)?;
    let facts = ImageFacts::of(image.manifest());
    if json {
        println!("{}", serde_json::to_string(&facts)?);
    } else {
        print_facts(&args.image, &facts);
    }
    Ok(Exit::Done)
}

/// Prints the facts for people.
pub(super) fn print_facts(path: &Path, facts: &ImageFacts) {
    println!("image       {}", path.display());
    println!("id          {}", facts.image_id);
    println!(
        "disk        {:.1} MB, {:.1} MB used, fits on {} bytes and more",
        megabytes(facts.raw_bytes),
        megabytes(facts.used_bytes),
        facts.min_target_bytes
    );
    println!(
        "stored      {:.1} MB in {} frames",
        megabytes(facts.stored_bytes),
        facts.frames
    );
    let boot = match facts.boot {
        BootModes {
            bios: true,
            uefi: true,
        } => "BIOS and UEFI",
        BootModes {
            bios: true,
            uefi: false,
        } => "BIOS",
        BootModes {
            bios: false,
            uefi: true,
        } => "UEFI",
        BootModes {
            bios: false,
            uefi: false,
        } => "nothing found that firmware could start",
    };
    let table = facts.table.unwrap_or("no");
    println!(
        "table       {table}, sectors of {} bytes; boots by {boot}",
        facts.sector_bytes
    );
    if !facts.note.is_empty() {
        println!("note        {}", printable(&facts.note));
    }
    if let Some(parent) = facts.parent {
        println!("parent      {parent}");
    }
    if facts.partitions.is_empty() {
        return;
    }
    println!("PARTITION  FS                 SIZE MB     USED MB  LABEL");
    for partition in &facts.partitions {
        let fs = match printable(&partition.fs) {
            fs if fs.is_empty() => "?".to_owned(),
            fs => fs,
        };
        println!(
            "{:>9}  {:<14} {:>11.1} {:>11.1}  {}",
            partition.number,
            fs,
            megabytes(partition.bytes),
            megabytes(partition.used_bytes),
            printable(&partition.label)
        );
    }
}

/// Text from a disk, without what could play tricks with a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}
