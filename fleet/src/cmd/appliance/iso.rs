//! `netflash appliance iso`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use netflash_appliance::{IsoOptions, iso};

use super::bound::BoundArgs;
use crate::Exit;

/// Make a CD or USB stick for machines that cannot boot over the network
///
/// One file for BIOS and UEFI, with Secure Boot on or off; write it to a stick
/// with dd. It names the server and the authority to believe, and holds no
/// token: the machine asks, and gets a job only when it is known and has one.
/// Needs grub-pc-bin, grub-common, mtools and xorriso.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash appliance iso --out netflash.iso")]
pub(super) struct IsoArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    bound: BoundArgs,
}

pub(super) fn run(args: &IsoArgs, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let bound = args.bound.read(dir)?;
    let options = IsoOptions {
        appliance: bound.appliance,
        trust: bound.trust,
        command_line: bound.command_line,
        out: args.out.clone(),
    };
    let report = iso(&options).with_context(|| format!("making {}", args.out.display()))?;
    if json {
        let text = serde_json::to_string(&report).context("rendering the report")?;
        println!("{text}");
    } else {
        let mib = report.bytes as f64 / f64::from(1 << 20);
        println!("{}: {mib:.1} MiB", args.out.display());
    }
    Ok(Exit::Done)
}
