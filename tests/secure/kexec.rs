//! A running Linux is replaced by the agent.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use netflash_appliance::Cpio;
use tests::lab::{
    Boot, Bus, Firmware, MachineSpec, Nic, Power, given, inside, last_words, scratch, wait_until,
};

use super::{Desk, FLASH_LIMIT, disk::DISK_BYTES};

/// What the old system says before it runs the script.
const OLD_SYSTEM: &str = "THE OLD SYSTEM RUNS";

/// PID 1 of the old system: BusyBox, and what is needed for one script.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
exec >/dev/console 2>&1 </dev/console
echo THE OLD SYSTEM RUNS
sh /kexec.sh || echo THE SCRIPT FAILED
while :; do sleep 60; done
";

#[test]
#[ignore = "two minutes; run with --ignored"]
fn a_running_linux_becomes_the_agent_and_is_flashed() -> Result<()> {
    inside(
        "kexec::a_running_linux_becomes_the_agent_and_is_flashed",
        || {
            let directory = scratch("secure")?;
            let path = directory.path();
            let desk = Desk::set(path)?;
            let spec = MachineSpec::new(1, Firmware::Bios, Nic::Virtio).disk(
                path,
                Bus::Virtio,
                DISK_BYTES,
            );
            let room = desk.room(vec![spec])?;
            let server = desk.serve(&room, &["lab-1"], "snponly.efi")?;
            let script = path.join("kexec.sh");
            let out = script.to_str().context("a path that is no text")?;
            server.ask(&["appliance", "kexec", "--out", out])?;
            server.flash("signed", &["lab-1"], "auto")?;

            let machine = room.machine("lab-1")?;
            machine.set_boot(Boot::Kernel {
                kernel: given("NETFLASH_APPLIANCE")?.join("vmlinuz"),
                initrd: old_system(path, &script)?,
                append: "console=ttyS0,115200 no_timer_check quiet".to_owned(),
            })?;
            machine.press(Power::On)?;
            wait_until("the old system to run the script", FLASH_LIMIT, || {
                ensure!(!machine.said(1, "THE SCRIPT FAILED"), "the script failed");
                Ok(machine.said(1, "the agent starts now"))
            })
            .with_context(|| last_words(machine, 1))?;
            ensure!(
                machine.said(1, OLD_SYSTEM),
                "there was nothing to be replaced"
            );
            desk.await_flash(&server, machine)
        },
    )
}

/// An initrd with BusyBox, kexec with its libraries, and the script.
fn old_system(directory: &Path, script: &Path) -> Result<PathBuf> {
    let mut archive = Cpio::new();
    let kexec = Path::new("/usr/sbin/kexec");
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("kexec.sh", 0o644, &read(script)?)?;
    archive.file("bin/busybox", 0o755, &read(Path::new("/bin/busybox"))?)?;
    archive.file("sbin/kexec", 0o755, &read(kexec)?)?;
    let libraries = Command::new("ldd").arg(kexec).output()?;
    let libraries = String::from_utf8(libraries.stdout).context("what ldd says")?;
    for library in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let name = library.trim_start_matches('/');
        archive.file(name, 0o755, &read(Path::new(library))?)?;
    }
    let path = directory.join("old-system.img");
    fs::write(&path, archive.finish()).context("writing the old system")?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}: run ./scripts/setup", path.display()))
}
