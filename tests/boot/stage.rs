//! What the tests share: a room, a server in it, an image that can be flashed, and how to see where a machine is.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Bus, Firmware, Machine, MachineSpec, Nic, Power, Programs, Room, SMALL_DISK_BYTES,
    ServerOptions, ServerProcess, given, scratch, small_disk, wait_until,
};

/// From power-on to the agent's hello, on an idle machine.
pub(crate) const AGENT_LIMIT: Duration = Duration::from_secs(240);

/// The name of the image.
pub(crate) const IMAGE: &str = "small";

/// A directory with a small image, and where the programs are.
pub(crate) struct Stage {
    scratch: tempfile::TempDir,
    programs: Programs,
}

impl Stage {
    /// Makes it.
    pub(crate) fn set() -> Result<Stage> {
        let scratch = scratch("boot")?;
        let stage = Stage {
            scratch,
            programs: Programs::new(given("NETFLASH_BIN")?, given("NETFLASH_APPLIANCE")?, lab()),
        };
        let (raw, image) = (stage.path("small.raw"), stage.image());
        small_disk(&raw)?;
        let sealed = Command::new(given("NETFLASH_BIN")?)
            .args(["image", "create"])
            .args([&raw, &image])
            .output()
            .context("starting netflash image create")?;
        let said = String::from_utf8_lossy(&sealed.stderr);
        ensure!(sealed.status.success(), "netflash image create: {said}");
        Ok(stage)
    }

    /// A file of the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("small.img.zst")
    }

    /// A machine with a blank disk.
    pub(crate) fn machine(&self, number: u8, firmware: Firmware) -> MachineSpec {
        MachineSpec::new(number, firmware, Nic::Virtio).disk(
            self.scratch.path(),
            Bus::Virtio,
            SMALL_DISK_BYTES,
        )
    }

    /// A room with these machines.
    pub(crate) fn room(&self, machines: Vec<MachineSpec>) -> Result<Room> {
        Room::build(self.scratch.path(), &lab(), machines, 0.0)
    }

    /// A server with these settings in `[dhcp]` that knows all machines of the room and has the image.
    pub(crate) fn serve<'room>(
        &self,
        room: &'room Room,
        dhcp: &str,
    ) -> Result<ServerProcess<'room>> {
        let options = ServerOptions {
            dhcp: dhcp.to_owned(),
            ..ServerOptions::default()
        };
        self.serve_with(room, &options)
    }

    /// The same, with these options.
    pub(crate) fn serve_with<'room>(
        &self,
        room: &'room Room,
        options: &ServerOptions,
    ) -> Result<ServerProcess<'room>> {
        let server = ServerProcess::start(room, &self.programs, options)?;
        server.add_image(IMAGE, &self.image())?;
        for machine in room.machines() {
            server.add_machine(machine)?;
        }
        Ok(server)
    }
}

fn lab() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_lab"))
}

/// Gives each of these machines a job and switches it on.
pub(crate) fn arm_and_start(server: &ServerProcess<'_>, room: &Room, names: &[&str]) -> Result<()> {
    server.flash(IMAGE, names, "auto")?;
    for name in names {
        room.machine(name)?.press(Power::On)?;
    }
    Ok(())
}

/// Waits until a machine asked what it boots, from its own address, and its agent said hello.
pub(crate) fn await_agent(server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
    let name = &machine.spec().name;
    wait_until(format!("{name} to ask what it boots"), AGENT_LIMIT, || {
        ensure!(!machine.is_off()?, "{name} went off");
        Ok(has_asked(server, machine))
    })
    .with_context(|| console(machine))?;
    wait_until(format!("the agent of {name}"), AGENT_LIMIT, || {
        Ok(has_said_hello(server, machine))
    })
    .with_context(|| console(machine))
}

/// Whether the server's log has this machine's question, by its hardware address.
pub(crate) fn has_asked(server: &ServerProcess<'_>, machine: &Machine) -> bool {
    let mac = machine.spec().mac();
    let asked = |line: &str| line.contains("boot macs=") && line.contains(&mac);
    server.log().lines().any(asked)
}

/// Whether the server's log has the hello of this machine's agent.
pub(crate) fn has_said_hello(server: &ServerProcess<'_>, machine: &Machine) -> bool {
    let agent = format!("agent machine={} ", machine.spec().name);
    let hello = |line: &str| line.contains(&agent) && line.contains("state=hello");
    server.log().lines().any(hello)
}

/// The end of what a machine wrote, for an error.
pub(crate) fn console(machine: &Machine) -> String {
    let serial = machine.serial(machine.run_count().unwrap_or(1));
    let tail: Vec<&str> = serial.lines().rev().take(20).collect();
    format!("its console, last line first: {tail:#?}")
}

/// What a program wrote into a file of its own.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
