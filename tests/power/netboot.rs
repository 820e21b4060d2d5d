//! A QEMU machine behind each kind of controller: from the network once, and from its disk after that.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::bmc::{Board, IpmiSim};
use tests::lab::{
    Bus, Firmware, Machine, MachineSpec, Nic, Programs, Room, SMALL_DISK_BYTES, SMALL_DISK_SAYS,
    ServerOptions, ServerProcess, inside, sh, small_disk, wait_until,
};

use crate::amt::AmtDevice;
use crate::controller::Controller;
use crate::desk::{lab, netflash};
use crate::service::{OwnCertificate, Service};
use crate::vendor::VENDORS;

/// From power-on to the words of the local disk.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// From power-on to the machine's question, as the command line is told; a busy desk is slow.
const SEEN_SECONDS: &str = "900";

#[test]
fn by_ipmi_a_machine_boots_the_network_once_and_then_its_disk() -> Result<()> {
    inside(
        "netboot::by_ipmi_a_machine_boots_the_network_once_and_then_its_disk",
        || {
            let stage = Stage::set("[power.bmc]\ndriver = \"ipmi\"\nfirmware = \"bios\"\n")?;
            let room = stage.room()?;
            let machine = room.machine("lab-1")?;
            let place = stage.scratch.path().join("lab-1");
            let within = || room.server_command("env");
            let mut controller = IpmiSim::start(&place, lab(), within())?;
            controller.await_answer(within)?;
            let server = stage.serve(&room)?;
            let power = format!("bmc:127.0.0.1:{}", controller.port());
            stage.enter(&server, machine, &power, IpmiSim::USER, IpmiSim::PASSWORD)?;
            boots_the_network_once(&server, machine)
        },
    )
}

#[test]
fn by_redfish_a_machine_boots_the_network_once_and_then_its_disk() -> Result<()> {
    inside(
        "netboot::by_redfish_a_machine_boots_the_network_once_and_then_its_disk",
        || {
            let stage = Stage::set("[power.bmc]\ndriver = \"redfish\"\nfirmware = \"bios\"\n")?;
            let room = stage.room()?;
            let machine = room.machine("lab-1")?;
            // The controller's own place on the room's network.
            sh("ip addr add 10.77.0.2/24 dev br0")?;
            let place = stage.scratch.path().join("lab-1");
            let controller = Controller::new(VENDORS[0], Board::at(&place), "Legacy");
            let certificate = OwnCertificate::make(&place)?;
            let service = Service::start("10.77.0.2", Some(&certificate), Arc::new(controller))?;
            let server = stage.serve(&room)?;
            let power = format!("bmc:{}", service.address);
            stage.enter(
                &server,
                machine,
                &power,
                Controller::USER,
                Controller::PASSWORD,
            )?;
            server.ask(&["power", "trust", "lab-1", "--yes"])?;
            boots_the_network_once(&server, machine)
        },
    )
}

#[test]
fn by_amt_a_machine_boots_the_network_once_and_then_its_disk() -> Result<()> {
    inside(
        "netboot::by_amt_a_machine_boots_the_network_once_and_then_its_disk",
        || {
            let stage = Stage::set("[power.bmc]\ndriver = \"amt\"\ntls = false\n")?;
            let room = stage.room()?;
            let machine = room.machine("lab-1")?;
            sh("ip addr add 10.77.0.2/24 dev br0")?;
            let place = stage.scratch.path().join("lab-1");
            let device = AmtDevice::start("10.77.0.2", &place, &["console"])?;
            let server = stage.serve(&room)?;
            let power = device.power().replace("desk:", "bmc:");
            stage.enter(
                &server,
                machine,
                &power,
                AmtDevice::USER,
                AmtDevice::PASSWORD,
            )?;
            boots_the_network_once(&server, machine)
        },
    )
}

/// A room with one machine and a server that knows it.
struct Stage {
    scratch: tempfile::TempDir,
    profiles: &'static str,
}

impl Stage {
    fn set(profiles: &'static str) -> Result<Stage> {
        let scratch = tempfile::tempdir()?;
        Ok(Stage { scratch, profiles })
    }

    fn room(&self) -> Result<Room> {
        let directory = self.scratch.path();
        let spec = MachineSpec::new(1, Firmware::Bios, Nic::Virtio).disk(
            directory,
            Bus::Virtio,
            SMALL_DISK_BYTES,
        );
        small_disk(&spec.disks[0].path)?;
        Room::build(directory, lab(), vec![spec], 0.0)
    }

    fn serve<'room>(&self, room: &'room Room) -> Result<ServerProcess<'room>> {
        let appliance = std::env::var_os("NETFLASH_APPLIANCE")
            .context("NETFLASH_APPLIANCE is not set: run ./scripts/test")?;
        let programs = Programs::new(netflash()?, PathBuf::from(appliance), lab().to_owned());
        let options = ServerOptions {
            more: self.profiles.to_owned(),
            ..ServerOptions::default()
        };
        ServerProcess::start(room, &programs, &options)
    }

    fn enter(
        &self,
        server: &ServerProcess<'_>,
        machine: &Machine,
        power: &str,
        user: &str,
        password: &str,
    ) -> Result<()> {
        let file = self.scratch.path().join("password");
        fs::write(&file, password)?;
        let file = file.to_str().context("the path is no text")?;
        let login = [
            "power",
            "login",
            "bmc",
            "--user",
            user,
            "--password-file",
            file,
        ];
        server.ask(&login)?;
        let (name, mac) = (&machine.spec().name, machine.spec().mac());
        server.ask(&["machine", "add", name, "--mac", &mac, "--power", power])?;
        Ok(())
    }
}

/// On with a network boot, a reset without one, a cycle with one, and off.
fn boots_the_network_once(server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
    let name = machine.spec().name.as_str();
    let power = |words: &[&str]| -> Result<Value> {
        let outcomes = server.ask(&[&["power"], words].concat())?;
        Ok(outcomes[0].clone())
    };
    let disk_boots = |run: u32| {
        wait_until(format!("run {run} to boot the disk"), BOOT_LIMIT, || {
            Ok(machine.said(run, SMALL_DISK_SAYS))
        })
    };
    let questions = || {
        let mac = machine.spec().mac();
        let log = server.log();
        let asked = |line: &&str| line.contains("boot macs=") && line.contains(&mac);
        log.lines().filter(asked).count()
    };
    ensure!(
        power(&["status", name])?["state"] == "off",
        "it is off at first"
    );

    let on = power(&["on", name, "--netboot", "--within", SEEN_SECONDS])?;
    ensure!(on["state"] == "on" && on["seen_seconds"].is_f64(), "{on}");
    let after_network = questions();
    ensure!(
        after_network > 0,
        "the server's log has no question of {name}"
    );
    disk_boots(1)?;

    power(&["reset", name])?;
    disk_boots(2)?;
    ensure!(
        questions() == after_network,
        "it asked the server at its second boot too"
    );
    ensure!(
        !machine.said(2, "Configuring"),
        "it went by the network at its second boot"
    );

    let cycle = power(&["cycle", name, "--netboot", "--within", SEEN_SECONDS])?;
    ensure!(cycle["seen_seconds"].is_f64(), "{cycle}");
    ensure!(
        questions() > after_network,
        "a second boot from the network"
    );

    ensure!(power(&["off", name])?["state"] == "off", "off at the end");
    println!(
        "seen after {} and {} s",
        on["seen_seconds"], cycle["seen_seconds"]
    );
    Ok(())
}
