//! `lab up`: a room to try things in.

use std::{
    env,
    io::IsTerminal,
    path::Path,
    process::{ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;

use super::{
    programs::Programs,
    room::Room,
    server::{ServerOptions, ServerProcess},
    spec::{Bus, Firmware, MachineSpec, Nic},
};

/// How often Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(200);

/// Every blank disk has this size.
const DISK_BYTES: u64 = 4 << 30;

/// What the room is made of.
#[derive(Args)]
#[command(after_help = "Example:\n  sudo netflash lab up --machines 4 --uefi 1 --loss 2")]
pub struct UpOptions {
    #[command(flatten)]
    programs: Programs,
    /// How many machines
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    machines: u8,
    /// How many of them have UEFI firmware; the others have a BIOS
    #[arg(long, default_value_t = 0)]
    uefi: u8,
    /// Loss towards each machine, in per cent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    loss: f64,
}

/// Builds the room and gives a shell in it; without a terminal it waits for Ctrl-C.
pub fn up(options: &UpOptions, stop: &Arc<AtomicBool>) -> Result<ExitCode> {
    let directory = tempfile::Builder::new()
        .prefix("netflash-room-")
        .tempdir()
        .context("making room for the lab")?;
    let specs = machines(options, directory.path());
    let lab = options.programs.lab()?;
    let room = Room::build(directory.path(), &lab, specs, options.loss)?;
    let server = ServerProcess::start(&room, &options.programs, &ServerOptions::default())?;
    for machine in room.machines() {
        server.add_machine(machine)?;
    }
    println!(
        "{} machines, all off; their serial lines: {}/lab-*/serial-*.log",
        room.machines().count(),
        room.directory().display()
    );
    if std::io::stdin().is_terminal() {
        shell(&room, &server, &options.programs.netflash()?)?;
    } else {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(TICK);
        }
    }
    println!("used {:.0} CPU s of QEMU", room.cpu_seconds()?);
    Ok(ExitCode::SUCCESS)
}

/// Disk kinds in turn; the last machines are the UEFI ones.
fn machines(options: &UpOptions, directory: &Path) -> Vec<MachineSpec> {
    let first_uefi = options.machines.saturating_sub(options.uefi);
    (0..options.machines)
        .map(|index| {
            let bus = [Bus::Virtio, Bus::Ahci, Bus::Nvme][usize::from(index) % 3];
            let firmware = if index < first_uefi {
                Firmware::Bios
            } else {
                Firmware::Uefi
            };
            MachineSpec::new(index + 1, firmware, Nic::Virtio).disk(directory, bus, DISK_BYTES)
        })
        .collect()
}

/// A shell where `netflash` is at hand and talks to the room's server.
fn shell(room: &Room, server: &ServerProcess<'_>, netflash: &Path) -> Result<()> {
    println!("netflash here talks to the room's server; Ctrl-D takes the room down. Try:");
    println!("  netflash machine list; netflash power on lab-1; netflash status");
    let beside = netflash.parent().unwrap_or(Path::new("/"));
    let path = env::var("PATH").unwrap_or_default();
    room.server_command("bash")
        .arg("--norc")
        .stdin(Stdio::inherit())
        .env("PS1", "(room) # ")
        .env("PATH", format!("{}:{path}", beside.display()))
        .env("NETFLASH_DIR", server.directory())
        .status()
        .context("starting a shell")?;
    Ok(())
}
