//! A Debian with its own sshd, on a machine that sleeps: woken by a magic packet, restarted and switched off by SSH.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::bmc::Board;
use tests::lab::{First, Power, PowerState, inside, wait_until};

use crate::desk::lab;
use crate::device::Device;
use crate::shell::keygen;
use crate::stage::{Player, Stage};

/// The machine's address in the room's network, as its operating system has it.
const ADDRESS: &str = "10.77.0.9";
/// From the question what to boot to a login by SSH, emulated.
const BOOTS: Duration = Duration::from_secs(400);
/// From "switch off" to a machine that is.
const ENDS: Duration = Duration::from_secs(200);

#[test]
#[ignore = "five minutes of emulation: ./scripts/nightly media"]
fn a_real_debian_is_woken_restarted_and_ended() -> Result<()> {
    // Outside the room: there is no network in it to install from. Within it, the same call finds it made.
    let guest = guest()?;
    inside("debian::a_real_debian_is_woken_restarted_and_ended", || {
        let mut stage = Stage::set(
            "[power.wake]\ndriver = \"wol\"\nbroadcast = [\"10.77.0.255\"]\ndeadline_seconds = 900\n",
        )?;
        let keys = stage.scratch.path().join("keys");
        fs::create_dir(&keys)?;
        let room = stage.room_with(|disk| {
            fs::copy(&guest, disk)?;
            settle_in(disk, &keys)
        })?;
        let machine = room.machine("lab-1")?;
        let board = Board::at(&stage.place());
        board.usually(First::Network)?;
        let wakes = format!(
            "{} bmc {} set power 1",
            lab().display(),
            stage.place().display()
        );
        let mac = machine.spec().mac();
        let card = Device::start("wake_card.py", ["br0", &mac, "-", "sh", "-c", &wakes])?;
        let at = keys.display();
        stage.more(&format!(
                "[power.os]\ndriver = \"ssh\"\nkey = \"{at}/user\"\nknown_hosts = \"{at}/known\"\ndeadline_seconds = 400\n"
            ));
        let server = stage.serve(&room)?;
        let os = format!("os:{ADDRESS}");
        let player = Player::enter(&server, machine, &[&os, "wake:"])?;
        let listens = || {
            wait_until("sshd of the machine", BOOTS, || {
                Ok(player
                    .power(&["status"])
                    .is_ok_and(|now| now["state"] == "on"))
            })
        };
        let is_off = || {
            wait_until("the machine to be off", ENDS, || {
                Ok(machine.press(Power::Status)?.power == PowerState::Off)
            })
        };

        let on = player.starts_from_the_network("on")?;
        ensure!(on["by"] == "wake:" && card.count("woken") > 0, "{on}");
        listens()?;
        let reset = thread::scope(|scope| {
            let reset = scope.spawn(|| player.starts_from_the_network("reset"));
            // The lab's machines end where others restart: somebody presses the button.
            is_off()?;
            board.on()?;
            reset.join().ok().context("the order died")?
        })?;
        ensure!(reset["by"] == os.as_str(), "{reset}");
        let off = player.power(&["off"])?;
        ensure!(off["by"] == os.as_str() && off["state"] == "off", "{off}");
        is_off()
    })
}

/// The raw disk of a guest with sshd; made once for a version of its script.
fn guest() -> Result<PathBuf> {
    let output = Command::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../scripts/guest-image"
    ))
    .env("GUEST_PACKAGES", "openssh-server")
    .stdin(Stdio::null())
    .stderr(Stdio::inherit())
    .output()
    .context("starting scripts/guest-image")?;
    ensure!(
        output.status.success(),
        "scripts/guest-image: {}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().into())
}

/// Gives the Debian on `disk` an address, our key, and host keys that we know; all of it is kept in `keys`.
fn settle_in(disk: &Path, keys: &Path) -> Result<()> {
    let at = keys.display();
    for name in ["user", "host"] {
        keygen(keys, name)?;
    }
    let public = fs::read_to_string(keys.join("host.pub"))?;
    fs::write(keys.join("known"), format!("{ADDRESS} {public}"))?;
    let network = format!("[Match]\nType=ether\n[Network]\nAddress={ADDRESS}/24\n");
    fs::write(keys.join("network"), network)?;
    let units = "/lib/systemd/system";
    let wanted = "/etc/systemd/system/multi-user.target.wants";
    let commands = [
        "mkdir /root/.ssh".to_owned(),
        "cd /root/.ssh".to_owned(),
        format!("write {at}/user.pub authorized_keys"),
        "cd /etc/systemd/network".to_owned(),
        format!("write {at}/network 10-room.network"),
        format!("symlink {wanted}/systemd-networkd.service {units}/systemd-networkd.service"),
        "cd /etc/ssh".to_owned(),
        "rm ssh_host_ed25519_key".to_owned(),
        "rm ssh_host_ed25519_key.pub".to_owned(),
        format!("write {at}/host ssh_host_ed25519_key"),
        format!("write {at}/host.pub ssh_host_ed25519_key.pub"),
    ];
    fs::write(keys.join("commands"), commands.join("\n"))?;
    let root = first_byte(disk, 3)?;
    let output = Command::new("debugfs")
        .arg("-w")
        .arg("-f")
        .arg(keys.join("commands"))
        .arg(format!("{}?offset={root}", disk.display()))
        .output()
        .context("starting debugfs: run ./scripts/setup")?;
    ensure!(output.status.success(), "debugfs: {output:?}");
    Ok(())
}

/// Where a partition begins, by sgdisk.
fn first_byte(disk: &Path, partition: u32) -> Result<u64> {
    let output = Command::new("sgdisk")
        .arg(format!("--info={partition}"))
        .arg(disk)
        .output()
        .context("starting sgdisk: run ./scripts/setup")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("First sector: "));
    let sector = line.and_then(|line| line.split(' ').next());
    let sector: u64 = sector.context("sgdisk says no first sector")?.parse()?;
    Ok(sector * 512)
}
