//! A QEMU machine behind each kind of controller: from the network once, and from its disk after that.

use std::sync::Arc;

use anyhow::{Result, ensure};
use tests::bmc::{Board, IpmiSim};
use tests::lab::{Machine, inside, sh};

use crate::amt::AmtDevice;
use crate::controller::Controller;
use crate::desk::lab;
use crate::service::{OwnCertificate, Service};
use crate::stage::{Player, Stage};
use crate::vendor::VENDORS;

#[test]
fn by_ipmi_a_machine_boots_the_network_once_and_then_its_disk() -> Result<()> {
    inside(
        "netboot::by_ipmi_a_machine_boots_the_network_once_and_then_its_disk",
        || {
            let stage = Stage::set("[power.bmc]\ndriver = \"ipmi\"\nfirmware = \"bios\"\n")?;
            let room = stage.room()?;
            let machine = room.machine("lab-1")?;
            let place = stage.place();
            let within = || room.server_command("env");
            let mut controller = IpmiSim::start(&place, lab(), within())?;
            controller.await_answer(within)?;
            let server = stage.serve(&room)?;
            let power = format!("bmc:127.0.0.1:{}", controller.port());
            stage.login(&server, "bmc", IpmiSim::USER, IpmiSim::PASSWORD)?;
            let player = Player::enter(&server, machine, &[&power])?;
            boots_the_network_once(&player, machine)
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
            let place = stage.place();
            let controller = Controller::new(VENDORS[0], Board::at(&place), "Legacy");
            let certificate = OwnCertificate::make(&place)?;
            let service = Service::start("10.77.0.2", Some(&certificate), Arc::new(controller))?;
            let server = stage.serve(&room)?;
            let power = format!("bmc:{}", service.address);
            stage.login(&server, "bmc", Controller::USER, Controller::PASSWORD)?;
            let player = Player::enter(&server, machine, &[&power])?;
            server.ask(&["power", "trust", "lab-1", "--yes"])?;
            boots_the_network_once(&player, machine)
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
            let place = stage.place();
            let device = AmtDevice::start("10.77.0.2", &place, &["console"])?;
            let server = stage.serve(&room)?;
            let power = device.power().replace("desk:", "bmc:");
            stage.login(&server, "bmc", AmtDevice::USER, AmtDevice::PASSWORD)?;
            let player = Player::enter(&server, machine, &[&power])?;
            boots_the_network_once(&player, machine)
        },
    )
}

/// On with a network boot, a reset without one, a cycle with one, and off.
fn boots_the_network_once(player: &Player<'_>, machine: &Machine) -> Result<()> {
    ensure!(
        player.power(&["status"])?["state"] == "off",
        "it is off at first"
    );
    let on = player.starts_from_the_network("on")?;
    ensure!(on["state"] == "on", "{on}");
    let after_network = player.questions();
    player.boots_its_disk(1)?;

    player.power(&["reset"])?;
    player.boots_its_disk(2)?;
    ensure!(
        player.questions() == after_network,
        "it asked the server at its second boot too"
    );
    ensure!(
        !machine.said(2, "Configuring"),
        "it went by the network at its second boot"
    );

    player.starts_from_the_network("cycle")?;
    ensure!(player.power(&["off"])?["state"] == "off", "off at the end");
    Ok(())
}
