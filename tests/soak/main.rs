//! Half an hour of bad weather, and what is left standing.
//!
//! ```text
//!   s: two long sessions, one sealed      r1, r2: machines that hardly anything reaches, for the whole time
//!      and short ones, some killed        r3..r5: join at any moment, are killed, return
//!   r8: a stranger who forges, cuts       r6: the same, behind a cable where datagrams overtake others
//!       and repeats datagrams             r7: the machine of the short sessions
//! ```
//!
//! In the end every machine that said it was done must have had exactly the disk (`cmp` says so), no program may have
//! panicked, and neither senders nor receivers may hold more memory than after their warm-up.

mod memory;
mod relay;
mod session;
mod vandal;
mod visitor;
mod wire;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tests::{
    lab::{enter, sh},
    net::{Hall, Program},
    sim::Chance,
};

use memory::Watch;
use session::Session;
use vandal::Deeds;
use visitor::Diary;

/// Machines, the stranger included.
const NAMESPACES: usize = 8;
/// Loss towards each of them, in per cent.
const LOSS: f64 = 1.0;
/// Size of the disks of the long sessions, in MiB.
const MEBIBYTES: usize = 64;
/// Size of the disk of the short ones.
const SHORT_MEBIBYTES: usize = 8;
/// Growth allowed, in per cent of what is held after the warm-up.
const GROWTH_MAX: f64 = 5.0;
/// A shorter run is all warm-up.
const MINUTES_JUDGED: u64 = 10;
/// The starved machines would need so many times the whole run.
const STARVED: f64 = 1.2;
/// How often things are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long everything may take to end once the weather is fine.
const ENDING: Duration = Duration::from_secs(240);

/// Sessions in bad weather: random joins and kills, loss, reordering, forgery
#[derive(Debug, Parser)]
#[command(name = "soak", after_help = "Example:\n  sudo -E soak --minutes 30")]
struct Options {
    /// How long
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1440))]
    minutes: u64,
    /// The seed of everything that chance decides here [default: of the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let mut options = Options::parse();
    enter()?;
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = *options
        .seed
        .get_or_insert(clock.unwrap_or_default().as_secs());
    println!("{} minutes of bad weather, seed {seed}", options.minutes);
    let complaints = soak(&options, &Chance::new(seed))?;
    if complaints.is_empty() {
        println!("everything held");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} promises broken:", complaints.len());
    complaints.iter().for_each(|what| println!("  {what}"));
    Ok(ExitCode::FAILURE)
}

/// A long session with its starved machine.
struct Long {
    sender: Program,
    machine: Program,
    watches: [Watch; 2],
}

fn soak(options: &Options, chance: &Chance) -> Result<Vec<String>> {
    let directory = tempfile::tempdir().context("making room for disks")?;
    let path = directory.path();
    let hall = Hall::build(NAMESPACES, LOSS)?;
    prepare()?;
    let sessions = [
        Session::new("sealed", "239.192.78.70:9078", MEBIBYTES, "40M", true, path)?,
        Session::new("open", "239.192.78.71:9079", MEBIBYTES, "40M", false, path)?,
    ];
    let short = Session::new(
        "short",
        "239.192.78.72:9080",
        SHORT_MEBIBYTES,
        "20M",
        true,
        path,
    )?;
    let length = Duration::from_secs(options.minutes * 60);
    let mut longs = Vec::new();
    for (session, namespace) in sessions.iter().zip(["r1", "r2"]) {
        let scarcity = session.symbols() as f64 / (length.as_secs_f64() * STARVED);
        session::starve(namespace, (scarcity as u64).max(5))?;
        let machine = session.receive(namespace, &path.join(format!("{namespace}.raw")))?;
        let sender = session.send(hall.sender())?;
        let watches = [
            Watch::new(format!("sender of {}", session.name), sender.id()?),
            Watch::new(format!("receiver of {}", session.name), machine.id()?),
        ];
        longs.push(Long {
            sender,
            machine,
            watches,
        });
    }

    let (diary, deeds, held) = (Diary::default(), Deeds::default(), AtomicU64::new(0));
    // People leave first, while there is weather still.
    let (leave, clear) = (AtomicBool::new(false), AtomicBool::new(false));
    let stranger = hall
        .address(NAMESPACES)
        .parse()
        .context("the address of the stranger")?;
    let report = |what: &'static str, outcome: Result<()>| {
        if let Err(error) = outcome {
            diary.complain(format!("{what}: {error:#}"));
        }
    };
    thread::scope(|scope| -> Result<()> {
        let (report, diary, deeds, held, sessions) = (&report, &diary, &deeds, &held, &sessions);
        let (leave, clear, short) = (&leave, &clear, &short);
        let fork = |purpose| chance.fork(purpose);
        let (cable, mischief) = (fork(1), fork(2));
        scope.spawn(move || report("the cable", relay::downstream("r6", cable, held, clear)));
        scope.spawn(move || report("the cable back", relay::upstream("r6", clear)));
        scope.spawn(move || {
            report(
                "the stranger",
                vandal::vandalize("r8", stranger, mischief, deeds, clear),
            )
        });
        let mut people = Vec::new();
        for (at, namespace) in ["r3", "r4", "r5", "r6"].into_iter().enumerate() {
            let whim = fork(10 + at as u64);
            people.push(scope.spawn(move || {
                report(
                    "a visitor",
                    visitor::visit(namespace, sessions, path, whim, diary, leave),
                );
            }));
        }
        let (whim, ends) = (fork(20), (hall.sender(), "r7"));
        people.push(scope.spawn(move || {
            report(
                "short sessions",
                visitor::short_sessions(ends, short, path, whim, diary, leave),
            );
        }));
        let outcome = watch(&mut longs, length, diary, deeds);
        leave.store(true, Ordering::Relaxed);
        while people.iter().any(|person| !person.is_finished()) {
            thread::sleep(TICK);
        }
        clear.store(true, Ordering::Relaxed);
        outcome
    })?;
    for (long, (session, namespace)) in longs.into_iter().zip(sessions.iter().zip(["r1", "r2"])) {
        session::feed(namespace)?;
        conclude(long, session, namespace, path, &diary, options.minutes)?;
    }
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    println!(
        "{} disks complete and equal, {} kills of machines ({} returned with their disk), {} of senders",
        count(&diary.completed),
        count(&diary.killed),
        count(&diary.returned),
        count(&diary.senders_killed),
    );
    println!(
        "mischief: {} forged, {} truncated, {} replayed, {} invented, {} overtaken",
        count(&deeds.forged),
        count(&deeds.truncated),
        count(&deeds.replayed),
        count(&deeds.invented),
        count(&held),
    );
    // Weather that did not come proves nothing.
    let wanted = length.as_secs() * vandal::RATE * 9 / 10;
    if deeds.total() < wanted || count(&held) == 0 {
        diary.complain(format!(
            "too little mischief: {} of {wanted}",
            deeds.total()
        ));
    }
    if count(&diary.completed) < options.minutes || count(&diary.killed) == 0 {
        diary.complain("hardly anybody came, or nobody was killed".to_owned());
    }
    Ok(diary.complaints())
}

/// Settings of the network that only this program needs.
fn prepare() -> Result<()> {
    // What a packet socket carries on needs its checksum.
    for namespace in ["s", "r6"] {
        sh(&format!("ip netns exec {namespace} ethtool -K eth0 tx off"))?;
    }
    // Reports reach the stranger too: the bridge does not know where the sender is.
    sh("ip link set p-s type bridge_slave learning off fdb_flush")?;
    relay::cut("r6")
}

/// Looks after the long sessions while the weather is bad.
fn watch(longs: &mut [Long], length: Duration, diary: &Diary, deeds: &Deeds) -> Result<()> {
    let started = Instant::now();
    let mut told = 0;
    while started.elapsed() < length {
        thread::sleep(TICK);
        for long in &mut *longs {
            long.watches.iter_mut().for_each(Watch::look);
            ensure!(
                long.sender.is_running()?,
                "{} ended early",
                long.watches[0].name
            );
            ensure!(
                long.machine.is_running()?,
                "{} ended early",
                long.watches[1].name
            );
        }
        let minute = started.elapsed().as_secs() / 60;
        if minute > told {
            told = minute;
            let completed = diary.completed.load(Ordering::Relaxed);
            println!(
                "minute {minute}: {completed} disks complete, {} acts of mischief",
                deeds.total()
            );
        }
    }
    Ok(())
}

/// The starved machine is fed, finishes, and with it the session.
fn conclude(
    long: Long,
    session: &Session,
    namespace: &str,
    path: &std::path::Path,
    diary: &Diary,
    minutes: u64,
) -> Result<()> {
    let ended = long.machine.wait(ENDING)?;
    visitor::judge(
        &ended,
        session,
        &path.join(format!("{namespace}.raw")),
        namespace,
        diary,
    );
    // Machines that were killed for good make it say 1.
    diary.examine(
        &long.sender.wait(ENDING)?,
        &format!("the sender of {}", session.name),
    );
    for watch in &long.watches {
        let Some(growth) = watch.growth() else {
            diary.complain(format!("{} was never looked at", watch.name));
            continue;
        };
        println!(
            "{}: {:.1} MiB after the warm-up, {:.1} MiB in the end, {:.1} MiB at most, growth {:+.1} %",
            watch.name,
            growth.warm_kib as f64 / 1024.0,
            growth.last_kib as f64 / 1024.0,
            growth.most_kib as f64 / 1024.0,
            growth.percent(),
        );
        if minutes >= MINUTES_JUDGED && growth.percent() >= GROWTH_MAX {
            diary.complain(format!("{} grows by {:.1} %", watch.name, growth.percent()));
        }
    }
    Ok(())
}
