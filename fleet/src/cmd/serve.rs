//! `netflash serve`

use std::path::{Path, PathBuf};

use clap::Args;

use crate::Exit;
use crate::data_dir::Running;
use crate::server;

/// Run the server in a directory; an empty one becomes a server
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  mkdir room && cd room && netflash serve")]
pub(crate) struct ServeArgs {
    /// Configuration; netflash.toml in the directory unless given
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(crate) fn run(args: &ServeArgs, dir: &Path, json: bool) -> anyhow::Result<Exit> {
    server::serve(dir, args.config.as_deref(), |running| say(running, json))?;
    Ok(Exit::Done)
}

fn say(running: &Running, json: bool) {
    let Running { https, http, pid } = running;
    if json {
        println!(
            "{}",
            serde_json::json!({ "https": https, "http": http, "pid": pid })
        );
    } else {
        println!("netflash serve: ready, https {https}, http {http}");
    }
}
