//! `netflash job verify`: are the disks of machines what an image says?

use clap::Args;

use netflash_pxe::{DiskSelector, FreePolicy};

use super::{LastWord, Machines, table};
use crate::Exit;
use crate::client::Client;
use crate::cmd::show;
use crate::fleet::VerifyRequest;
use crate::job::{Job, VerifyWish};

/// Compare machines' disks with an image when they boot next; writes nothing
#[derive(Debug, Args)]
#[command(after_help = "\
A job ends as done when the disk is the image, else as differs; job show --json
says where, by partition. Tables count as they should be on that disk.

Example:
  netflash job verify debian-13 --machines lab1,lab2 && netflash job watch")]
pub(crate) struct VerifyArgs {
    /// Name of the image
    image: String,
    #[command(flatten)]
    machines: Machines,
    /// Disk to read: auto, serial:…, wwn:…, /dev/… or size:200G..300G
    #[arg(long, value_name = "SELECTOR", default_value = "auto")]
    disk: DiskSelector,
    /// Free space must read as zeros as well
    #[arg(long)]
    free_zero: bool,
    /// What a machine does afterwards
    #[arg(long = "then", value_enum, default_value = "reboot")]
    last: LastWord,
}

pub(super) fn run(client: &Client, args: VerifyArgs, json: bool) -> anyhow::Result<Exit> {
    let request = VerifyRequest {
        image: args.image,
        machines: Some(args.machines.names(client)?),
        wish: VerifyWish {
            disk: args.disk,
            free: match args.free_zero {
                true => FreePolicy::Zero,
                false => FreePolicy::Leave,
            },
            last: args.last.into(),
        },
    };
    let jobs: Vec<Job> = client.post("jobs/verify", &request)?;
    show(json, &jobs, || table(&jobs))?;
    Ok(Exit::Done)
}
