//! Two systems on one disk: one is flashed anew, the other stays, and both start.

use std::{fs, ops::Range, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Boot, Bus, Firmware, First, Machine, Power, TWO_SYSTEMS_BYTES, inside, press_key, two_systems,
    wait_until,
};

use super::{Desk, FLASH_LIMIT, LOCAL_BOOT_LIMIT, given, scratch};

/// Where the partitions lie, in bytes, as `sgdisk` tells it.
fn partition(disk: &Path, number: u32) -> Result<Range<usize>> {
    let told = Command::new("sgdisk")
        .arg(format!("--info={number}"))
        .arg(disk)
        .output()?;
    let told = String::from_utf8(told.stdout)?;
    let sector = |what: &str| -> Result<usize> {
        let line = told.lines().find_map(|line| line.strip_prefix(what));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        Ok(number
            .with_context(|| format!("no {what} in {told}"))?
            .parse()?)
    };
    Ok(sector("First sector:")? * 512..(sector("Last sector:")? + 1) * 512)
}

#[test]
fn one_system_is_flashed_the_other_stays_bit_for_bit_and_both_start() -> Result<()> {
    inside(
        "kept::one_system_is_flashed_the_other_stays_bit_for_bit_and_both_start",
        || {
            let directory = scratch("machines")?;
            let path = directory.path();
            let desk = Desk::set(path)?;
            let kernel = given("NETFLASH_APPLIANCE")?.join("vmlinuz");
            let machine = |number| {
                let mut spec =
                    desk.machine(number, Firmware::Bios)
                        .disk(path, Bus::Virtio, TWO_SYSTEMS_BYTES);
                spec.first = First::Disk;
                spec
            };
            let room = desk.room(vec![machine(1), machine(2)], 1.0)?;
            let server = desk.serve(&room, &["lab-1", "lab-2"])?;

            let raw = path.join("spring.raw");
            two_systems(&raw, &kernel, ["spring-one", "spring-two"])?;
            server.add_image("spring", &desk.seal("spring")?)?;
            let spring = fs::read(&raw)?;
            let disk_of =
                |name| Ok::<_, anyhow::Error>(room.machine(name)?.spec().disks[0].path.clone());
            for name in ["lab-1", "lab-2"] {
                two_systems(&disk_of(name)?, &kernel, ["autumn-one", "autumn-two"])?;
            }
            let read = |name| Ok::<_, anyhow::Error>(fs::read(disk_of(name)?)?);
            let before = [read("lab-1")?, read("lab-2")?];

            for (name, option, number) in [("lab-1", "--keep", "2"), ("lab-2", "--only", "1")] {
                let words = [
                    "job",
                    "flash",
                    "spring",
                    "--machines",
                    name,
                    option,
                    number,
                    "--yes",
                ];
                server.ask(&words)?;
                desk.start_directly(&room, name)?;
            }
            for name in ["lab-1", "lab-2"] {
                let machine = room.machine(name)?;
                wait_until(format!("{name} to be flashed"), FLASH_LIMIT, || {
                    let job = server.job_of(name)?;
                    ensure!(!job.has_failed(), "{name}: {}", job.reason);
                    machine.is_off()
                })?;
                ensure!(server.job_of(name)?.is_done(), "{name} is off and not done");
            }

            let (one, two, core) = (
                partition(&raw, 1)?,
                partition(&raw, 2)?,
                partition(&raw, 3)?,
            );
            for (name, before) in ["lab-1", "lab-2"].into_iter().zip(before) {
                let after = read(name)?;
                ensure!(
                    after[two.clone()] == before[two.clone()],
                    "{name}: partition 2 changed"
                );
                ensure!(
                    after[440..17_408] == before[440..17_408],
                    "{name}: the table changed"
                );
                let behind = after.len() - 33 * 512..after.len();
                ensure!(
                    after[behind.clone()] == before[behind],
                    "{name}: the backup table changed"
                );
                assert_system(&after[one.clone()], &spring[one.clone()], path)?;
                ensure!(
                    after[core.clone()] == spring[core.clone()],
                    "{name}: GRUB is not whole"
                );
            }

            let machine = room.machine("lab-1")?;
            machine.set_boot(Boot::Network)?;
            assert_starts(machine, 2, "1", "spring-one login:")?;
            assert_starts(machine, 3, "2", "autumn-two login:")
        },
    )
}

/// Partition 1 holds the files of the image: what is not free is equal, and the file system is clean.
fn assert_system(found: &[u8], image: &[u8], directory: &Path) -> Result<()> {
    let path = directory.join("one.ext4");
    fs::write(&path, found)?;
    let checked = Command::new("e2fsck").args(["-fn"]).arg(&path).output()?;
    let said = String::from_utf8_lossy(&checked.stdout);
    ensure!(checked.status.success(), "e2fsck: {said}");
    let listing = |bytes: &[u8]| -> Result<String> {
        fs::write(&path, bytes)?;
        let script = "for f in /boot/vmlinuz /boot/initrd.img /boot/grub/grub.cfg; do \
                      debugfs -R \"cat $f\" \"$0\" 2>/dev/null | sha256sum; done";
        let listed = Command::new("sh")
            .args(["-c", script])
            .arg(&path)
            .output()?;
        Ok(String::from_utf8(listed.stdout)?)
    };
    let (found, wanted) = (listing(found)?, listing(image)?);
    ensure!(
        found == wanted,
        "files of partition 1: {found}, not {wanted}"
    );
    Ok(())
}

/// Switches the machine on and presses `key` in the boot menu until the system asks for a login.
fn assert_starts(machine: &Machine, run: u32, key: &str, prompt: &str) -> Result<()> {
    machine.press(Power::On)?;
    let limit = FLASH_LIMIT + LOCAL_BOOT_LIMIT;
    wait_until(format!("{prompt:?} on the console"), limit, || {
        // Before the menu is there a key means nothing, and while the system starts nobody listens.
        if !machine.said(run, "starting system") {
            // QEMU may not listen yet.
            let _ = press_key(machine, key);
        }
        Ok(machine.said(run, prompt))
    })
    .with_context(|| {
        let serial = machine.serial(run);
        let tail: Vec<&str> = serial.lines().rev().take(12).collect();
        format!("its console, last line first: {tail:#?}")
    })?;
    machine.press(Power::Off)?;
    Ok(())
}
