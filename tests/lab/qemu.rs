//! QEMU's command line for a machine.
//!
//! Always TCG and `-cpu qemu64`, so that a run is the same everywhere, and
//! `-no-reboot`: a guest's reboot ends QEMU, and the disk can be looked at
//! while the machine is off.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use super::spec::{Boot, Bus, DiskFault, DiskSpec, Firmware, First, MachineSpec, Netboot, Nic};

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The build that guards its variables by system management mode, and variables with Microsoft's keys.
const SECURE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const SECURE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd";

/// The network card's place in the boot order of a machine that tries its disks first.
const AFTER_ALL_DISKS: u32 = 99;

/// Names below a machine's directory.
pub(super) fn qmp_path(directory: &Path) -> PathBuf {
    directory.join("qmp.sock")
}

/// The serial log of one run, counted from 1.
pub(super) fn serial_path(directory: &Path, run: u32) -> PathBuf {
    directory.join(format!("serial-{run}.log"))
}

/// The command that is this machine, switched on. Files live in `directory`.
pub(super) fn command(spec: &MachineSpec, directory: &Path, run: u32) -> Result<Command> {
    // QEMU gets the signal when its chassis dies: a machine never outlives the room.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(["-accel", "tcg", "-cpu", "qemu64", "-smp", "1"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-name", &spec.name])
        .args(["-m", &spec.memory_mib.to_string()])
        .args(["-uuid", &spec.uuid()])
        .arg("-smbios")
        .arg(format!(
            "type=1,manufacturer=netflash,product=lab,serial={},uuid={}",
            spec.serial(),
            spec.uuid()
        ))
        .arg("-qmp")
        .arg(format!(
            "unix:{},server=on,wait=off",
            qmp_path(directory).display()
        ))
        .arg("-chardev")
        .arg(format!(
            "file,id=serial0,path={}",
            serial_path(directory, run).display()
        ))
        .args(["-serial", "chardev:serial0"])
        .args(["-device", "virtio-rng-pci"]);
    firmware(&mut command, spec, directory)?;
    network(&mut command, spec);
    medium(&mut command, &spec.boot);
    for device in &spec.devices {
        command.args(["-device", device]);
    }
    for (position, disk) in spec.disks.iter().enumerate() {
        attach(&mut command, disk, position, directory)?;
    }
    if let Boot::Kernel {
        kernel,
        initrd,
        append,
    } = &spec.boot
    {
        command
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", append]);
    }
    let log = fs::File::create(directory.join(format!("qemu-{run}.log")))
        .context("creating QEMU's log")?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing QEMU's log")?)
        .stderr(log);
    Ok(command)
}

fn firmware(command: &mut Command, spec: &MachineSpec, directory: &Path) -> Result<()> {
    match spec.firmware {
        // graphics=off sends the firmware's own text to the serial line.
        Firmware::Bios => {
            command.args(["-M", "pc,graphics=off"]);
        }
        Firmware::Uefi => {
            command.args(["-M", "q35"]);
            if spec.netboot == Netboot::Http {
                command.args(["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"]);
            }
            flash(command, directory, OVMF_CODE, OVMF_VARIABLES)?;
        }
        Firmware::SecureBoot => {
            command
                .args(["-M", "q35,smm=on"])
                .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
                // This build of the firmware does not come back from a sleep without more help.
                .args(["-global", "ICH9-LPC.disable_s3=1"]);
            flash(command, directory, SECURE_CODE, SECURE_VARIABLES)?;
        }
    }
    Ok(())
}

/// A UEFI firmware in flash memory, with variables of the machine's own.
fn flash(command: &mut Command, directory: &Path, code: &str, template: &str) -> Result<()> {
    let variables = directory.join("ovmf-variables.fd");
    if !variables.exists() {
        fs::copy(template, &variables)
            .with_context(|| format!("copying {template} (package ovmf)"))?;
    }
    command
        // One road less on which the firmware waits for minutes before it tries the disk.
        .args(["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"])
        .arg("-drive")
        .arg(format!(
            "if=pflash,format=raw,unit=0,readonly=on,file={code}"
        ))
        .arg("-drive")
        .arg(format!(
            "if=pflash,format=raw,unit=1,file={}",
            variables.display()
        ));
    Ok(())
}

/// The image a machine boots from that cannot boot over the network.
fn medium(command: &mut Command, boot: &Boot) {
    let (image, media, device) = match boot {
        Boot::Network | Boot::Kernel { .. } => return,
        Boot::Cd { image } => (image, ",media=cdrom", "ide-cd,drive=medium,bootindex=0"),
        Boot::Stick { image } => (
            image,
            "",
            "usb-storage,bus=sticks.0,drive=medium,removable=on,bootindex=0",
        ),
    };
    if matches!(boot, Boot::Stick { .. }) {
        command.args(["-device", "qemu-xhci,id=sticks"]);
    }
    command
        .arg("-drive")
        .arg(format!(
            "if=none,id=medium,format=raw,readonly=on,file={}{media}",
            image.display()
        ))
        .args(["-device", device]);
}

fn network(command: &mut Command, spec: &MachineSpec) {
    let model = spec.nic.model();
    // OVMF has drivers of its own for virtio alone. Without a ROM it uses its own PXE: the road of a real UEFI machine.
    let by_rom = match spec.firmware {
        Firmware::Bios => true,
        Firmware::Uefi => spec.netboot == Netboot::Rom || spec.nic != Nic::Virtio,
        Firmware::SecureBoot => false,
    };
    let rom = match &spec.boot {
        Boot::Network if by_rom => "",
        _ => ",romfile=",
    };
    let order = match (spec.first, &spec.boot) {
        (_, Boot::Cd { .. } | Boot::Stick { .. }) => String::new(),
        (First::Network, _) => ",bootindex=1".to_owned(),
        (First::Disk, _) => format!(",bootindex={AFTER_ALL_DISKS}"),
    };
    command
        .arg("-netdev")
        .arg(format!(
            "tap,id=net0,ifname={},script=no,downscript=no",
            spec.tap()
        ))
        .arg("-device")
        .arg(format!(
            "{model},id=nic0,netdev=net0,mac={}{order}{rom}",
            spec.mac()
        ));
    for (position, cable) in spec.cards.iter().enumerate() {
        let card = position + 1;
        // A bond by LACP takes no card without speed and duplex.
        command
            .arg("-netdev")
            .arg(format!("{cable},id=net{card}"))
            .arg("-device")
            .arg(format!(
                "virtio-net-pci,id=nic{card},netdev=net{card},speed=1000,duplex=full,romfile=,\
                 mac={}",
                spec.card_mac(card)
            ));
    }
}

fn attach(command: &mut Command, disk: &DiskSpec, position: usize, directory: &Path) -> Result<()> {
    let id = format!("drive{position}");
    if let Some(log) = &disk.record {
        record(command, disk, &id, log)?;
    } else {
        drive(
            command,
            disk,
            &id,
            &directory.join(format!("fault{position}.conf")),
        )?;
    }
    let serial = &disk.serial;
    let order = format!("bootindex={}", position + 2);
    let device = match disk.bus {
        Bus::Virtio => format!("virtio-blk-pci,drive={id},serial={serial},{order}"),
        Bus::Nvme => format!("nvme,drive={id},serial={serial},{order}"),
        Bus::Ahci => {
            command
                .arg("-device")
                .arg(format!("ahci,id=ahci{position}"));
            format!("ide-hd,bus=ahci{position}.0,drive={id},serial={serial},{order}")
        }
        Bus::Usb => {
            command
                .arg("-device")
                .arg(format!("qemu-xhci,id=xhci{position}"));
            format!(
                "usb-storage,bus=xhci{position}.0,drive={id},serial={serial},removable=on,{order}"
            )
        }
    };
    command.arg("-device").arg(device);
    Ok(())
}

/// The node `id`: the disk's file, with its fault, whose rules go to `rules`.
fn drive(command: &mut Command, disk: &DiskSpec, id: &str, rules: &Path) -> Result<()> {
    // The lab compares disks through the page cache of this machine and cuts no
    // power: flushing to the real disk would only slow everybody down.
    let mut drive = format!("if=none,id={id},format=raw,cache=unsafe,discard=unmap");
    match &disk.fault {
        None => drive.push_str(&format!(",file={}", disk.path.display())),
        Some(DiskFault::WriteError { sector }) => {
            fs::write(
                rules,
                format!(
                    "[inject-error]\nevent = \"write_aio\"\nerrno = \"5\"\n\
                     sector = \"{sector}\"\nonce = \"off\"\n"
                ),
            )
            .context("writing the fault rules")?;
            drive.push_str(&format!(
                ",werror=report,rerror=report,file.driver=blkdebug,file.config={},\
                 file.image.filename={}",
                rules.display(),
                disk.path.display()
            ));
        }
    }
    command.arg("-drive").arg(drive);
    Ok(())
}

/// The node `id`: the disk's file, below one that writes down in `log` what comes.
fn record(command: &mut Command, disk: &DiskSpec, id: &str, log: &Path) -> Result<()> {
    fs::File::create(log).context("making room for a record")?;
    let file = |node: &str, path: &Path| {
        // What matters is in the record, in its order: the files need not reach this machine's disk.
        let path = path.display();
        format!("driver=file,node-name={node},filename={path},cache.no-flush=on")
    };
    let (own, taken) = (format!("{id}-file"), format!("{id}-log"));
    command
        .args(["-blockdev", &file(&own, &disk.path)])
        .args(["-blockdev", &file(&taken, log)])
        .args([
            "-blockdev",
            &format!(
                "driver=blklogwrites,node-name={id},file={own},log={taken},log-sector-size=512"
            ),
        ]);
    Ok(())
}
