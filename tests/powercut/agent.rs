//! The agent itself on a disk that writes down what it is told: a machine flashes another system's disk, and then a
//! new version of the image; both flashes are cut everywhere.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Bus, Firmware, Machine, MachineSpec, Nic, Power, Programs, Room, ServerOptions, ServerProcess,
    direct_boot, given, wait_until,
};
use tests::sim::Chance;

use crate::disks::{self, DISK_BYTES};
use crate::journal::Journal;
use crate::oracle::Oracle;
use crate::recording::Recording;

/// From power-on to the agent's reboot, on an idle machine.
pub(crate) const FLASH_LIMIT: Duration = Duration::from_secs(240);
pub(crate) const NAME: &str = "lab-1";
const LAB: &str = env!("CARGO_BIN_EXE_lab");

/// Flashes twice in a machine, and cuts both recordings.
pub(crate) fn assert_every_cut_is_safe(seed: u64) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let mut chance = Chance::new(seed);
    disks::disk(path, "former", &mut chance);
    let first = disks::disk(path, "first", &mut chance);
    let second = disks::older(path, "second", &first, &mut chance);
    let unused = disks::free_blocks(path, "first");

    let log = path.join("told.log");
    let (room, programs, disk) = room_in(path, Some(log.clone()))?;
    let server = ServerProcess::start(&room, &programs, &ServerOptions::default())?;
    let machine = room.machine(NAME)?;
    server.add_machine(machine)?;

    for (name, raw) in [("first", first), ("second", second)] {
        let former = fs::read(&disk).context("reading the disk")?;
        let image = disks::image(path, name, true);
        server.add_image(name, &path.join(format!("{name}.img.zst")))?;
        server.flash(name, &[NAME], "auto")?;
        run(&room, &server, machine)?;
        let journal = Journal::read(&log);
        let oracle = Oracle {
            former,
            image: raw,
            unused: unused.clone(),
        };
        let recording = Recording::of(tempfile::tempdir()?, image, oracle, journal, &disk);
        recording.assert_every_cut_is_safe(seed);
    }
    Ok(())
}

/// A room with one machine, on whose disk the raw disk `former` is; `record` is told all that is written to it. Also
/// the programs, and where the disk is.
pub(crate) fn room_in(path: &Path, record: Option<PathBuf>) -> Result<(Room, Programs, PathBuf)> {
    let spec = MachineSpec::new(1, Firmware::Bios, Nic::Virtio);
    let mut spec = spec.disk(path, Bus::Virtio, DISK_BYTES as u64);
    spec.disks[0].record = record;
    let disk = spec.disks[0].path.clone();
    fs::copy(path.join("former.raw"), &disk).context("filling the disk")?;
    let room = Room::build(path, Path::new(LAB), vec![spec], 0.0)?;
    let programs = Programs::new(
        given("NETFLASH_BIN")?,
        given("NETFLASH_APPLIANCE")?,
        LAB.into(),
    );
    Ok((room, programs, disk))
}

/// Switches the machine on, spares it its firmware, and waits until the agent has done its job.
fn run(room: &Room, server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
    machine.set_boot(direct_boot(room, machine)?)?;
    machine.press(Power::On)?;
    wait_until("the disk to be flashed", FLASH_LIMIT, || {
        let job = server.job_of(NAME)?;
        ensure!(!job.has_failed(), "{}", job.reason);
        machine.is_off()
    })?;
    let job = server.job_of(NAME)?;
    ensure!(
        job.is_done(),
        "the machine is off and its job {}",
        job.state
    );
    Ok(())
}
