//! What the tests share: a small image, the programs, a server that lends no addresses.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Bus, Firmware, GuestDisk, Machine, MachineSpec, Nic, Power, Programs, Room, ServerOptions,
    ServerProcess, await_flash, direct_boot, given, scratch, small_disk,
};

/// From the first datagram to the agent's reboot, on an idle machine.
const FLASH_LIMIT: Duration = Duration::from_secs(360);

/// Larger than the small image.
const DISK_BYTES: u64 = 80 << 20;

/// A desk with a small image; its files stay when somebody wants to see why a test fails.
pub(crate) struct Desk {
    directory: tempfile::TempDir,
    programs: Programs,
    image: PathBuf,
    disk: GuestDisk,
    options: ServerOptions,
}

impl Desk {
    /// A desk whose server sends this many bits per second.
    pub(crate) fn set(rate_bits: u64) -> Result<Desk> {
        let directory = scratch("network")?;
        let netflash = given("NETFLASH_BIN")?;
        let raw = directory.path().join("small.raw");
        let image = directory.path().join("small.img.zst");
        small_disk(&raw)?;
        let sealed = Command::new(&netflash)
            .args(["image", "create"])
            .args([&raw, &image])
            .status()
            .context("starting netflash image create")?;
        ensure!(sealed.success(), "netflash image create: {sealed}");
        Ok(Desk {
            programs: Programs::new(netflash, given("NETFLASH_APPLIANCE")?, lab()),
            image,
            disk: GuestDisk::open(&raw)?,
            directory,
            options: ServerOptions {
                rate_bits,
                lends: false,
                ..ServerOptions::default()
            },
        })
    }

    /// The same desk, with a server that agents reach at this IPv6 address only, and that sends by IPv6.
    pub(crate) fn by_ipv6(mut self, address: &str) -> Desk {
        self.options.kernel = format!("netflash.server=[{address}]:8443");
        self.options.listen = "https = \"[::]:8443\"\nhttp = \"[::]:8080\"".to_owned();
        self.options.multicast = "group = \"[ff15::efc0:4e46]:9078\"".to_owned();
        self
    }

    /// Where the test's files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A machine with a blank disk.
    pub(crate) fn machine(&self, number: u8) -> MachineSpec {
        MachineSpec::new(number, Firmware::Bios, Nic::Virtio).disk(
            self.directory(),
            Bus::Virtio,
            DISK_BYTES,
        )
    }

    pub(crate) fn room(&self, machines: Vec<MachineSpec>) -> Result<Room> {
        Room::build(self.directory(), &lab(), machines, 0.0)
    }

    /// A server that has the small image and knows these machines.
    pub(crate) fn serve<'room>(
        &self,
        room: &'room Room,
        known: &[&str],
    ) -> Result<ServerProcess<'room>> {
        let server = self.serve_again(room)?;
        server.add_image("small", &self.image)?;
        for name in known {
            server.add_machine(room.machine(name)?)?;
        }
        Ok(server)
    }

    /// The server, started where it was before.
    pub(crate) fn serve_again<'room>(&self, room: &'room Room) -> Result<ServerProcess<'room>> {
        ServerProcess::start(room, &self.programs, &self.options)
    }

    /// Spares the machine its firmware and switches it on.
    pub(crate) fn start(&self, room: &Room, machine: &Machine) -> Result<()> {
        machine.set_boot(direct_boot(room, machine)?)?;
        machine.press(Power::On)?;
        Ok(())
    }

    /// Waits for the agent's reboot, which ends QEMU, and compares the disk.
    pub(crate) fn await_flash(&self, server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
        await_flash(server, machine, FLASH_LIMIT)?;
        self.disk.compare(&machine.spec().disks[0].path)
    }
}

fn lab() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lab"))
}
