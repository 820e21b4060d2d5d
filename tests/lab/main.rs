//! `lab`: rooms of emulated machines, and the demo.
//!
//! `netflash lab …` starts this program.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};
use tests::bmc::hook;
use tests::lab::{Chassis, DemoOptions, Power, PowerState, UpOptions, demo, enter, up};

/// Rooms of emulated machines that netflash works in.
#[derive(Parser)]
#[command(
    name = "lab",
    max_term_width = 80,
    after_help = "Example:\n  sudo netflash lab up --machines 4 --uefi 1 --loss 2"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a room with a server and keeps it until Ctrl-C
    Up(UpOptions),
    /// Flashes four blank machines, kills one on the way, and checks everything
    Demo(DemoOptions),
    /// Owns one machine's QEMU and answers its power button
    #[command(after_help = "Example:\n  lab chassis --dir /tmp/room/lab-1")]
    Chassis {
        /// Directory with the machine's machine.json
        #[arg(long = "dir", value_name = "DIR")]
        directory: PathBuf,
    },
    /// Presses a button of a chassis: on, off, cycle or status
    #[command(after_help = "Example:\n  lab power /tmp/room/lab-1/chassis.sock cycle")]
    Power {
        /// Control socket of the chassis
        socket: PathBuf,
        /// on, off, cycle or status
        button: Power,
        /// Prints everything the chassis knows, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Answers a simulated controller's question about a board
    #[command(after_help = "Example:\n  lab bmc /tmp/room/lab-1 get power")]
    Bmc {
        /// Directory of the board, or of the machine
        directory: PathBuf,
        /// get NAME…, set NAME VALUE…, or check
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(options) => {
            enter()?;
            up(&options, &stop_flag()?)
        }
        Command::Demo(options) => {
            enter()?;
            demo(&options, &stop_flag()?)
        }
        Command::Chassis { directory } => {
            Chassis::open(&directory)?.serve(&stop_flag()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bmc { directory, words } => {
            hook(&directory, &words)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Power {
            socket,
            button,
            json,
        } => {
            let status = button.press(&socket)?;
            if json {
                println!("{}", serde_json::to_string(&status)?);
            } else {
                println!(
                    "{}",
                    match status.power {
                        PowerState::On => "on",
                        PowerState::Off => "off",
                    }
                );
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Raised by Ctrl-C and by a polite kill.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("watching for the end signals")?;
    }
    Ok(stop)
}
