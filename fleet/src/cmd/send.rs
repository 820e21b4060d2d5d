//! `netflash send`: one image to everybody who listens.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use clap::Args;
use netflash_imager::{Image, SealOptions, SealProgress, Source, seal};
use netflash_multicast::{
    Interface, InterfaceChoice, Phase, ReceiverInfo, SendConfig, SendError, SendEvent, SendReport,
    StartRule, random_session, send,
};

use crate::{
    Exit,
    adapter::ImageSource,
    cmd::transfer::{ReceiverResult, TransferResult, percent, seconds, signing_key},
    interrupt::stop_on_signal,
    progress::StatusLine,
    units::{DEFAULT_GROUP, parse_duration, parse_group, parse_rate},
};

/// The automatic rate when the link does not say its speed, and its upper limit.
const AUTO_RATE_MAX: u64 = 900_000_000;
/// The part of a link that the automatic rate takes, in per cent.
const AUTO_RATE_PERCENT: u64 = 90;
/// zstd level for standard input: faster than most networks.
const STREAM_LEVEL: i32 = 1;
/// How long the sender listens after the last machine was done.
const LINGER: Duration = Duration::from_secs(1);

/// Send an image to every machine that listens
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash send debian.img.zst --iface eth0 --receivers 8
  netflash send debian.img.zst --rate 400M --json")]
pub(crate) struct SendArgs {
    /// The image, made by `netflash image create`; `-` reads standard input
    #[arg(value_name = "IMG")]
    image: PathBuf,
    /// Interface to send from, by name or address; needed when there are several
    #[arg(long, value_name = "IF", default_value = "auto")]
    iface: String,
    /// Begin when this many machines are ready
    #[arg(long, value_name = "N", default_value_t = 1)]
    receivers: u32,
    /// Begin at the latest this long after the first machine was heard
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
    /// Bits per second on the wire, such as 400M; `auto` takes nine tenths of
    /// the link, at most 900M
    #[arg(long, value_name = "RATE", default_value = "auto")]
    rate: String,
    /// Multicast group and port
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = DEFAULT_GROUP, value_parser = parse_group)]
    group: SocketAddrV4,
    /// Routers that may be passed, plus one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    ttl: u32,
    /// Secret shared with the receivers: they believe no other sender
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// Sends until every machine that was heard is done.
pub(crate) fn run(args: &SendArgs, json: bool) -> anyhow::Result<Exit> {
    let choice = args.iface.parse::<InterfaceChoice>()?;
    let interface = Interface::choose(&choice)?;
    let rate_bits = rate_bits(&args.rate, &interface)?;
    let stop = stop_on_signal()?;
    let spool;
    let image = if args.image == Path::new("-") {
        spool = tempfile::tempdir().context("making room for standard input")?;
        seal_standard_input(&spool.path().join("stdin.img.zst"), &stop)?
    } else {
        open(&args.image)?
    };
    let image = Arc::new(image);
    let image_id = image.id();
    let source = ImageSource::new(Arc::clone(&image)).context("planning the session")?;
    let config = SendConfig {
        interface: InterfaceChoice::Named(interface.address().to_string()),
        group: args.group,
        ttl: args.ttl,
        loopback: true,
        rate_bits,
        symbol_bytes: None,
        session: random_session()?,
        object_id: source.object_id(),
        signing_key: signing_key(args.key_file.as_deref())?,
        start: StartRule {
            receivers: args.receivers,
            wait: args.wait,
        },
        linger: LINGER,
    };
    let mut view = View::new(args.group, rate_bits, source.block_count());
    let report = match send(config, source, |event| view.show(event), &stop) {
        Err(SendError::Interrupted) => return Ok(Exit::Interrupted),
        other => other.with_context(|| format!("sending {}", args.image.display()))?,
    };
    view.line.clear();
    finish(&report, &image_id.to_string(), json)
}

fn open(path: &Path) -> anyhow::Result<Image> {
    Image::open(path).with_context(|| {
        format!(
            "opening {} (an image is made with `netflash image create SRC {}`)",
            path.display(),
            path.display()
        )
    })
}

/// Receivers must know the whole before it begins: standard input becomes an image first.
fn seal_standard_input(path: &Path, stop: &AtomicBool) -> anyhow::Result<Image> {
    let source = Source::stream(io::stdin()).context("reading standard input")?;
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let options = SealOptions {
        used_only: false,
        level: STREAM_LEVEL,
        note: String::new(),
        parent: None,
        created: created.unwrap_or_default().as_secs(),
        threads: thread::available_parallelism().map_or(1, usize::from),
    };
    let mut line = StatusLine::new();
    let mut show = |progress: SealProgress| {
        line.show(&format!(
            "reading standard input: {:.1} MB",
            progress.raw_bytes as f64 / 1e6
        ));
    };
    seal(source, path, &options, &mut show, stop).context("sealing standard input")?;
    open(path)
}

/// The pace asked for, or nine tenths of the link.
fn rate_bits(rate: &str, interface: &Interface) -> anyhow::Result<u64> {
    if rate != "auto" {
        return parse_rate(rate).map_err(|error| {
            crate::ExitError::new(Exit::Usage, format!("--rate: {error}")).into()
        });
    }
    let link = interface.link_bits_per_second();
    let share = link.map_or(AUTO_RATE_MAX, |bits| bits / 100 * AUTO_RATE_PERCENT);
    Ok(share.min(AUTO_RATE_MAX))
}

/// Prints the result; a machine that did not finish makes it a failure.
fn finish(report: &SendReport, image_id: &str, json: bool) -> anyhow::Result<Exit> {
    if json {
        println!("{}", serde_json::to_string(&result_of(report, image_id))?);
    } else {
        print_table(report);
    }
    let unfinished = unfinished(&report.receivers);
    if unfinished.is_empty() {
        return Ok(Exit::Done);
    }
    let names: Vec<&str> = unfinished.into_iter().collect();
    bail!(
        "{} did not finish: {}",
        machines(names.len()),
        names.join(", ")
    )
}

/// Names of machines that went before they were done and did not come back: under the same name from the same address.
fn unfinished(receivers: &[ReceiverInfo]) -> BTreeSet<&str> {
    let done: BTreeSet<_> = receivers
        .iter()
        .filter(|one| is_done(one))
        .map(identity)
        .collect();
    let lost = receivers.iter().filter(|one| !is_done(one));
    lost.filter(|one| !done.contains(&identity(one)))
        .map(|one| one.name.as_str())
        .collect()
}

fn identity(receiver: &ReceiverInfo) -> (&str, IpAddr) {
    (&receiver.name, receiver.address.ip())
}

fn is_done(receiver: &ReceiverInfo) -> bool {
    receiver.phase == Phase::Done
}

fn result_of(report: &SendReport, image_id: &str) -> TransferResult {
    let receivers = report.receivers.iter().map(|receiver| ReceiverResult {
        name: receiver.name.clone(),
        seconds: seconds(receiver.took),
        received_bytes: receiver.received_bytes,
        lost_symbols: receiver.lost_symbols,
        verified: is_done(receiver),
    });
    TransferResult {
        image_id: image_id.to_owned(),
        seconds: seconds(report.took),
        wire_bytes: report.wire_bytes,
        datagrams: report.stats.datagrams,
        source_symbols: report.stats.source_symbols,
        repair_symbols: report.stats.repair_symbols,
        receivers: receivers.collect(),
    }
}

fn print_table(report: &SendReport) {
    println!(
        "{:<24} {:>8} {:>12} {:>8}  STATE",
        "MACHINE", "SECONDS", "RECEIVED MB", "LOST"
    );
    for receiver in &report.receivers {
        println!(
            "{:<24} {:>8.1} {:>12.1} {:>8}  {}",
            receiver.name,
            receiver.took.as_secs_f64(),
            receiver.received_bytes as f64 / 1e6,
            receiver.lost_symbols,
            if is_done(receiver) {
                "done"
            } else {
                "unfinished"
            }
        );
    }
    println!(
        "{:.1} MB on the wire in {:.1} s, {} source and {} repair symbols",
        report.wire_bytes as f64 / 1e6,
        report.took.as_secs_f64(),
        report.stats.source_symbols,
        report.stats.repair_symbols
    );
}

fn machines(count: usize) -> String {
    if count == 1 {
        "1 machine".to_owned()
    } else {
        format!("{count} machines")
    }
}

/// What a person sees while it runs.
struct View {
    line: StatusLine,
    group: SocketAddrV4,
    rate_bits: u64,
    blocks: u32,
    started: bool,
    /// Names of the machines heard so far.
    names: BTreeMap<u64, String>,
}

impl View {
    fn new(group: SocketAddrV4, rate_bits: u64, blocks: u32) -> View {
        View {
            line: StatusLine::new(),
            group,
            rate_bits,
            blocks,
            started: false,
            names: BTreeMap::new(),
        }
    }

    fn show(&mut self, event: SendEvent) {
        match event {
            SendEvent::Open {
                interface,
                symbol_bytes,
                verify_key,
                ..
            } => self.line.say(&format!(
                "sending to {} from {interface} at {} Mbit/s, {symbol_bytes} bytes a symbol, \
                 key {verify_key}",
                self.group,
                self.rate_bits / 1_000_000,
            )),
            SendEvent::Joined { name, id } => {
                self.line.say(&format!("{name} joined"));
                self.names.insert(id, name);
            }
            SendEvent::Ready { .. } => {}
            SendEvent::Started { ready } => {
                self.started = true;
                self.line
                    .say(&format!("started with {}", machines(ready as usize)));
            }
            SendEvent::Done { id } => {
                let name = self.name_of(id);
                self.line.say(&format!("{name} is done"));
            }
            SendEvent::Lost { id, said_so } => {
                let (name, how) = (
                    self.name_of(id),
                    if said_so { "left" } else { "fell silent" },
                );
                self.line.say(&format!("{name} {how} before it was done"));
            }
            SendEvent::Progress {
                stats,
                receivers,
                blocks_left,
            } => {
                let done = receivers
                    .iter()
                    .filter(|receiver| is_done(receiver))
                    .count();
                let sent = percent(
                    u64::from(self.blocks.saturating_sub(blocks_left)),
                    u64::from(self.blocks),
                );
                if self.started {
                    self.line.show(&format!(
                        "{sent} % of the blocks are everywhere, {done} of {} done, {} repair symbols",
                        machines(receivers.len()),
                        stats.repair_symbols
                    ));
                } else {
                    self.line
                        .show(&format!("waiting: {} heard", machines(receivers.len())));
                }
            }
        }
    }

    fn name_of(&self, id: u64) -> String {
        let known = self.names.get(&id).cloned();
        known.unwrap_or_else(|| format!("machine {id:016x}"))
    }
}
