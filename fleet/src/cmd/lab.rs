//! `netflash lab`: rooms of virtual machines, by the sibling program `lab`.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use clap::Args;

use crate::Exit;

/// Run a room of virtual machines (by the program `lab` beside this one)
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Example:\n  netflash lab up --machines 4 --loss 2"
)]
pub(crate) struct LabArgs {
    /// What `lab` shall do; `netflash lab --help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes `lab`; returns only when that fails.
pub(crate) fn run(args: LabArgs) -> anyhow::Result<Exit> {
    let own = env::current_exe().context("finding this program's own path")?;
    let lab = own.with_file_name("lab");
    let error = Command::new(&lab).args(args.arguments).exec();
    Err(error).with_context(|| {
        format!(
            "starting {}; it is built with `cargo build -p tests --bin lab`",
            lab.display()
        )
    })
}
