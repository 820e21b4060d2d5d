//! One cell of a table: one program, in one kind of network.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tests::{
    lab::sh,
    net::{Ended, Hall, Program},
};

use crate::tool::Tool;

/// A run that takes longer has failed; on an idle machine.
const LIMIT: Duration = Duration::from_secs(60);
/// Receivers end soon after their sender, or not at all.
const STRAGGLERS: Duration = Duration::from_secs(10);
/// Receivers are up before the sender starts.
const HEAD_START: Duration = Duration::from_millis(500);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Files lie in memory: the network is measured.
const DISKS: &str = "/mnt";

/// The network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) receivers: usize,
    pub(crate) loss_percent: f64,
    /// The sender's link, in Mbit/s; as fast as the processors without.
    pub(crate) link_megabits: Option<u32>,
    /// Whether many datagrams may travel as one.
    pub(crate) offload: bool,
}

impl Default for World {
    fn default() -> World {
        World {
            receivers: 8,
            loss_percent: 0.0,
            link_megabits: None,
            offload: false,
        }
    }
}

impl World {
    /// Makes it.
    pub(crate) fn build(&self) -> Result<Hall> {
        sh(&format!("mount -t tmpfs -o size=80% tmpfs {DISKS}"))?;
        let hall = Hall::build(self.receivers, self.loss_percent)?;
        if self.offload {
            hall.allow_offload()?;
        }
        if let Some(megabits) = self.link_megabits {
            hall.limit_link(megabits)?;
        }
        Ok(hall)
    }
}

/// A file in memory, for the disk of the receiver `name`.
pub(crate) fn disk_of(name: &str) -> PathBuf {
    Path::new(DISKS).join(name)
}

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) tool: Tool,
    pub(crate) world: World,
    pub(crate) rate_megabits: u32,
    /// What netflash is told where only the processors set a limit.
    pub(crate) fast_megabits: u32,
    /// Whether receivers use UDP_GRO.
    pub(crate) merging: bool,
    /// Whether only a sample is read back.
    pub(crate) sample: bool,
    /// Whether both ends have the key.
    pub(crate) sealed: bool,
    /// The disk that is sent: as a file, and as an image.
    pub(crate) raw: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) key: PathBuf,
    /// What netflash sends at least.
    pub(crate) payload_bytes: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// From the start of the sender until the last receiver has everything.
    pub(crate) seconds: f64,
    /// The mean of that over all runs.
    pub(crate) mean_seconds: f64,
    /// Bytes at the sender's interface for each byte of payload.
    pub(crate) wire: f64,
    pub(crate) sender_cpu: f64,
    /// All receivers together.
    pub(crate) receivers_cpu: f64,
    /// The most memory that one receiver held, in bytes.
    pub(crate) peak_memory: u64,
    /// Receivers that did not get exactly the payload.
    pub(crate) failures: usize,
}

impl Measured {
    /// The run with the median time; failures of all runs are summed.
    pub(crate) fn median(mut runs: Vec<Measured>) -> Measured {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let mean_seconds = runs.iter().map(|run| run.seconds).sum::<f64>() / runs.len() as f64;
        Measured {
            mean_seconds,
            failures: runs.iter().map(|run| run.failures).sum(),
            peak_memory: runs.iter().map(|run| run.peak_memory).max().unwrap_or(0),
            ..runs[runs.len() / 2]
        }
    }
}

/// Runs it, in a world made for it.
pub(crate) fn measure(cell: &Cell) -> Result<Measured> {
    let hall = cell.world.build()?;
    let mut outputs = Vec::new();
    let mut receivers = Vec::new();
    for name in hall.receivers() {
        let (output, file) = cell.tool.output_of(DISKS.as_ref(), &name, &cell.raw);
        if output != file {
            fs::create_dir(&output).context("making a receiver's directory")?;
        }
        receivers.push(cell.tool.receiver(&name, &output, cell)?);
        outputs.push(file);
    }
    thread::sleep(HEAD_START);
    let before = hall.sent()?;
    let sender = cell.tool.sender(&hall, cell)?;
    let started = sender.started();
    let mut peak_memory = watch_memory(&receivers, &sender);
    let sent = sender.wait(LIMIT);
    peak_memory = peak_memory.max(peak_of(&receivers));
    let ended = receivers
        .into_iter()
        .map(|receiver| end(cell.tool, receiver, sent.is_ok()));
    let ended: Vec<Option<Ended>> = ended.collect();
    let wire_bytes = hall.sent()?.since(&before).bytes;
    let right = outputs
        .iter()
        .filter(|file| sh(&format!("cmp {} {file}", cell.raw.display())).is_ok())
        .count();
    let sent = sent.ok();
    let last = finish(cell.tool, sent.as_ref(), &ended);
    Ok(Measured {
        seconds: last
            .map_or(LIMIT, |last| last.duration_since(started))
            .as_secs_f64(),
        mean_seconds: 0.0,
        wire: wire_bytes as f64 / payload_bytes(cell)? as f64,
        sender_cpu: sent.map_or(0.0, |ended| ended.cpu.as_secs_f64()),
        receivers_cpu: ended
            .iter()
            .flatten()
            .map(|ended| ended.cpu.as_secs_f64())
            .sum(),
        peak_memory,
        failures: cell.world.receivers - right,
    })
}

/// What this program has to bring to each machine, in bytes.
pub(crate) fn payload_bytes(cell: &Cell) -> Result<u64> {
    if cell.tool == Tool::Netflash {
        return Ok(cell.payload_bytes);
    }
    let raw = fs::metadata(&cell.raw).context("looking at the payload")?;
    Ok(raw.len())
}

/// Looks at the memory of the receivers until the sender ends; who ends is not looked at any more.
fn watch_memory(receivers: &[Program], sender: &Program) -> u64 {
    let mut peak = 0;
    while sender.peak_memory().is_some() && sender.started().elapsed() < LIMIT {
        peak = peak_of(receivers).max(peak);
        thread::sleep(LOOK);
    }
    peak
}

fn peak_of(receivers: &[Program]) -> u64 {
    let peaks = receivers.iter().filter_map(Program::peak_memory);
    peaks.max().unwrap_or(0)
}

fn end(tool: Tool, receiver: Program, sent: bool) -> Option<Ended> {
    if !tool.receivers_end() || !sent {
        receiver.ask_to_end().ok()?;
    }
    receiver.wait(STRAGGLERS).ok()
}

/// When everybody had everything: the end of the last receiver, or of the sender where receivers stay.
fn finish(tool: Tool, sent: Option<&Ended>, receivers: &[Option<Ended>]) -> Option<Instant> {
    if tool.receivers_end() {
        receivers.iter().flatten().map(|ended| ended.ended).max()
    } else {
        sent.map(|ended| ended.ended)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tool)?;
        for (said, word) in [
            (self.sample, "sample"),
            (self.sealed, "sealed"),
            (!self.merging, "unmerged"),
        ] {
            if said {
                write!(f, ", {word}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} s, wire {:.3}, CPU {:.2} + {:.2} s, {} failures",
            self.seconds, self.wire, self.sender_cpu, self.receivers_cpu, self.failures
        )
    }
}
