//! A machine that comes back by the network without a job goes on to its own disk, and how long that takes: with the
//! distribution's iPXE, which under UEFI cannot do that itself.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Firmware, Machine, Power, SMALL_DISK_SAYS, ServerProcess, inside, small_disk, wait_until,
};

use crate::{
    esp::uefi_disk,
    stage::{Stage, console, has_asked},
};

/// From power-on to the words of the local disk, on an idle machine.
const DISK_LIMIT: Duration = Duration::from_secs(240);

#[test]
fn without_a_job_a_machine_goes_on_to_its_disk() -> Result<()> {
    inside("local::without_a_job_a_machine_goes_on_to_its_disk", || {
        let stage = Stage::set()?;
        let room = stage.room(vec![
            stage.machine(1, Firmware::Bios),
            stage.machine(2, Firmware::Uefi),
        ])?;
        let (bios, uefi) = (room.machine("lab-1")?, room.machine("lab-2")?);
        small_disk(&bios.spec().disks[0].path)?;
        let says = format!("echo {SMALL_DISK_SAYS:?}\nsleep 3600\n");
        uefi_disk(&uefi.spec().disks[0].path, &says, "echo sleep", &[])?;
        let range = "range = [\"10.77.0.50\", \"10.77.0.60\"]";
        let server = stage.serve(&room, range)?;
        println!("firmware  first packet  (CPU s)  question then  (CPU s)  disk then  (CPU s)");
        // One after the other: the seconds are those of a machine that has a core to itself.
        for (machine, name) in [(bios, "BIOS"), (uefi, "UEFI")] {
            let [packet, question, disk] = goes_on(&server, machine)?;
            println!("{name:8}  {packet}  {question}  {disk}");
        }
        Ok(())
    })
}

/// What a part of the way took, in seconds.
#[derive(Clone, Copy, Default)]
struct Cost {
    wall: f64,
    cpu: f64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:10.1} s  {:7.1}", self.wall, self.cpu)
    }
}

/// From power-on to the first packet that the server hears, from there to the question, and on to the disk.
fn goes_on(server: &ServerProcess<'_>, machine: &Machine) -> Result<[Cost; 3]> {
    let name = &machine.spec().name;
    let mac = machine.spec().mac();
    let said_before = server.log().len();
    let begun = Instant::now();
    machine.press(Power::On)?;
    let heard = || {
        let log = server.log();
        Ok(log.get(said_before..).unwrap_or_default().contains(&mac))
    };
    let disk = || {
        ensure!(!machine.is_off()?, "{name} went off");
        Ok(machine.said(1, SMALL_DISK_SAYS))
    };
    let mut before = Cost::default();
    let mut part = |what: &str, reached: &dyn Fn() -> Result<bool>| -> Result<Cost> {
        wait_until(format!("{name}'s {what}"), DISK_LIMIT, reached)
            .with_context(|| console(machine))?;
        let now = Cost {
            wall: begun.elapsed().as_secs_f64(),
            cpu: cpu_seconds(machine)?,
        };
        let cost = Cost {
            wall: now.wall - before.wall,
            cpu: now.cpu - before.cpu,
        };
        before = now;
        Ok(cost)
    };
    let parts = [
        part("first packet", &heard)?,
        part("question", &|| Ok(has_asked(server, machine)))?,
        part("disk", &disk)?,
    ];
    ensure!(machine.said(1, "no active job"), "it was not told why");
    // Else the firmware may have found the disk by itself.
    let helped = machine.said(1, "/boot/disk.efi... ok");
    ensure!(
        helped == (machine.spec().firmware == Firmware::Uefi),
        "not by the server's disk.efi"
    );
    machine.press(Power::Off)?;
    Ok(parts)
}

fn cpu_seconds(machine: &Machine) -> Result<f64> {
    let status = machine.press(Power::Status)?;
    Ok(status.runs.last().context("it never ran")?.cpu_seconds)
}
