//! The command line: what there is, and how it ends.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::cmd::lab;
use crate::exit::{Exit, exit_of};

/// One image, a whole room of machines, once over the wire
#[derive(Debug, Parser)]
#[command(name = "netflash", version, max_term_width = 80)]
struct Cli {
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Directory of the server: configuration, keys, database
    #[arg(
        long,
        global = true,
        env = "NETFLASH_DIR",
        default_value = ".",
        value_name = "DIR"
    )]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lab(lab::LabArgs),
}

/// The whole command line as clap sees it, for documentation and tests.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Run the program with the arguments of this process.
pub fn run() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a closed terminal.
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
        }
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match dispatch(cli) {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("netflash: {error:#}");
            exit_of(&error)
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let Cli {
        json: _,
        dir: _,
        command,
    } = cli;
    match command {
        Command::Lab(args) => lab::run(args),
    }
}
