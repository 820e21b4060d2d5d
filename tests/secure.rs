//! Machines whose firmware starts nothing but what is signed, and machines that cannot boot over the network at all.
//!
//! Each test has a world of its own and fails, never skips, without root or without the programs that
//! `./scripts/test` makes. The appliance is one with signed loaders: `netflash appliance build --secure-boot`.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    GuestDisk, Machine, MachineSpec, Programs, Room, ServerOptions, ServerProcess, await_flash,
    given,
};

#[path = "secure/disk.rs"]
mod disk;
#[path = "secure/flash.rs"]
mod flash;
#[path = "secure/kexec.rs"]
mod kexec;
#[path = "secure/media.rs"]
mod media;

/// From power-on to the agent's reboot, on an idle machine.
const FLASH_LIMIT: Duration = Duration::from_secs(300);

/// From power-on to the words of the local disk.
const LOCAL_BOOT_LIMIT: Duration = Duration::from_secs(180);

/// What the tests share: a disk whose own boot chain is signed, its image, and where the programs are.
struct Desk {
    directory: PathBuf,
    programs: Programs,
    guest: GuestDisk,
}

impl Desk {
    fn set(directory: &Path) -> Result<Desk> {
        let appliance = given("NETFLASH_APPLIANCE")?;
        let raw = directory.join("signed.raw");
        disk::signed_disk(&raw, &appliance)?;
        let sealed = Command::new(given("NETFLASH_BIN")?)
            .args(["image", "create"])
            .arg(&raw)
            .arg(directory.join("signed.img.zst"))
            .status()
            .context("starting netflash image create")?;
        ensure!(sealed.success(), "netflash image create: {sealed}");
        let lab = PathBuf::from(env!("CARGO_BIN_EXE_lab"));
        Ok(Desk {
            directory: directory.to_owned(),
            programs: Programs::new(given("NETFLASH_BIN")?, appliance, lab),
            guest: GuestDisk::open(&raw)?,
        })
    }

    fn room(&self, machines: Vec<MachineSpec>) -> Result<Room> {
        let lab = Path::new(env!("CARGO_BIN_EXE_lab"));
        Room::build(&self.directory, lab, machines, 0.0)
    }

    /// A server that has the image, knows these machines, and hands UEFI machines this loader.
    fn serve<'room>(
        &self,
        room: &'room Room,
        known: &[&str],
        uefi_loader: &str,
    ) -> Result<ServerProcess<'room>> {
        let options = ServerOptions {
            // The kernel says that it is locked down as a notice, which quiet would hide.
            kernel: "loglevel=6".to_owned(),
            dhcp: format!(
                "{}\nuefi_loader = {uefi_loader:?}",
                ServerOptions::default().dhcp
            ),
            ..ServerOptions::default()
        };
        let server = ServerProcess::start(room, &self.programs, &options)?;
        server.add_image("signed", &self.directory.join("signed.img.zst"))?;
        for name in known {
            server.add_machine(room.machine(name)?)?;
        }
        Ok(server)
    }

    /// Waits for the agent's reboot, which ends QEMU, and compares the disk.
    fn await_flash(&self, server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
        await_flash(server, machine, FLASH_LIMIT)?;
        self.guest.compare(&machine.spec().disks[0].path)
    }
}
