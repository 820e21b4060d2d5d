//! What `netflash init` prints for DHCP servers of others, judged by those servers.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::{Firmware, given, inside, sh};

use crate::{
    foreign::{Dhcpd, configuration},
    stage::{Stage, arm_and_start, await_agent},
};

/// An interface that is like the server's in a room.
const INTERFACE: &str = "eth0";

/// What `netflash init` answers for a new directory.
fn init(directory: &Path, who: &str) -> Result<Value> {
    let asked = Command::new(given("NETFLASH_BIN")?)
        .arg("--dir")
        .arg(directory)
        .args(["--json", "init", "--iface", INTERFACE, "--dhcp", who])
        .output()
        .context("starting netflash init")?;
    let said = String::from_utf8_lossy(&asked.stderr);
    ensure!(asked.status.success(), "netflash init: {said}");
    Ok(serde_json::from_slice(&asked.stdout)?)
}

fn snippet(directory: &Path, who: &str) -> Result<String> {
    let answer = init(directory, who)?;
    let text = answer["snippet"].as_str();
    Ok(text
        .with_context(|| format!("no snippet in {answer}"))?
        .to_owned())
}

/// The interface that [`init`] is for.
fn furnish() -> Result<()> {
    sh(&format!(
        "ip link add {INTERFACE} type veth peer name far-end"
    ))?;
    sh("ip link set far-end up")?;
    sh(&format!("ip addr add 10.77.0.1/24 brd + dev {INTERFACE}"))?;
    sh(&format!("ip link set {INTERFACE} up"))?;
    Ok(())
}

/// Runs a server's own check of a configuration.
fn accepted(file: &Path, text: &str, command: &mut Command) -> Result<()> {
    fs::write(file, text)?;
    let checked = command
        .arg(file)
        .output()
        .with_context(|| format!("starting {command:?}: run ./scripts/setup"))?;
    let said = String::from_utf8_lossy(&checked.stderr);
    let printed = String::from_utf8_lossy(&checked.stdout);
    ensure!(checked.status.success(), "{command:?}: {said} {printed}");
    Ok(())
}

#[test]
fn foreign_servers_accept_what_is_printed_for_them() -> Result<()> {
    inside(
        "snippets::foreign_servers_accept_what_is_printed_for_them",
        || {
            let scratch = tempfile::tempdir()?;
            let place = |name: &str| scratch.path().join(name);
            furnish()?;

            let isc = configuration("") + &snippet(&place("isc"), "isc")?;
            accepted(
                &place("dhcpd.conf"),
                &isc,
                Command::new("dhcpd").args(["-t", "-cf"]),
            )?;
            // The check finds mistakes: one that nobody could overlook.
            let wrong = isc.replace("next-server", "next-servant");
            let refused = accepted(
                &place("wrong.conf"),
                &wrong,
                Command::new("dhcpd").args(["-t", "-cf"]),
            );
            ensure!(refused.is_err(), "dhcpd accepts anything");

            let kea = format!(
                "{{ \"Dhcp4\": {{ \"interfaces-config\": {{ \"interfaces\": [] }}, \
             \"lease-database\": {{ \"type\": \"memfile\", \"persist\": false }}, \
             \"subnet4\": [ {{ \"subnet\": \"10.77.0.0/24\" }} ],\n{} }} }}\n",
                snippet(&place("kea"), "kea")?
            );
            let check = |file: &str, text: &str| {
                let mut command = Command::new("kea-dhcp4");
                accepted(
                    &place(file),
                    text,
                    command.env("KEA_LOCKFILE_DIR", scratch.path()).arg("-t"),
                )
            };
            check("kea.conf", &kea)?;
            let wrong = kea.replace("substring(", "substrong(");
            ensure!(
                check("kea-wrong.conf", &wrong).is_err(),
                "kea accepts anything"
            );

            let dnsmasq = snippet(&place("dnsmasq"), "dnsmasq")?;
            let check = |file: &str, text: &str| {
                accepted(
                    &place(file),
                    text,
                    Command::new("dnsmasq").args(["--test", "-C"]),
                )
            };
            check("dnsmasq.conf", &dnsmasq)?;
            let wrong = dnsmasq.replace("dhcp-match", "dhcp-mutch");
            ensure!(
                check("dnsmasq-wrong.conf", &wrong).is_err(),
                "dnsmasq accepts anything"
            );
            Ok(())
        },
    )
}

#[test]
fn a_directory_is_made_once_and_never_made_over() -> Result<()> {
    inside(
        "snippets::a_directory_is_made_once_and_never_made_over",
        || {
            let scratch = tempfile::tempdir()?;
            let directory = scratch.path().join("room");
            furnish()?;
            ensure!(
                init(&directory, "proxy")?["written"] == true,
                "nothing was written"
            );
            let file = directory.join("netflash.toml");
            let before = fs::read_to_string(&file)?;
            ensure!(before.contains("mode = \"proxy\""), "{before}");
            ensure!(
                init(&directory, "proxy")?["written"] == false,
                "it was written again"
            );
            let refused = init(&directory, "own");
            ensure!(
                refused.is_err_and(|e| e.to_string().contains("own")),
                "no word of the other mode"
            );
            ensure!(fs::read_to_string(&file)? == before, "the file was changed");
            Ok(())
        },
    )
}

#[test]
#[ignore = "40 seconds more of a machine: scripts/nightly"]
fn by_its_snippet_isc_dhcpd_boots_a_machine_from_our_server() -> Result<()> {
    inside(
        "snippets::by_its_snippet_isc_dhcpd_boots_a_machine_from_our_server",
        || {
            let stage = Stage::set()?;
            let room = stage.room(vec![stage.machine(1, Firmware::Uefi)])?;
            let server = stage.serve(&room, "mode = \"none\"")?;
            // As an operator would, at the server: its interface has the same name and address here.
            let asked = room
                .server_command(given("NETFLASH_BIN")?)
                .arg("--dir")
                .arg(stage.path("printed"))
                .args(["init", "--iface", INTERFACE, "--dhcp", "isc"])
                .output()?;
            let snippet = String::from_utf8_lossy(&asked.stdout).into_owned();
            let dhcpd = Dhcpd::elsewhere(&stage, "", &snippet)?;
            arm_and_start(&server, &room, &["lab-1"])?;
            let machine = room.machine("lab-1")?;
            await_agent(&server, machine)?;
            ensure!(
                dhcpd.said().contains(&machine.spec().mac()),
                "{}",
                dhcpd.said()
            );
            Ok(())
        },
    )
}
