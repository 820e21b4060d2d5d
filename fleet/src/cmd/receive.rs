//! `netflash receive`: an image from a session onto a disk.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use netflash_imager::{
    DeployEvent, DeployObserver, DeployOptions, DeployPhase, DeployReport, FreePolicy, ImageId,
    Target, TargetOptions, VerifyPolicy,
};
use netflash_multicast::{
    Bypass, InterfaceChoice, ObjectId, ReceiveConfig, ReceiveError, ReceiveEvent, ReceiveReport,
    receive_beside,
};

use crate::{
    Exit,
    adapter::DeploySink,
    cmd::scope::ScopeArgs,
    cmd::transfer::{
        FallbackResult, ReceiverResult, SharedKeys, TransferResult, megabytes_per_second, percent,
        seconds,
    },
    confirm::confirm_erasing,
    detour::HttpDetour,
    interrupt::stop_on_signal,
    progress::StatusLine,
    units::{DEFAULT_GROUP, parse_duration, parse_group},
};

/// Receive an image onto a disk
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash receive /dev/nvme0n1 --iface eth0
  netflash receive copy.raw --yes --json
  netflash receive /dev/sda --keep 4
  netflash receive /dev/sda --http 10.0.0.1:9079")]
pub(crate) struct ReceiveArgs {
    /// The disk: a block device, or a regular file (created if absent)
    #[arg(value_name = "DISK")]
    disk: PathBuf,
    /// Interface to listen on, by name or address; needed when there are several
    #[arg(long, value_name = "IF", default_value = "auto")]
    iface: String,
    /// Multicast group and port
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = DEFAULT_GROUP.into(), value_parser = parse_group)]
    group: SocketAddr,
    /// Take only this image, by its whole id
    #[arg(long, value_name = "ID")]
    image_id: Option<ImageId>,
    /// Secret shared with the sender: only what is sealed with it is received
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Name to be called by [default: the host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Give up when no session is heard for this long [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    search: Option<Duration>,
    /// Give up when the sender is silent for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    silence: Duration,
    /// Where `netflash send --http` answers: what multicast does not bring is
    /// fetched there
    #[arg(long, value_name = "IP:PORT", conflicts_with = "key_file")]
    http: Option<SocketAddr>,
    /// Go to --http when multicast has failed for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    patience: Duration,
    /// Tell the switch again so often that this machine listens, for switches
    /// that snoop without a querier; 0: never. Needs root, and IPv4
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    igmp: Duration,
    #[command(flatten)]
    scope: ScopeArgs,
    /// What becomes of free space: leave, discard or zero
    #[arg(long, value_name = "POLICY", default_value = "leave", value_parser = parse_free)]
    free: FreePolicy,
    /// What is read back before it counts: full, or sample (one MiB of 16)
    #[arg(long, value_name = "POLICY", default_value = "full", value_parser = parse_verify)]
    verify: VerifyPolicy,
    /// Take every datagram by itself, as a network card without offload does
    #[arg(long)]
    no_merge: bool,
    /// Erase the disk without asking
    #[arg(long)]
    yes: bool,
}

/// Receives until the disk is whole and the sender knows.
pub(crate) fn run(args: &ReceiveArgs, json: bool) -> anyhow::Result<Exit> {
    let options = TargetOptions {
        create: args.scope.is_whole(),
        ..TargetOptions::default()
    };
    let target = Target::open(&args.disk, options)?;
    if target.bytes() > 0 {
        let what = format!("{} ({} bytes)", args.disk.display(), target.bytes());
        let what = args.scope.part_of(what);
        confirm_erasing(&what, args.yes)?;
    }
    let stop = stop_on_signal()?;
    let keys = args.key_file.as_deref().map(SharedKeys::of_file);
    let keys = keys.transpose()?;
    let name = args.name.clone().unwrap_or_else(host_name);
    let config = ReceiveConfig {
        interface: args.iface.parse::<InterfaceChoice>()?,
        group: args.group,
        name: name.clone(),
        session: None,
        verify_key: keys.as_ref().map(|keys| keys.signing.verify_key()),
        membership: keys.as_ref().map(SharedKeys::membership),
        object_id: args.image_id.map(|id| ObjectId(id.0)),
        search: args.search,
        silence: args.silence,
        merging: !args.no_merge,
        remind: (!args.igmp.is_zero()).then_some(args.igmp),
    };
    let deploy_options = DeployOptions {
        free: args.free,
        verify: args.verify,
        stop: Arc::clone(&stop),
        ..args.scope.options()
    };
    let line = Arc::new(Mutex::new(StatusLine::new()));
    let sink = DeploySink::new(target, deploy_options, disk_view(&line));
    let outcome = sink.outcome();
    let bypass = args.http.map(|address| Bypass {
        way: Box::new(HttpDetour::new(address)),
        patience: args.patience,
    });
    let report = match receive_beside(config, bypass, sink, |event| show(&line, event), &stop) {
        Err(ReceiveError::Interrupted) => return Ok(Exit::Interrupted),
        other => other.with_context(|| format!("receiving onto {}", args.disk.display()))?,
    };
    locked(&line, StatusLine::clear);
    let deployed = outcome.report();
    finish(&report, deployed.as_ref(), &name, json)?;
    Ok(Exit::Done)
}

fn finish(
    report: &ReceiveReport,
    deployed: Option<&DeployReport>,
    name: &str,
    json: bool,
) -> anyhow::Result<()> {
    // A session only completes after the disk was read back and committed.
    let deployed = deployed.context("the disk was not committed")?;
    if json {
        let result = TransferResult {
            image_id: report.object_id.to_string(),
            seconds: seconds(report.took),
            wire_bytes: report.wire_bytes,
            datagrams: report.stats.datagrams,
            source_symbols: report.stats.source_symbols,
            repair_symbols: report.stats.repair_symbols,
            rate: None,
            rate_changes: Vec::new(),
            fallback: report.detour.as_ref().map(|detour| FallbackResult {
                reason: Some(detour.reason.to_string()),
                bytes: detour.bytes,
            }),
            receivers: vec![ReceiverResult {
                name: name.to_owned(),
                seconds: seconds(report.took),
                received_bytes: report.stats.useful_bytes,
                lost_symbols: report.stats.lost,
                verified: true,
            }],
        };
        println!("{}", serde_json::to_string(&result)?);
        return Ok(());
    }
    println!(
        "{} is on the disk and verified: {} frames written, {} were there already",
        report.object_id, deployed.written_frames, deployed.kept_frames
    );
    println!(
        "{:.1} MB in {:.1} s ({:.1} MB/s), {} datagrams lost, {} dropped here",
        report.stats.useful_bytes as f64 / 1e6,
        report.took.as_secs_f64(),
        megabytes_per_second(report.stats.useful_bytes, report.took),
        report.stats.lost,
        report.overflow
    );
    if let Some(detour) = &report.detour {
        println!(
            "{:.1} MB of it came over HTTP: {}",
            detour.bytes as f64 / 1e6,
            detour.reason
        );
    }
    if let Some(reason) = &deployed.stale_table {
        eprintln!(
            "the kernel still has the old partition table ({reason}); reboot, or run partprobe"
        );
    }
    Ok(())
}

/// Shows what the network does.
fn show(line: &Mutex<StatusLine>, event: ReceiveEvent) {
    locked(line, |line| match event {
        ReceiveEvent::Open { interface } => line.say(&format!("listening on {interface}")),
        ReceiveEvent::Obstacle(obstacle) => line.say(&format!("not joined: {obstacle}")),
        ReceiveEvent::Joined {
            session,
            object_id,
            verify_key,
        } => line.say(&format!(
            "session {session:08x} sends image {object_id}, key {verify_key}"
        )),
        ReceiveEvent::Surveying => line.say("looking at what is on the disk"),
        ReceiveEvent::Surveyed { blocks, wanted } => {
            line.say(&format!("{wanted} of {blocks} blocks are wanted"));
        }
        ReceiveEvent::Blocked { reason } => line.say(&reason.to_string()),
        ReceiveEvent::Detour { trouble } => line.say(&format!("the other way: {trouble}")),
        ReceiveEvent::Unblocked => line.say("multicast is back"),
        ReceiveEvent::Settling => line.say("everything is here; reading it back"),
        ReceiveEvent::Complete => line.say("the disk is whole"),
        ReceiveEvent::Progress { stats, lacking, .. } => {
            if stats.wanted_blocks > 0 && lacking > 0 {
                line.show(&format!(
                    "{} %, {} of {} blocks, {:.1} MB, {} lost",
                    percent(u64::from(stats.done_blocks), u64::from(stats.wanted_blocks)),
                    stats.done_blocks,
                    stats.wanted_blocks,
                    stats.useful_bytes as f64 / 1e6,
                    stats.lost
                ));
            }
        }
    });
}

/// Shows what the disk does while the network waits for it.
fn disk_view(line: &Arc<Mutex<StatusLine>>) -> DeployObserver {
    let line = Arc::clone(line);
    Arc::new(move |event: DeployEvent| {
        let phase = match event.phase {
            DeployPhase::Survey => "survey",
            DeployPhase::Verify => "reading back",
            // These follow the network, which has a line of its own.
            DeployPhase::Write | DeployPhase::Commit => return,
        };
        let done = percent(event.done_bytes, event.total_bytes);
        locked(&line, |line| line.show(&format!("{phase}: {done} %")));
    })
}

fn locked<T>(line: &Mutex<StatusLine>, act: impl FnOnce(&mut StatusLine) -> T) -> T {
    act(&mut line.lock().unwrap_or_else(PoisonError::into_inner))
}

fn parse_free(text: &str) -> Result<FreePolicy, String> {
    match text {
        "leave" => Ok(FreePolicy::Leave),
        "discard" => Ok(FreePolicy::Discard),
        "zero" => Ok(FreePolicy::Zero),
        _ => Err("expected leave, discard or zero".to_owned()),
    }
}

fn parse_verify(text: &str) -> Result<VerifyPolicy, String> {
    match text {
        "full" => Ok(VerifyPolicy::Full),
        "sample" => Ok(VerifyPolicy::Sample),
        _ => Err("expected full or sample".to_owned()),
    }
}

/// The name of this machine; the session cuts it to what fits.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unnamed" } else { name }.to_owned()
}
