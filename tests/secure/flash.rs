//! Secure Boot from power-on to the flashed disk, and what such firmware refuses.

use anyhow::{Context, Result, ensure};
use tests::lab::{Bus, Firmware, MachineSpec, Nic, Power, inside, last_words, scratch, wait_until};

use super::{
    Desk, FLASH_LIMIT, LOCAL_BOOT_LIMIT,
    disk::{DISK_BYTES, DISK_SAYS},
};

/// How the kernel says that the firmware's word counts.
const KERNEL_SAYS: &str = "locked down from EFI Secure Boot";

fn machine(number: u8, directory: &std::path::Path, bus: Bus) -> MachineSpec {
    MachineSpec::new(number, Firmware::SecureBoot, Nic::Virtio).disk(directory, bus, DISK_BYTES)
}

#[test]
fn two_machines_with_secure_boot_are_flashed_by_one_session_and_boot_what_they_got() -> Result<()> {
    inside(
        "flash::two_machines_with_secure_boot_are_flashed_by_one_session_and_boot_what_they_got",
        || {
            let directory = scratch("secure")?;
            let path = directory.path();
            let desk = Desk::set(path)?;
            let machines = vec![machine(1, path, Bus::Ahci), machine(2, path, Bus::Nvme)];
            let room = desk.room(machines)?;
            let names = ["lab-1", "lab-2"];
            let server = desk.serve(&room, &names, "shimx64.efi")?;

            server.flash("signed", &names, "auto")?;
            server.ask(&["power", "on", "lab-1", "lab-2"])?;
            for name in names {
                let machine = room.machine(name)?;
                desk.await_flash(&server, machine)?;
                ensure!(
                    machine.said(1, KERNEL_SAYS),
                    "the kernel of {name} does not say that Secure Boot is on; {}",
                    last_words(machine, 1)
                );
            }
            let (first, second) = (server.job_of("lab-1")?, server.job_of("lab-2")?);
            ensure!(first.batch == second.batch, "they were flashed one by one");

            let machine = room.machine("lab-1")?;
            server.ask(&["power", "on", "lab-1"])?;
            wait_until("the flashed disk to boot", LOCAL_BOOT_LIMIT, || {
                Ok(machine.said(2, DISK_SAYS))
            })
            .with_context(|| last_words(machine, 2))?;
            ensure!(
                machine.said(2, "netflash: no active job"),
                "it booted without the server's decision"
            );
            println!("{:.0} CPU seconds of QEMU", room.cpu_seconds()?);
            Ok(())
        },
    )
}

#[test]
fn firmware_with_secure_boot_refuses_what_is_not_signed() -> Result<()> {
    inside(
        "flash::firmware_with_secure_boot_refuses_what_is_not_signed",
        || {
            let directory = scratch("secure")?;
            let path = directory.path();
            let desk = Desk::set(path)?;
            let room = desk.room(vec![machine(1, path, Bus::Ahci)])?;
            let server = desk.serve(&room, &["lab-1"], "snponly.efi")?;
            server.flash("signed", &["lab-1"], "auto")?;
            let machine = room.machine("lab-1")?;
            machine.press(Power::On)?;
            wait_until("the firmware to refuse iPXE", FLASH_LIMIT, || {
                Ok(["Access Denied", "Security Violation"]
                    .iter()
                    .any(|words| machine.said(1, words)))
            })
            .with_context(|| last_words(machine, 1))?;
            ensure!(
                server.log().contains("snponly.efi"),
                "the loader was not even fetched"
            );
            ensure!(
                !server.log().contains("boot macs="),
                "what is not signed was started"
            );
            Ok(())
        },
    )
}
