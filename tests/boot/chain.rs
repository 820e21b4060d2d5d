//! From boot loaders that are there already: plain PXE by undionly.kpxe, a menu of PXELINUX, a menu entry of GRUB.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use tests::lab::{Firmware, First, given, inside, sh, wait_until};

use crate::{
    esp::uefi_disk,
    foreign::{Dhcpd, dnsmasq_in},
    stage::{AGENT_LIMIT, Stage, arm_and_start, await_agent, console},
};

/// What a menu entry tells iPXE to do.
const GO_ON: &str = "http://10.77.0.1:8080/boot/start.ipxe";

/// The TFTP server that was there before, beside the DHCP server.
struct OldTftp {
    process: Child,
}

impl OldTftp {
    fn serve(root: &Path) -> Result<OldTftp> {
        let process = dnsmasq_in("foreign")
            .args(["--interface=eth0", "--bind-interfaces", "--enable-tftp"])
            .arg(format!("--tftp-root={}", root.display()))
            .stdin(Stdio::null())
            .stderr(fs::File::create(root.with_extension("log"))?)
            .spawn()
            .context("starting dnsmasq")?;
        Ok(OldTftp { process })
    }
}

impl Drop for OldTftp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A machine whose DHCP server names `file` of the old TFTP server comes to the agent.
fn comes_from(file: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let stage = Stage::set()?;
    let room = stage.room(vec![stage.machine(1, Firmware::Bios)])?;
    let root = stage.path("old-tftp");
    fs::create_dir_all(&root)?;
    fs::copy("/boot/ipxe.lkrn", root.join("ipxe.lkrn")).context("package ipxe")?;
    fill(&root)?;
    let _dhcpd = Dhcpd::elsewhere(
        &stage,
        &format!("  next-server 10.77.0.2;\n  filename \"{file}\";\n"),
        "",
    )?;
    let _tftp = OldTftp::serve(&root)?;
    let server = stage.serve(&room, "mode = \"none\"")?;
    arm_and_start(&server, &room, &["lab-1"])?;
    await_agent(&server, room.machine("lab-1")?)
}

#[test]
#[ignore = "40 seconds more of a machine: scripts/nightly"]
fn a_menu_of_pxelinux_leads_to_the_agent() -> Result<()> {
    inside("chain::a_menu_of_pxelinux_leads_to_the_agent", || {
        comes_from("pxelinux.0", |root| {
            fs::copy("/usr/lib/PXELINUX/pxelinux.0", root.join("pxelinux.0"))
                .context("package pxelinux: run ./scripts/setup")?;
            fs::copy(
                "/usr/lib/syslinux/modules/bios/ldlinux.c32",
                root.join("ldlinux.c32"),
            )
            .context("package syslinux-common: run ./scripts/setup")?;
            fs::create_dir(root.join("pxelinux.cfg"))?;
            let menu = format!(
                "DEFAULT netflash\nLABEL netflash\n  KERNEL ipxe.lkrn\n  APPEND dhcp && chain {GO_ON}\n"
            );
            Ok(fs::write(root.join("pxelinux.cfg/default"), menu)?)
        })
    })
}

#[test]
fn a_menu_entry_of_grub_leads_to_the_agent() -> Result<()> {
    inside("chain::a_menu_entry_of_grub_leads_to_the_agent", || {
        comes_from("grub.pxe", |root| {
            let menu = format!(
                "set default=0\nset timeout=0\nmenuentry netflash {{\n  \
                 linux16 (pxe)/ipxe.lkrn dhcp '&&' chain {GO_ON}\n}}\n"
            );
            fs::create_dir(root.join("grub"))?;
            fs::write(root.join("grub/grub.cfg"), menu)?;
            let image = root.join("grub.pxe");
            sh(&format!(
                "grub-mkimage -O i386-pc-pxe -p (pxe)/grub -o {} pxe tftp normal linux16",
                image.display()
            ))
            .map(drop)
        })
    })
}

/// The GRUB of a system on the disk, as an administrator would add an entry to it.
#[test]
#[ignore = "40 seconds more of a machine: scripts/nightly"]
fn a_menu_entry_of_grub_under_uefi_leads_to_the_agent() -> Result<()> {
    inside(
        "chain::a_menu_entry_of_grub_under_uefi_leads_to_the_agent",
        || {
            let stage = Stage::set()?;
            let mut spec = stage.machine(1, Firmware::Uefi);
            spec.first = First::Disk;
            let room = stage.room(vec![spec])?;
            let machine = room.machine("lab-1")?;
            uefi_disk(
                &machine.spec().disks[0].path,
                "chainloader /EFI/BOOT/ipxe.efi\nboot\n",
                "part_gpt fat chain boot",
                &["/boot/ipxe.efi"],
            )?;
            let server = stage.serve(&room, "range = [\"10.77.0.50\", \"10.77.0.60\"]")?;
            arm_and_start(&server, &room, &["lab-1"])?;
            await_agent(&server, machine)?;
            let log = server.log();
            ensure!(
                !log.contains("tftp peer="),
                "the firmware's PXE was there first"
            );
            Ok(())
        },
    )
}

/// QEMU's own ROMs are iPXE, and a server that sees this sends no second one. So the DHCP server here sends
/// undionly.kpxe to whoever asks, until it has been fetched; what is started over the ROM's UNDI then is told
/// where to go on.
#[test]
fn plain_pxe_loads_undionly_which_goes_on() -> Result<()> {
    inside("chain::plain_pxe_loads_undionly_which_goes_on", || {
        let stage = Stage::set()?;
        let room = stage.room(vec![stage.machine(1, Firmware::Bios)])?;
        let server = stage.serve(&room, "mode = \"none\"")?;
        let plain = "  next-server 10.77.0.1;\n  filename \"undionly.kpxe\";\n";
        let dhcpd = Dhcpd::elsewhere(&stage, plain, "")?;
        arm_and_start(&server, &room, &["lab-1"])?;
        let machine = room.machine("lab-1")?;
        wait_until("undionly.kpxe to be fetched", AGENT_LIMIT, || {
            Ok(server
                .log()
                .lines()
                .any(|line| line.contains("tftp") && line.contains("undionly.kpxe")))
        })
        .with_context(|| console(machine))?;
        drop(dhcpd);
        let printed = room
            .server_command(given("NETFLASH_BIN")?)
            .arg("--dir")
            .arg(stage.path("printed"))
            .args(["init", "--iface", "eth0", "--dhcp", "isc"])
            .output()?;
        let snippet = String::from_utf8_lossy(&printed.stdout).into_owned();
        let _dhcpd = Dhcpd::start(&stage, "foreign", "", &snippet)?;
        await_agent(&server, machine)?;
        ensure!(machine.said(1, "undionly.kpxe"), "{}", console(machine));
        Ok(())
    })
}
