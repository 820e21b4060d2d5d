//! Every way to boot, with every card and every kind of disk: an hour for `scripts/nightly`, and the table of
//! docs/boot-paths.md.
//!
//! A row is one way and one card: three machines, one for each kind of disk, are flashed by one session, and their
//! disks compared. Each row has a world of its own, so the table is filled by a test that starts the row's test again
//! and again.

use std::{
    collections::BTreeMap, env, fs, path::Path, process::Command, time::Duration, time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use tests::lab::{
    Bus, Firmware, GuestDisk, MachineSpec, Netboot, Nic, Power, SMALL_DISK_BYTES, ServerOptions,
    await_flash, given, inside, last_words, wait_until,
};

use crate::stage::{AGENT_LIMIT, IMAGE, Stage, has_said_hello};

/// From the agent's hello to its reboot, on an idle machine.
const FLASH_LIMIT: Duration = Duration::from_secs(240);

/// The row that [`one_row`] is about, as `WAY/CARD`.
const ROW: &str = "NETFLASH_ROW";
/// Rows to run, separated by commas; all of them without it.
const ROWS: &str = "NETFLASH_ROWS";
/// The document whose table is written anew.
const DOCUMENT: &str = "NETFLASH_TABLE";

/// What stands around the table.
const BEGIN: &str = "<!-- matrix: written by scripts/nightly -->";
const END: &str = "<!-- end of matrix -->";

const BUSES: [(Bus, &str); 3] = [
    (Bus::Virtio, "virtio-blk"),
    (Bus::Nvme, "NVMe"),
    (Bus::Ahci, "SATA (AHCI)"),
];

const CARDS: [Nic; 5] = [
    Nic::Virtio,
    Nic::E1000e,
    Nic::Igb,
    Nic::Vmxnet3,
    Nic::Rtl8139,
];

/// A way from power-on to the agent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    BiosRom,
    UefiPxe,
    UefiRom,
    UefiHttp,
    SecureBoot,
}

impl Way {
    const ALL: [Way; 5] = [
        Way::BiosRom,
        Way::UefiPxe,
        Way::UefiRom,
        Way::UefiHttp,
        Way::SecureBoot,
    ];

    fn key(self) -> &'static str {
        match self {
            Way::BiosRom => "bios-rom",
            Way::UefiPxe => "uefi-pxe",
            Way::UefiRom => "uefi-rom",
            Way::UefiHttp => "uefi-http",
            Way::SecureBoot => "secure-boot",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Way::BiosRom => "BIOS, card's ROM (iPXE)",
            Way::UefiPxe => "UEFI, its own PXE, snponly.efi",
            Way::UefiRom => "UEFI, card's ROM (iPXE)",
            Way::UefiHttp => "UEFI, its own HTTP boot, snponly.efi",
            Way::SecureBoot => "UEFI with Secure Boot, its own PXE, shim",
        }
    }

    /// Why this way does not exist with a card, if so.
    fn lacks(self, card: Nic) -> Result<Option<&'static str>> {
        if !models()?.contains(&format!("\"{}\"", card.model())) {
            return Ok(Some("not in this QEMU"));
        }
        let own_driver = matches!(self, Way::UefiPxe | Way::UefiHttp | Way::SecureBoot);
        Ok((own_driver && card != Nic::Virtio).then_some("no driver in OVMF"))
    }

    fn machine(self, number: u8, card: Nic) -> MachineSpec {
        let (firmware, netboot) = match self {
            Way::BiosRom => (Firmware::Bios, Netboot::Pxe),
            Way::UefiPxe => (Firmware::Uefi, Netboot::Pxe),
            Way::UefiRom => (Firmware::Uefi, Netboot::Rom),
            Way::UefiHttp => (Firmware::Uefi, Netboot::Http),
            Way::SecureBoot => (Firmware::SecureBoot, Netboot::Pxe),
        };
        let mut spec = MachineSpec::new(number, firmware, card);
        spec.netboot = netboot;
        spec
    }
}

fn models() -> Result<String> {
    let listed = Command::new("qemu-system-x86_64")
        .args(["-device", "help"])
        .output()?;
    Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
}

#[test]
#[ignore = "takes an hour: ./scripts/nightly"]
fn every_way_with_every_card_and_disk() -> Result<()> {
    let only = env::var(ROWS).ok();
    let wanted = |row: &str| {
        only.as_ref()
            .is_none_or(|rows| rows.split(',').any(|one| one == row))
    };
    let mut measured = BTreeMap::new();
    let mut failed = Vec::new();
    for way in Way::ALL {
        for card in CARDS {
            let row = format!("{}/{}", way.key(), card.model());
            if way.lacks(card)?.is_some() || !wanted(&row) {
                continue;
            }
            match run(&row) {
                Ok(cells) => drop(measured.insert(row, cells)),
                Err(error) => {
                    eprintln!("{row}: {error:#}");
                    failed.push(row.clone());
                    measured.insert(row, vec!["**failed**".to_owned(); BUSES.len()]);
                }
            }
            // After each row: an hour's work is not lost with its last minute.
            publish(&measured)?;
        }
    }
    ensure!(failed.is_empty(), "failed: {failed:?}");
    Ok(())
}

/// The cells of a row, from a world of its own.
fn run(row: &str) -> Result<Vec<String>> {
    let ended = Command::new(env::current_exe()?)
        .args([
            "--exact",
            "matrix::one_row",
            "--nocapture",
            "--include-ignored",
        ])
        .env(ROW, row)
        .output()?;
    let printed = String::from_utf8_lossy(&ended.stdout);
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{printed}{said}");
    let cells: Vec<String> = printed
        .lines()
        .filter_map(|line| line.strip_prefix("cell: "))
        .map(str::to_owned)
        .collect();
    ensure!(cells.len() == BUSES.len(), "{printed}");
    println!("{row}: {}", cells.join(", "));
    Ok(cells)
}

#[test]
#[ignore = "a part of every_way_with_every_card_and_disk"]
fn one_row() -> Result<()> {
    let row =
        env::var(ROW).with_context(|| format!("{ROW} is not set, as in {ROW}=bios-rom/e1000e"))?;
    let (way, card) = row.split_once('/').context("WAY/CARD")?;
    let way = Way::ALL
        .into_iter()
        .find(|known| known.key() == way)
        .context("an unknown way")?;
    let card = CARDS
        .into_iter()
        .find(|known| known.model() == card)
        .context("an unknown card")?;
    inside("matrix::one_row", || {
        let stage = Stage::set()?;
        let specs = BUSES.iter().zip(1..).map(|((bus, _), number)| {
            way.machine(number, card)
                .disk(&stage.path(""), *bus, SMALL_DISK_BYTES)
        });
        let room = stage.room(specs.collect())?;
        let mut dhcp = ServerOptions::default().dhcp;
        match way {
            Way::UefiHttp => dhcp += "\nhttp_boot = true",
            Way::SecureBoot => dhcp += "\nuefi_loader = \"shimx64.efi\"",
            Way::BiosRom | Way::UefiPxe | Way::UefiRom => {}
        }
        let server = stage.serve(&room, &dhcp)?;
        let names: Vec<&str> = room
            .machines()
            .map(|machine| machine.spec().name.as_str())
            .collect();
        server.flash(IMAGE, &names, "auto")?;
        let begun = Instant::now();
        for machine in room.machines() {
            machine.press(Power::On)?;
        }
        let guest = GuestDisk::open(&stage.path("small.raw"))?;
        let mut greeted = BTreeMap::new();
        wait_until("every machine's hello", AGENT_LIMIT, || {
            for machine in room.machines() {
                if has_said_hello(&server, machine) {
                    let name = machine.spec().name.clone();
                    greeted.entry(name).or_insert(begun.elapsed().as_secs_f64());
                }
            }
            Ok(greeted.len() == BUSES.len())
        })
        .with_context(|| {
            room.machines()
                .map(|one| last_words(one, 1))
                .collect::<String>()
        })?;
        for machine in room.machines() {
            await_flash(&server, machine, FLASH_LIMIT)?;
            guest.compare(&machine.spec().disks[0].path)?;
        }
        // The harness may have begun a line.
        println!();
        for machine in room.machines() {
            let status = machine.press(Power::Status)?;
            let run = status.runs.first().context("it never ran")?;
            let hello = greeted
                .get(&machine.spec().name)
                .context("it said no hello")?;
            println!(
                "cell: {hello:.0} s, {:.0} s, {:.0} CPU s",
                run.seconds, run.cpu_seconds
            );
        }
        Ok(())
    })
}

/// Writes the table into the document, if one is named.
fn publish(measured: &BTreeMap<String, Vec<String>>) -> Result<()> {
    if env::var_os(DOCUMENT).is_none() {
        return Ok(());
    }
    let path = given(DOCUMENT)?;
    let text = fs::read_to_string(&path)?;
    let Some((before, rest)) = text.split_once(BEGIN) else {
        bail!("{} has no line {BEGIN}", path.display());
    };
    let (old, after) = rest.split_once(END).context("no end of the table")?;
    let table = table(measured, old)?;
    replace(&path, &format!("{before}{BEGIN}\n{table}{END}{after}"))
}

/// The table: what was measured now, else what the old one says, else "not run".
fn table(measured: &BTreeMap<String, Vec<String>>, old: &str) -> Result<String> {
    let mut lines = vec!["| way | card |".to_owned(), "| --- | --- |".to_owned()];
    for (_, bus) in BUSES {
        lines[0] += &format!(" {bus} |");
        lines[1] += " --- |";
    }
    for way in Way::ALL {
        for card in CARDS {
            let head = format!("| {} | {} |", way.title(), card.model());
            let row = format!("{}/{}", way.key(), card.model());
            let line = match (measured.get(&row), way.lacks(card)?) {
                (Some(cells), _) => format!("{head} {} |", cells.join(" | ")),
                (None, Some(why)) => format!("{head} {} |", [why; BUSES.len()].join(" | ")),
                (None, None) => match old.lines().find(|line| line.starts_with(&head)) {
                    Some(line) => line.to_owned(),
                    None => format!("{head} {} |", ["not run"; BUSES.len()].join(" | ")),
                },
            };
            lines.push(line);
        }
    }
    Ok(lines.join("\n") + "\n")
}

fn replace(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
