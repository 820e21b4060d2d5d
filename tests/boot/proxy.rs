//! Beside the DHCP server of somebody else: our server adds the boot file, and nothing else.

use std::{
    fs,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use tests::lab::{Firmware, MachineSpec, Netboot, Power, inside, sh};

use crate::{
    capture::{Sent, naming},
    foreign::{Dhcpd, dnsmasq_in, host, lease, mac_of},
    stage::{Stage, arm_and_start, await_agent},
};

/// A machine that is up, in the room's network.
const NEIGHBOUR: &str = "neighbour";

#[test]
fn beside_a_foreign_server_every_kind_of_machine_boots_and_nobody_else_is_touched() -> Result<()> {
    inside(
        "proxy::beside_a_foreign_server_every_kind_of_machine_boots_and_nobody_else_is_touched",
        || {
            let stage = Stage::set()?;
            let mut by_http = stage.machine(3, Firmware::Uefi);
            by_http.netboot = Netboot::Http;
            let machines = vec![
                stage.machine(1, Firmware::Bios),
                stage.machine(2, Firmware::Uefi),
                by_http,
            ];
            let room = stage.room(machines)?;
            let dhcpd = Dhcpd::elsewhere(&stage, "", "")?;
            host(NEIGHBOUR, None)?;
            let neighbour = mac_of(NEIGHBOUR)?;
            let before = lease(NEIGHBOUR)?;

            let sent = Sent::record(&stage, &room)?;
            let server = stage.serve(&room, "mode = \"proxy\"\nhttp_boot = true")?;
            arm_and_start(&server, &room, &["lab-1", "lab-2", "lab-3"])?;
            let during = lease(NEIGHBOUR)?;
            for machine in room.machines() {
                await_agent(&server, machine)?;
                let mac = machine.spec().mac();
                ensure!(
                    dhcpd
                        .said()
                        .lines()
                        .any(|line| line.contains("DHCPACK on") && line.contains(&mac)),
                    "{mac} has its address from somebody else: {}",
                    dhcpd.said()
                );
                machine.press(Power::Off)?;
            }
            let after = lease(NEIGHBOUR)?;
            ensure!(
                before == during && during == after && after.contains("from 10.77.0.2"),
                "the neighbour was told {before:?}, {during:?}, {after:?}"
            );

            let packets = sent.packets()?;
            let to_neighbour = naming(&packets, &neighbour)?;
            ensure!(
                to_neighbour.is_empty(),
                "our server sent to it: {to_neighbour:02x?}"
            );
            for machine in room.machines() {
                let mac = machine.spec().mac();
                ensure!(
                    !naming(&packets, &mac)?.is_empty(),
                    "the capture misses {mac}"
                );
            }
            let log = server.log();
            for file in [
                "undionly.kpxe",
                "snponly.efi",
                "http://10.77.0.1:8080/boot/snponly.efi",
                "http://10.77.0.1:8080/boot/start.ipxe",
            ] {
                let file = &format!("file={file}");
                let told = |line: &str| line.contains("proxy mac=") && line.ends_with(file);
                // A card's ROM that is iPXE already is not told to load it.
                let expected = !file.contains("undionly.kpxe");
                ensure!(log.lines().any(told) == expected, "{file}: {log}");
            }
            Ok(())
        },
    )
}

/// GRUB does not hear what a proxy says: the other server names ours.
#[test]
#[ignore = "a minute more of a machine: scripts/nightly"]
fn beside_a_foreign_server_a_machine_with_secure_boot_boots_by_shim() -> Result<()> {
    inside(
        "proxy::beside_a_foreign_server_a_machine_with_secure_boot_boots_by_shim",
        || {
            let stage = Stage::set()?;
            let room = stage.room(vec![stage.machine(1, Firmware::SecureBoot)])?;
            let _dhcpd = Dhcpd::elsewhere(&stage, "  next-server 10.77.0.1;\n", "")?;
            let settings = "mode = \"proxy\"\nuefi_loader = \"shimx64.efi\"";
            let server = stage.serve(&room, settings)?;
            arm_and_start(&server, &room, &["lab-1"])?;
            await_agent(&server, room.machine("lab-1")?)
        },
    )
}

#[test]
#[ignore = "40 seconds more of a machine: scripts/nightly"]
fn on_the_host_of_a_foreign_server_a_machine_boots_all_the_same() -> Result<()> {
    inside(
        "proxy::on_the_host_of_a_foreign_server_a_machine_boots_all_the_same",
        || {
            let stage = Stage::set()?;
            let machine: MachineSpec = stage.machine(1, Firmware::Uefi);
            let room = stage.room(vec![machine])?;
            // Ours first: the other one still gets its port.
            let server = stage.serve(&room, "mode = \"proxy\"")?;
            let dhcpd = Dhcpd::start(&stage, "server", "", "")?;
            host(NEIGHBOUR, None)?;
            arm_and_start(&server, &room, &["lab-1"])?;
            await_agent(&server, room.machine("lab-1")?)?;
            ensure!(
                dhcpd.said().contains("52:54:00:77:00:01"),
                "{}",
                dhcpd.said()
            );
            let lease = lease(NEIGHBOUR)?;
            ensure!(lease.contains("from 10.77.0.1"), "{lease}");
            Ok(())
        },
    )
}

#[test]
#[ignore = "40 seconds more of a machine: scripts/nightly"]
fn behind_a_router_a_machine_boots_through_the_relay() -> Result<()> {
    inside(
        "proxy::behind_a_router_a_machine_boots_through_the_relay",
        || {
            let stage = Stage::set()?;
            let room = stage.room(vec![stage.machine(1, Firmware::Uefi)])?;
            let machine = room.machine("lab-1")?;
            let _router = Router::build(&stage, &machine.spec().tap())?;
            let far = "subnet 10.79.0.0 netmask 255.255.255.0 {\n  \
                       range 10.79.0.160 10.79.0.200;\n  option routers 10.79.0.1;\n}\n";
            let dhcpd = Dhcpd::elsewhere(&stage, "", far)?;
            for host in ["foreign", "server"] {
                sh(&format!(
                    "ip -n {host} route add 10.79.0.0/24 via 10.77.0.9"
                ))?;
            }
            let server = stage.serve(&room, "mode = \"proxy\"")?;
            arm_and_start(&server, &room, &["lab-1"])?;
            await_agent(&server, machine)?;
            ensure!(
                dhcpd.said().contains("via 10.79.0.1"),
                "it came by no relay: {}",
                dhcpd.said()
            );
            Ok(())
        },
    )
}

/// A router with a relay between the room's network and one behind it, 10.79.0.0/24.
struct Router {
    relay: Child,
}

impl Router {
    /// Builds it, and moves a machine's port behind it.
    fn build(stage: &Stage, tap: &str) -> Result<Router> {
        host("router", Some("10.77.0.9/24"))?;
        for line in [
            "ip link add br1 type bridge stp_state 0 forward_delay 0",
            "ip link set br1 up",
            "ip link add p-far type veth peer name eth1 netns router",
            "ip link set p-far master br1 up",
            "ip -n router link set eth1 up",
            "ip -n router addr add 10.79.0.1/24 brd + dev eth1",
            "ip netns exec router sysctl -qw net.ipv4.ip_forward=1",
        ] {
            sh(line)?;
        }
        sh(&format!("ip link set {tap} master br1"))?;
        let relay = dnsmasq_in("router")
            .args([
                "--dhcp-relay=10.79.0.1,10.77.0.2",
                "--dhcp-relay=10.79.0.1,10.77.0.1",
            ])
            .stdin(Stdio::null())
            .stderr(fs::File::create(stage.path("relay.log"))?)
            .spawn()
            .context("starting dnsmasq")?;
        Ok(Router { relay })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}
