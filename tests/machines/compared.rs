//! Disks that are compared before anything is sent: what is equal stays untouched.

use std::{fs, os::unix::fs::FileExt, process::Command, time::SystemTime};

use anyhow::{Context, Result, ensure};
use tests::lab::{Bus, Firmware, JobView, Machine, Power, inside, wait_until};

use super::{Desk, FLASH_LIMIT, MIB, given, hash, scratch};

/// Beyond it the small disk has partition 2 only, and nothing but files: what is not zero there belongs to one.
const FILES_START: u64 = 20 * MIB;

#[test]
fn an_equal_disk_is_left_alone_and_a_changed_one_is_named_and_flashed() -> Result<()> {
    inside(
        "compared::an_equal_disk_is_left_alone_and_a_changed_one_is_named_and_flashed",
        || {
            let directory = scratch("machines")?;
            let desk = Desk::set(directory.path())?;
            let spec = |number, bus| {
                let machine = desk.machine(number, Firmware::Bios);
                machine.disk(directory.path(), bus, 80 * MIB)
            };
            let room = desk.room(vec![spec(1, Bus::Virtio), spec(2, Bus::Ahci)], 0.0)?;
            let names = ["lab-1", "lab-2"];
            let server = desk.serve(&room, &names)?;
            let (equal, changed) = (room.machine("lab-1")?, room.machine("lab-2")?);
            for machine in [equal, changed] {
                let written = Command::new(given("NETFLASH_BIN")?)
                    .args(["image", "extract", "--yes"])
                    .arg(directory.path().join("small.img.zst"))
                    .arg(&machine.spec().disks[0].path)
                    .status()?;
                ensure!(written.success(), "netflash image extract: {written}");
            }
            flip(changed)?;
            let before = [seen(equal)?, seen(changed)?];

            let both = names.join(",");
            let words = ["job", "verify", "small", "--machines", &both];
            server.ask(&[&words[..], &["--then", "wait"]].concat())?;
            for name in names {
                desk.start_directly(&room, name)?;
            }
            let ended = |name: &str| {
                wait_until(format!("{name} to be compared"), FLASH_LIMIT, || {
                    let job = server.job_of(name)?;
                    ensure!(!job.has_failed(), "{name}: {}", job.reason);
                    Ok(job.is_done() || job.state == "differs")
                })?;
                server.job_of(name)
            };
            let job = ended("lab-1")?;
            ensure!(job.is_done() && found(&job)?.equal, "{job:?}");
            let job = ended("lab-2")?;
            ensure!(job.state == "differs", "{job:?}");
            let differs = found(&job)?;
            let numbers: Vec<_> = differs.places.iter().map(|place| place.partition).collect();
            ensure!(
                numbers == [Some(2)] && differs.differing_frames == 1,
                "{differs:?}"
            );
            ensure!(job.reason.contains("partition 2 (ext4)"), "{}", job.reason);
            ensure!(
                before == [seen(equal)?, seen(changed)?],
                "a disk was written to"
            );

            // Both agents are still there and ask for the next job.
            let words = ["job", "flash", "small", "--machines", &both, "--yes"];
            server.ask(&[&words[..], &["--if-different"]].concat())?;
            desk.await_flash(&server, changed)?;
            let report = server.job_of("lab-2")?.report.context("no report")?;
            ensure!(report.written_frames == 1, "{report:?}");
            wait_until("lab-1 to be done", FLASH_LIMIT, || equal.is_off())?;
            let job = server.job_of("lab-1")?;
            ensure!(job.is_done() && job.report.is_none(), "{job:?}");
            ensure!(job.reason.contains("nothing was written"), "{}", job.reason);
            ensure!(seen(equal)? == before[0], "the equal disk was written to");
            equal.press(Power::Off)?;
            Ok(())
        },
    )
}

/// What a disk holds, and when it was written last.
fn seen(machine: &Machine) -> Result<(blake3::Hash, SystemTime)> {
    let written = fs::metadata(&machine.spec().disks[0].path)?.modified()?;
    Ok((hash(machine)?, written))
}

fn flip(machine: &Machine) -> Result<()> {
    let path = &machine.spec().disks[0].path;
    let disk = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    let mut place = FILES_START;
    while byte == [0] {
        place += 4096;
        disk.read_exact_at(&mut byte, place)
            .context("looking for a file's byte")?;
    }
    disk.write_all_at(&[!byte[0]], place)
        .context("changing a byte")
}

fn found(job: &JobView) -> Result<&tests::lab::ComparedView> {
    job.compared.as_ref().context("nothing is told of the disk")
}
