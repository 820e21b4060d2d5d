//! The demo: four blank machines become four running Debians by one session.
//!
//! Everything the main job promises is checked with other people's tools, and
//! every miss is told: wire by `tcpdump`, loss by `nft`, disks by `sgdisk` and
//! `dumpe2fs`, running systems by their own login prompt.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    capture::Capture,
    chassis::Power,
    journey::Journey,
    ledger::ImageLedger,
    loss::LossCount,
    oracle::GuestDisk,
    patience::Patience,
    programs::Programs,
    room::Room,
    server::{ServerOptions, ServerProcess},
    shell,
    spec::{Bus, Firmware, MachineSpec, Nic},
};

/// How often the room is looked at.
const TICK: Duration = Duration::from_millis(500);

/// The machine that loses its power on the way, and when: in this part of its bytes.
const VICTIM: &str = "lab-3";
const KILL_FROM: f64 = 0.30;
const KILL_AIM: f64 = 0.40;
const KILL_TO: f64 = 0.70;

/// A resumed machine receives at most this many times what it lacked.
const RESUME_FACTOR_MAX: f64 = 1.1;

/// Loss may be off by this part of what was asked.
const LOSS_TOLERANCE: f64 = 0.20;

/// CPU seconds of all QEMU processes together.
const CPU_SECONDS_MAX: f64 = 900.0;

/// The whole demo, on an idle machine of two cores.
const DEMO_LIMIT: Duration = Duration::from_secs(12 * 60);

/// Machines that boot their new system at the same time.
const BUSY_MAX: usize = 2;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What the demo is made of.
#[derive(Args)]
#[command(after_help = "Example:\n  sudo ./scripts/demo")]
pub struct DemoOptions {
    #[command(flatten)]
    programs: Programs,
    /// Raw disk of a bootable guest (scripts/guest-image makes one)
    #[arg(long, env = "NETFLASH_GUEST", value_name = "RAW")]
    guest: PathBuf,
    /// Loss towards each machine, in per cent
    #[arg(long, default_value_t = 2.0, value_name = "PERCENT")]
    loss: f64,
    /// Keep the room's files, logs included
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; failure is told in words and by the exit code.
pub fn demo(options: &DemoOptions, stop: &Arc<AtomicBool>) -> Result<ExitCode> {
    let mut directory = tempfile::Builder::new()
        .prefix("netflash-demo-")
        .tempdir()
        .context("making room for the demo")?;
    directory.disable_cleanup(options.keep);
    eprintln!("room: {}", directory.path().display());
    let misses = run(options, directory.path(), stop)?;
    if misses.is_empty() {
        println!("all held");
        return Ok(ExitCode::SUCCESS);
    }
    for miss in &misses {
        println!("MISS: {miss}");
    }
    Ok(ExitCode::from(1))
}

fn run(options: &DemoOptions, directory: &Path, stop: &AtomicBool) -> Result<Vec<String>> {
    let guest = GuestDisk::open(&options.guest)?;
    let image = image_of(options, directory)?;
    let ledger = ImageLedger::open(&image)?;
    let payload = ledger.stored_bytes(&guest.used_pieces())?;

    let begun = Instant::now();
    let mut patience = Patience::new("the whole demo", DEMO_LIMIT);
    let room = Room::build(
        directory,
        options.programs.lab()?.as_path(),
        machines(directory),
        options.loss,
    )?;
    let server = ServerProcess::start(&room, &options.programs, &ServerOptions::default())?;
    let capture = Capture::start(&room)?;
    order(&room, &server, &image)?;

    let mut journeys = Vec::new();
    for machine in room.machines() {
        server.ask(&["power", "on", &machine.spec().name])?;
        journeys.push(Journey::begin(&room, &machine.spec().name)?);
    }
    let mut kill = None;
    let mut late = None;
    while !journeys.iter().all(Journey::is_over) {
        ensure!(!stop.load(Ordering::Relaxed), "interrupted");
        thread::sleep(TICK);
        if let (Err(error), None) = (patience.look(), &late) {
            late = Some(error.to_string());
        }
        for journey in &mut journeys {
            journey.look(&server, &guest);
            if kill.is_none() && journey.name() == VICTIM && journey.is_flashing() {
                kill = cut_on_the_way(journey, &server, &room, &guest, &ledger, payload)?;
            }
        }
        let mut busy = journeys.iter().filter(|j| j.is_busy()).count();
        for journey in journeys.iter_mut().filter(|j| j.is_flashed()) {
            if busy < BUSY_MAX {
                journey.boot(&server);
                busy += 1;
            }
        }
    }

    let mut misses: Vec<String> = late.into_iter().collect();
    print_table(&journeys);
    misses.extend(journeys.iter().filter_map(|journey| {
        let why = journey.miss()?;
        Some(format!("{}: {why}", journey.name()))
    }));
    misses.extend(check_resume(&room, kill.as_ref(), &journeys)?);
    misses.extend(check_loss(&room)?);
    misses.extend(check_sessions(capture)?);
    misses.extend(check_cpu(&room, begun.elapsed())?);
    Ok(misses)
}

/// Seals the guest's disk, as an operator would.
fn image_of(options: &DemoOptions, directory: &Path) -> Result<PathBuf> {
    let image = directory.join("guest.img.zst");
    let begun = Instant::now();
    shell::text(
        Command::new(options.programs.netflash()?)
            .args(["image", "create", "--json"])
            .arg(&options.guest)
            .arg(&image),
    )?;
    let bytes = fs::metadata(&image).context("looking at the image")?.len();
    eprintln!(
        "image: {} MB in {:.1} s",
        bytes / 1_000_000,
        begun.elapsed().as_secs_f64()
    );
    Ok(image)
}

/// Three BIOS machines and one UEFI machine, with disks of three kinds and four sizes.
fn machines(directory: &Path) -> Vec<MachineSpec> {
    let machine = |number, firmware, nic, bus, bytes| {
        MachineSpec::new(number, firmware, nic).disk(directory, bus, bytes)
    };
    vec![
        machine(1, Firmware::Bios, Nic::Virtio, Bus::Virtio, GIB),
        machine(2, Firmware::Bios, Nic::E1000, Bus::Ahci, GIB + 37 * MIB),
        machine(3, Firmware::Bios, Nic::Virtio, Bus::Nvme, 2 * GIB),
        machine(4, Firmware::Uefi, Nic::Virtio, Bus::Nvme, GIB + 512 * MIB),
    ]
}

fn order(room: &Room, server: &ServerProcess<'_>, image: &Path) -> Result<()> {
    server.add_image("guest", image)?;
    for machine in room.machines() {
        server.add_machine(machine)?;
    }
    let names: Vec<&str> = room.machines().map(|m| m.spec().name.as_str()).collect();
    server.flash("guest", &names, "auto")
}

/// What was true when the victim lost its power.
struct Kill {
    part: f64,
    lacked_bytes: u64,
    before: LossCount,
}

/// Cuts the victim's power when it has received enough, and switches it on again.
fn cut_on_the_way(
    journey: &mut Journey<'_>,
    server: &ServerProcess<'_>,
    room: &Room,
    guest: &GuestDisk,
    ledger: &ImageLedger,
    payload: u64,
) -> Result<Option<Kill>> {
    if journey.job.done_part() < KILL_AIM {
        return Ok(None);
    }
    let machine = journey.machine();
    machine.press(Power::Off)?;
    let lacking = guest.lacking(&machine.spec().disks[0].path)?;
    let lacked_bytes = ledger.stored_bytes(&lacking)?;
    let kill = Kill {
        part: 1.0 - lacked_bytes as f64 / payload as f64,
        lacked_bytes,
        before: room.loss().count(&machine.spec().tap())?,
    };
    eprintln!(
        "{VICTIM}: power cut at {:.0} % of its bytes, its disk lacks {} MB of {} MB",
        100.0 * kill.part,
        lacked_bytes / 1_000_000,
        payload / 1_000_000
    );
    server.ask(&["power", "on", VICTIM])?;
    journey.begin_again();
    Ok(Some(kill))
}

fn check_resume(room: &Room, kill: Option<&Kill>, journeys: &[Journey<'_>]) -> Result<Vec<String>> {
    let Some(kill) = kill else {
        return Ok(vec![format!("{VICTIM} was never killed")]);
    };
    let mut misses = Vec::new();
    if !(KILL_FROM..=KILL_TO).contains(&kill.part) {
        misses.push(format!(
            "{VICTIM} was killed at {:.0} % of its bytes",
            100.0 * kill.part
        ));
    }
    let report = journeys
        .iter()
        .find(|journey| journey.name() == VICTIM)
        .and_then(|journey| journey.job.report.as_ref());
    if let Some(report) = report {
        let factor = report.received_bytes as f64 / kill.lacked_bytes.max(1) as f64;
        println!(
            "resume: {VICTIM} lacked {:.1} MB and received {:.1} MB in its second run: {factor:.3} x",
            kill.lacked_bytes as f64 / 1e6,
            report.received_bytes as f64 / 1e6,
        );
        let wire = room.loss().count(&room.machine(VICTIM)?.spec().tap())?;
        println!(
            "resume: meanwhile {:.1} MB of multicast came to its port",
            wire.since(&kill.before).bytes as f64 / 1e6
        );
        if factor > RESUME_FACTOR_MAX {
            misses.push(format!(
                "{VICTIM} received {factor:.2} x of what it lacked, at most {RESUME_FACTOR_MAX} is allowed"
            ));
        }
    }
    Ok(misses)
}

fn check_loss(room: &Room) -> Result<Vec<String>> {
    let asked = room.loss().percent();
    let mut misses = Vec::new();
    for machine in room.machines() {
        let count = room.loss().count(&machine.spec().tap())?;
        let name = &machine.spec().name;
        println!(
            "loss: {name}: {} of {} datagrams dropped, {:.2} % (asked {asked} %)",
            count.dropped,
            count.datagrams,
            count.percent()
        );
        if (count.percent() - asked).abs() > asked * LOSS_TOLERANCE {
            misses.push(format!("{name}: the loss was {:.2} %", count.percent()));
        }
    }
    Ok(misses)
}

fn check_sessions(capture: Capture) -> Result<Option<String>> {
    let sessions = capture.finish()?;
    for (session, datagrams) in &sessions {
        println!("wire: session {session:08x}: {datagrams} datagrams");
    }
    Ok((sessions.len() != 1).then(|| format!("{} sessions on the wire, not one", sessions.len())))
}

fn check_cpu(room: &Room, elapsed: Duration) -> Result<Option<String>> {
    let cpu = room.cpu_seconds()?;
    println!(
        "cost: {cpu:.0} CPU s of QEMU, {:.0} s by the clock",
        elapsed.as_secs_f64()
    );
    Ok((cpu > CPU_SECONDS_MAX)
        .then(|| format!("{cpu:.0} CPU s of QEMU, more than {CPU_SECONDS_MAX}")))
}

fn print_table(journeys: &[Journey<'_>]) {
    println!(
        "{:<9}{:>9}{:>15}{:>9}  {:<9} {:<6}",
        "MACHINE", "SECONDS", "BYTES RECEIVED", "REPAIRS", "VERIFIED", "BOOTED"
    );
    for journey in journeys {
        let report = journey.job.report.clone().unwrap_or_default();
        let word = |yes| if yes { "yes" } else { "NO" };
        println!(
            "{:<9}{:>9.1}{:>15}{:>9}  {:<9} {:<6}",
            journey.name(),
            report.seconds,
            report.received_bytes,
            report.repair_symbols,
            word(report.verified),
            word(journey.has_arrived())
        );
    }
}
