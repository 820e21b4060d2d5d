//! `netflash job capture`: a machine's disk becomes an image.

use clap::Args;

use netflash_imager::{PartitionSet, Whole};
use netflash_pxe::{CaptureHow, DiskSelector};

use super::{LastWord, table};
use crate::Exit;
use crate::client::Client;
use crate::cmd::image::UsedOnly;
use crate::cmd::show;
use crate::fleet::CaptureRequest;
use crate::job::{CaptureWish, Job};

/// Make an image of a machine's disk as soon as it boots over the network
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  netflash job capture spring-2027 --machine lab1 --note 'room 4'"
)]
pub(crate) struct CaptureArgs {
    /// Name of the image to be
    image: String,
    /// Name of the machine
    #[arg(long)]
    machine: String,
    /// Disk to read: auto, serial:…, wwn:…, /dev/… or size:200G..300G
    #[arg(long, value_name = "SELECTOR", default_value = "auto")]
    disk: DiskSelector,
    /// Leave out what the file systems and tables prove to be free
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    used_only: UsedOnly,
    /// Keep these partitions byte for byte, also where that is refused
    #[arg(long, value_name = "N,M|all")]
    whole: Option<Whole>,
    /// Take only these partitions; the others are left empty
    #[arg(long, value_name = "N,M")]
    only: Option<PartitionSet>,
    /// zstd level, 1 (fast) to 19 (small)
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// A note for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// What the machine does afterwards
    #[arg(long = "then", value_enum, default_value = "reboot")]
    last: LastWord,
}

pub(super) fn run(client: &Client, args: CaptureArgs, json: bool) -> anyhow::Result<Exit> {
    let request = CaptureRequest {
        image: args.image,
        machine: args.machine,
        wish: CaptureWish {
            disk: args.disk,
            how: CaptureHow {
                level: args.level,
                used_only: args.used_only == UsedOnly::Auto,
                whole: args
                    .whole
                    .map(|whole| whole.to_string())
                    .unwrap_or_default(),
                only: args.only.map(|only| only.to_string()).unwrap_or_default(),
                note: args.note,
            },
            last: args.last.into(),
        },
    };
    let job: Job = client.post("jobs/capture", &request)?;
    show(json, &job, || table(std::slice::from_ref(&job)))?;
    Ok(Exit::Done)
}
