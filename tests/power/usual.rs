//! Machines behind what cannot choose the boot: their firmware tries the network first, the server sees them by their
//! address and sends them on to their disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::bmc::Board;
use tests::lab::{First, Machine, PowerState, SMALL_DISK_SAYS, inside, sh, wait_until};

use crate::desk::lab;
use crate::device::Device;
use crate::pdu::Pdu;
use crate::shell::Host;
use crate::stage::{Player, Stage};

/// What the room's own network has beside the server, 10.77.0.1.
const BESIDE: &str = "10.77.0.2";
/// A relay's time to move.
const DELAY: Duration = Duration::from_millis(500);
/// From power-on to the words of the local disk.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

#[test]
fn by_snmp_a_machine_gets_its_current_and_is_seen() -> Result<()> {
    inside(
        "usual::by_snmp_a_machine_gets_its_current_and_is_seen",
        || {
            let profile = "[power.pdu]\ndriver = \"snmp\"\npdu = \"apc-rpdu2\"\noff_seconds = 1\n";
            let stage = Stage::set(profile)?;
            let room = stage.room()?;
            let machine = room.machine("lab-1")?;
            Board::at(&stage.place()).usually(First::Network)?;
            // The PDU knows its boards by name: outlet 7 is that of `a`.
            std::os::unix::fs::symlink(stage.place(), stage.scratch.path().join("a"))?;
            let within = || room.server_command("env");
            let mut pdu = Pdu::start(stage.scratch.path(), DELAY, 0, within())?;
            pdu.await_answer(within)?;
            let server = stage.serve(&room)?;
            stage.login(&server, "pdu", "", Pdu::COMMUNITY)?;
            let power = format!("pdu:{}", pdu.outlet("7"));
            let player = Player::enter(&server, machine, &[&power])?;
            ensure!(player.power(&["status"])?["state"] == "off", "off at first");
            player.starts_from_the_network("on")?;
            player.boots_its_disk(1)?;
            player.starts_from_the_network("cycle")?;
            player.boots_its_disk(2)?;
            ensure!(player.power(&["off"])?["state"] == "off", "off at the end");
            ensure!(is_off(machine)?, "the current is gone");
            Ok(())
        },
    )
}

#[test]
fn by_wake_on_lan_and_ssh_a_machine_comes_and_goes() -> Result<()> {
    inside(
        "usual::by_wake_on_lan_and_ssh_a_machine_comes_and_goes",
        || {
            const SECRET: &str = "00:11:22:33:44:55";
            let mut stage = Stage::set(
                "[power.wake]\ndriver = \"wol\"\nbroadcast = [\"10.77.0.255\"]\ninterface = \"eth0\"\n\
                 secure_on = true\ndeadline_seconds = 600\n",
            )?;
            let room = stage.room()?;
            let machine = room.machine("lab-1")?;
            let mac = machine.spec().mac();
            sh(&format!("ip addr add {BESIDE}/24 dev br0"))?;
            let board = Board::at(&stage.place());
            board.usually(First::Network)?;

            let place = stage.scratch.path().join("host");
            let system = Host::start(&place, BESIDE, &system(&stage.place(), &place))?;
            system.end()?;
            stage.more(&system.profile("os", "user", "known"));
            let wakes = format!(
                "{} bmc {} set power 1; test -e {at}/sshd.pid || /usr/sbin/sshd -f {at}/sshd.conf",
                lab().display(),
                stage.place().display(),
                at = place.display(),
            );
            let card = Device::start("wake_card.py", ["br0", &mac, SECRET, "sh", "-c", &wakes])?;

            // Others first, and none of it is for this card.
            let tell = |program: &str, words: &[&str]| -> Result<()> {
                let output = room.server_command(program).args(words).output()?;
                ensure!(output.status.success(), "{program}: {output:?}");
                Ok(())
            };
            tell(
                "etherwake",
                &["-b", "-i", "eth0", "-p", "00:11:22:33:44:56", &mac],
            )?;
            tell(
                "etherwake",
                &["-b", "-i", "eth0", "-p", SECRET, "52:54:00:77:00:99"],
            )?;
            tell("wakeonlan", &["-i", "10.77.0.255", &mac])?;
            card.await_lines(3)?;
            ensure!(card.count("ignored") == 3, "{:?}", card.said());
            ensure!(!board.is_on()?, "it sleeps on");

            let server = stage.serve(&room)?;
            stage.login(&server, "wake", "", SECRET)?;
            let player = Player::enter(&server, machine, &[&system.power("os"), "wake:"])?;
            let on = player.starts_from_the_network("on")?;
            ensure!(on["by"] == "wake:", "{on}");
            ensure!(card.count("woken") > 0 && card.count("ignored") == 3);
            player.boots_its_disk(1)?;
            let reset = player.starts_from_the_network("reset")?;
            ensure!(reset["by"] == system.power("os").as_str(), "{reset}");
            player.boots_its_disk(2)?;
            // Off by the one, on by the other.
            let cycle = player.starts_from_the_network("cycle")?;
            ensure!(cycle["by"] == "wake:", "{cycle}");
            ensure!(board.starts()?.len() == 3, "{:?}", board.starts()?);
            ensure!(player.power(&["off"])?["state"] == "off", "off at the end");
            ensure!(is_off(machine)?, "its operating system was asked");
            Ok(())
        },
    )
}

#[test]
#[ignore = "half a minute of emulation: ./scripts/nightly media"]
fn by_qmp_a_machine_is_begun_reset_and_ended() -> Result<()> {
    inside("usual::by_qmp_a_machine_is_begun_reset_and_ended", || {
        let mut stage = Stage::set("")?;
        let room = stage.room()?;
        let machine = room.machine("lab-1")?;
        let at = stage.scratch.path().join("vm");
        fs::create_dir(&at)?;
        let start = at.join("start");
        fs::write(&start, qemu(machine, &at))?;
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
        stage.more(&format!(
            "[power.vm]\ndriver = \"qmp\"\nstart = [\"{}\", \"{{address}}\"]\ndeadline_seconds = 60\n",
            start.display()
        ));
        let server = stage.serve(&room)?;
        let power = format!("vm:{}/qmp.sock", at.display());
        let player = Player::enter(&server, machine, &[&power])?;
        let disk_boots = |times: usize| {
            wait_until(format!("boot {times} of the disk"), BOOT_LIMIT, || {
                let said = fs::read(at.join("serial.log")).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).into_owned();
                Ok(said.matches(SMALL_DISK_SAYS).count() >= times)
            })
        };
        ensure!(player.power(&["status"])?["state"] == "off", "no QEMU yet");
        player.starts_from_the_network("on")?;
        disk_boots(1)?;
        player.starts_from_the_network("reset")?;
        disk_boots(2)?;
        player.starts_from_the_network("cycle")?;
        ensure!(player.power(&["off"])?["state"] == "off", "off at the end");
        ensure!(!at.join("qmp.sock").exists(), "QEMU took its socket along");
        Ok(())
    })
}

fn is_off(machine: &Machine) -> Result<bool> {
    Ok(machine.press(tests::lab::Power::Status)?.power == PowerState::Off)
}

/// An operating system that goes with its machine: what it is asked happens to the board.
fn system(board: &Path, at: &Path) -> String {
    let (lab, board, at) = (lab().display(), board.display(), at.display());
    format!(
        "'cat /proc/sys/kernel/random/boot_id') wc -l < {board}/bmc-starts ;;\n\
         'systemctl --no-block poweroff') kill $(cat {at}/sshd.pid); {lab} bmc {board} set power 0 ;;\n\
         'systemctl --no-block reboot')\n\
           kill $(cat {at}/sshd.pid)\n\
           ({lab} bmc {board} set reset 1; /usr/sbin/sshd -f {at}/sshd.conf) > /dev/null 2>&1 & ;;"
    )
}

/// A shell script that begins QEMU at the machine's port of the room, in the background.
fn qemu(machine: &Machine, at: &Path) -> String {
    let spec = machine.spec();
    let (mac, tap, at) = (spec.mac(), spec.tap(), at.display());
    let disk = spec.disks[0].path.display();
    // The room's ports are in the network of this test, and the server in one of its own.
    format!(
        "#!/bin/sh\nexec nsenter --target {} --net qemu-system-x86_64 -daemonize \
         -accel tcg -cpu qemu64 -M pc,graphics=off -m 512 -nodefaults -no-user-config -display none \
         -qmp \"unix:$1,server=on,wait=off\" -serial file:{at}/serial.log \
         -netdev tap,id=net0,ifname={tap},script=no,downscript=no \
         -device virtio-net-pci,netdev=net0,mac={mac},bootindex=1 \
         -drive if=none,id=disk,format=raw,file={disk} -device virtio-blk-pci,drive=disk,bootindex=2\n",
        std::process::id()
    )
}
