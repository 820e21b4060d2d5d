//! Whole machines: from power-on over the network to a disk that was compared
//! while the machine was off.
//!
//! Each test has a world of its own and fails, never skips, without root or
//! without the programs that `./scripts/test` makes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Boot, Bus, DiskFault, Firmware, GuestDisk, Machine, MachineSpec, Nic, Power, Programs, Room,
    SMALL_DISK_BYTES, SMALL_DISK_SAYS, ServerOptions, ServerProcess, await_flash, direct_boot,
    given, inside, scratch, small_disk, wait_until,
};

#[path = "machines/booted.rs"]
mod booted;
#[path = "machines/compared.rs"]
mod compared;
#[path = "machines/kept.rs"]
mod kept;
#[path = "machines/walled.rs"]
mod walled;

/// From power-on by the network to the agent's reboot, on an idle machine.
const FLASH_LIMIT: Duration = Duration::from_secs(240);

/// From power-on to the words of the local disk.
const LOCAL_BOOT_LIMIT: Duration = Duration::from_secs(120);

const MIB: u64 = 1 << 20;

#[test]
fn a_room_is_flashed_by_one_session_and_a_stranger_is_left_alone() -> Result<()> {
    inside(
        "a_room_is_flashed_by_one_session_and_a_stranger_is_left_alone",
        || {
            let directory = scratch("machines")?;
            let desk = Desk::set(directory.path())?;
            let room = desk.room(
                vec![
                    desk.machine(1, Firmware::Bios)
                        .disk(directory.path(), Bus::Ahci, 96 * MIB),
                    desk.machine(2, Firmware::Uefi)
                        .disk(directory.path(), Bus::Nvme, 80 * MIB),
                    desk.machine(3, Firmware::Bios).disk(
                        directory.path(),
                        Bus::Virtio,
                        SMALL_DISK_BYTES,
                    ),
                ],
                2.0,
            )?;
            let server = desk.serve(&room, &["lab-1", "lab-2"])?;
            let stranger = room.machine("lab-3")?;
            small_disk(&stranger.spec().disks[0].path)?;
            let before = hash(stranger)?;

            server.flash("small", &["lab-1", "lab-2"], "auto")?;
            server.ask(&["power", "on", "lab-1", "lab-2"])?;
            stranger.press(Power::On)?;

            wait_until("the stranger's own disk to boot", FLASH_LIMIT, || {
                Ok(stranger.said(1, SMALL_DISK_SAYS))
            })?;
            stranger.press(Power::Off)?;
            ensure!(
                hash(stranger)? == before,
                "the stranger's disk was written to"
            );
            ensure!(
                stranger.said(1, "unknown machine"),
                "the stranger was not told why it boots its disk"
            );
            let list = server.ask(&["machine", "list"])?;
            ensure!(
                list["seen"].to_string().contains(&stranger.spec().mac()),
                "the server does not list the stranger: {list}"
            );

            for name in ["lab-1", "lab-2"] {
                desk.await_flash(&server, room.machine(name)?)?;
            }
            let flashed = room.machine("lab-1")?;
            server.ask(&["power", "on", "lab-1"])?;
            wait_until("the flashed disk to boot", LOCAL_BOOT_LIMIT, || {
                Ok(flashed.said(2, SMALL_DISK_SAYS))
            })?;
            Ok(())
        },
    )
}

#[test]
fn an_unfit_disk_fails_its_own_job_and_nobody_elses() -> Result<()> {
    inside("an_unfit_disk_fails_its_own_job_and_nobody_elses", || {
        let directory = scratch("machines")?;
        let path = directory.path();
        let desk = Desk::set(path)?;
        let mut broken = desk
            .machine(5, Firmware::Bios)
            .disk(path, Bus::Virtio, 80 * MIB);
        broken.disks[0].fault = Some(DiskFault::WriteError {
            sector: 16 * MIB / 512,
        });
        let mut removable = desk
            .machine(4, Firmware::Bios)
            .disk(path, Bus::Usb, 80 * MIB);
        // Devices that no appliance has a driver for.
        removable.devices = vec!["am53c974".to_owned(), "ne2k_pci,romfile=".to_owned()];
        let machines = vec![
            desk.machine(1, Firmware::Bios)
                .disk(path, Bus::Virtio, 80 * MIB),
            desk.machine(2, Firmware::Bios)
                .disk(path, Bus::Ahci, 48 * MIB),
            desk.machine(3, Firmware::Bios)
                .disk(path, Bus::Virtio, 80 * MIB)
                .disk(path, Bus::Nvme, 80 * MIB),
            removable,
            broken,
        ];
        let room = desk.room(machines, 0.0)?;
        let names = ["lab-1", "lab-2", "lab-3", "lab-4", "lab-5"];
        let server = desk.serve(&room, &names)?;
        server.flash("small", &names, "auto")?;
        for name in names {
            desk.start_directly(&room, name)?;
        }
        // What each console and the server must say.
        let failures = [
            ("lab-2", "smaller"),
            ("lab-3", "nvme0n1"),
            ("lab-4", "removable"),
            ("lab-4", "no driver for disk controller 1022:2020"),
            ("lab-5", "writ"),
        ];
        for (name, word) in failures {
            let machine = room.machine(name)?;
            wait_until(format!("{name}'s job to fail"), FLASH_LIMIT, || {
                let job = server.job_of(name)?;
                ensure!(!job.is_done(), "{name} was flashed");
                Ok(job.has_failed())
            })?;
            let reason = server.job_of(name)?.reason.to_lowercase();
            ensure!(reason.contains(word), "{name} failed with {reason:?}");
            wait_until(format!("{name}'s console"), FLASH_LIMIT, || {
                Ok(machine.serial(1).to_lowercase().contains(word))
            })?;
            if !machine.is_off()? {
                machine.press(Power::Off)?;
            }
            let untouched = name != "lab-5";
            for disk in machine.spec().disks.iter().filter(|_| untouched) {
                let bytes = fs::read(&disk.path).context("reading a disk")?;
                ensure!(bytes.iter().all(|&b| b == 0), "{name} was written to");
            }
        }
        let shown = server.ask(&["machine", "show", "lab-4"])?.to_string();
        for id in ["1022:2020", "10ec:8029"] {
            ensure!(shown.contains(id), "the server does not name {id}: {shown}");
        }
        desk.await_flash(&server, room.machine("lab-1")?)
    })
}

#[test]
fn a_disk_becomes_an_image_although_the_power_fails_on_the_way() -> Result<()> {
    inside(
        "a_disk_becomes_an_image_although_the_power_fails_on_the_way",
        || {
            let directory = scratch("machines")?;
            let desk = Desk::set(directory.path())?;
            let spec =
                desk.machine(1, Firmware::Bios)
                    .disk(directory.path(), Bus::Nvme, SMALL_DISK_BYTES);
            let room = desk.room(vec![spec], 0.0)?;
            let server = desk.serve(&room, &["lab-1"])?;
            let machine = room.machine("lab-1")?;
            let disk = &machine.spec().disks[0].path;
            small_disk(disk)?;
            let before = hash(machine)?;

            server.ask(&["job", "capture", "copy", "--machine", "lab-1"])?;
            let listed = || Ok::<_, anyhow::Error>(server.ask(&["image", "list"])?.to_string());
            ensure!(listed()?.contains("capturing"), "{}", listed()?);
            desk.start_directly(&room, "lab-1")?;
            wait_until("a part of the image to be there", FLASH_LIMIT, || {
                let job = server.job_of("lab-1")?;
                ensure!(!job.has_failed(), "lab-1: {}", job.reason);
                let sent = job.progress.map_or(0, |progress| progress.received_bytes);
                Ok(sent > 6 * MIB)
            })?;
            machine.press(Power::Off)?;
            ensure!(listed()?.contains("capturing"), "{}", listed()?);
            desk.start_directly(&room, "lab-1")?;
            wait_until("the disk to be captured", FLASH_LIMIT, || {
                let job = server.job_of("lab-1")?;
                ensure!(!job.has_failed(), "lab-1: {}", job.reason);
                machine.is_off()
            })?;

            ensure!(
                machine.said(2, "from a former start"),
                "what the server had was sent again"
            );
            let job = server.job_of("lab-1")?;
            ensure!(job.is_done(), "lab-1 is off and its job {}", job.state);
            ensure!(hash(machine)? == before, "the disk was written to");
            let image = server.ask(&["image", "show", "copy"])?;
            let path = image["path"].as_str().context("an image without a file")?;
            let compare = format!("zstd -qdc {path} | cmp - {}", disk.display());
            let same = Command::new("sh").args(["-c", &compare]).status()?;
            ensure!(same.success(), "the image is not the disk");
            Ok(())
        },
    )
}

/// What the tests share: a small disk, its image, and where the programs are.
struct Desk {
    directory: PathBuf,
    programs: Programs,
    guest: GuestDisk,
}

impl Desk {
    fn set(directory: &Path) -> Result<Desk> {
        let netflash = given("NETFLASH_BIN")?;
        let raw = directory.join("small.raw");
        small_disk(&raw)?;
        let desk = Desk {
            directory: directory.to_owned(),
            programs: Programs::new(
                netflash,
                given("NETFLASH_APPLIANCE")?,
                PathBuf::from(env!("CARGO_BIN_EXE_lab")),
            ),

            guest: GuestDisk::open(&raw)?,
        };
        desk.seal("small")?;
        Ok(desk)
    }

    /// The image of the raw disk of this name.
    fn seal(&self, name: &str) -> Result<PathBuf> {
        let raw = self.directory.join(format!("{name}.raw"));
        let image = self.directory.join(format!("{name}.img.zst"));
        let sealed = Command::new(given("NETFLASH_BIN")?)
            .args(["image", "create"])
            .args([&raw, &image])
            .status()
            .context("starting netflash image create")?;
        ensure!(sealed.success(), "netflash image create: {sealed}");
        Ok(image)
    }

    fn machine(&self, number: u8, firmware: Firmware) -> MachineSpec {
        MachineSpec::new(number, firmware, Nic::Virtio)
    }

    fn room(&self, machines: Vec<MachineSpec>, loss_percent: f64) -> Result<Room> {
        let lab = Path::new(env!("CARGO_BIN_EXE_lab"));
        Room::build(&self.directory, lab, machines, loss_percent)
    }

    /// A server that has the small image and knows these machines.
    fn serve<'room>(&self, room: &'room Room, known: &[&str]) -> Result<ServerProcess<'room>> {
        let options = ServerOptions {
            // Some of these machines never join.
            wait_seconds: 10,
            ..ServerOptions::default()
        };
        let server = ServerProcess::start(room, &self.programs, &options)?;
        server.add_image("small", &self.directory.join("small.img.zst"))?;
        for name in known {
            server.add_machine(room.machine(name)?)?;
        }
        Ok(server)
    }

    /// Spares the machine its firmware and switches it on.
    fn start_directly(&self, room: &Room, name: &str) -> Result<()> {
        let machine = room.machine(name)?;
        let boot: Boot = direct_boot(room, machine)?;
        machine.set_boot(boot)?;
        machine.press(Power::On)?;
        Ok(())
    }

    /// Waits for the agent's reboot, which ends QEMU, and compares the disk.
    fn await_flash(&self, server: &ServerProcess<'_>, machine: &Machine) -> Result<()> {
        await_flash(server, machine, FLASH_LIMIT)?;
        self.guest.compare(&machine.spec().disks[0].path)
    }
}

fn hash(machine: &Machine) -> Result<blake3::Hash> {
    let path = &machine.spec().disks[0].path;
    Ok(blake3::hash(&fs::read(path).context("reading a disk")?))
}
