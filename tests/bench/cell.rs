//! One cell of the table: one program, so many receivers, so much loss.

use std::{
    fmt, fs,
    path::PathBuf,
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
const LIMIT: Duration = Duration::from_secs(15);
/// Receivers end soon after their sender, or not at all.
const STRAGGLERS: Duration = Duration::from_secs(5);
/// Receivers are up before the sender starts.
const HEAD_START: Duration = Duration::from_millis(500);
/// Files lie in memory: the network is measured.
const DISKS: &str = "/mnt";

/// What is measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) tool: Tool,
    pub(crate) receivers: usize,
    pub(crate) loss_percent: f64,
    pub(crate) rate_megabits: u32,
    pub(crate) raw: PathBuf,
    pub(crate) image: PathBuf,
    /// What netflash sends at least.
    pub(crate) payload_bytes: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// From the start of the sender until the last receiver has everything.
    pub(crate) seconds: f64,
    /// Bytes at the sender's interface for each byte of payload.
    pub(crate) wire: f64,
    pub(crate) sender_cpu: f64,
    /// All receivers together.
    pub(crate) receivers_cpu: f64,
    /// Receivers that did not get exactly the payload.
    pub(crate) failures: usize,
}

impl Measured {
    /// The run with the median time; failures of all runs are summed.
    pub(crate) fn median(mut runs: Vec<Measured>) -> Measured {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let failures = runs.iter().map(|run| run.failures).sum();
        Measured {
            failures,
            ..runs[runs.len() / 2]
        }
    }
}

/// Runs it, in a world made for it.
pub(crate) fn measure(cell: &Cell) -> Result<Measured> {
    sh(&format!("mount -t tmpfs tmpfs {DISKS}"))?;
    let hall = Hall::build(cell.receivers, cell.loss_percent)?;
    let mut outputs = Vec::new();
    let mut receivers = Vec::new();
    for name in hall.receivers() {
        let (output, file) = cell.tool.output_of(DISKS.as_ref(), &name, &cell.raw);
        if output != file {
            fs::create_dir(&output).context("making a receiver's directory")?;
        }
        receivers.push(cell.tool.receiver(&name, &output)?);
        outputs.push(file);
    }
    thread::sleep(HEAD_START);
    let before = hall.sent()?;
    let sender = cell.tool.sender(&hall, cell)?;
    let started = sender.started();
    let sent = sender.wait(LIMIT);
    let ended = receivers
        .into_iter()
        .map(|receiver| end(cell.tool, receiver, sent.is_ok()));
    let ended: Vec<Option<Ended>> = ended.collect();
    let wire_bytes = hall.sent()?.since(&before).bytes;
    let right = outputs
        .iter()
        .filter(|file| sh(&format!("cmp {} {file}", cell.raw.display())).is_ok())
        .count();
    let raw_bytes = fs::metadata(&cell.raw)
        .context("looking at the payload")?
        .len();
    let payload_bytes = if cell.tool == Tool::Netflash {
        cell.payload_bytes
    } else {
        raw_bytes
    };
    let sent = sent.ok();
    let last = finish(cell.tool, sent.as_ref(), &ended);
    Ok(Measured {
        seconds: last
            .map_or(LIMIT, |last| last.duration_since(started))
            .as_secs_f64(),
        wire: wire_bytes as f64 / payload_bytes as f64,
        sender_cpu: sent.map_or(0.0, |ended| ended.cpu.as_secs_f64()),
        receivers_cpu: ended
            .iter()
            .flatten()
            .map(|ended| ended.cpu.as_secs_f64())
            .sum(),
        failures: cell.receivers - right,
    })
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

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} s, wire {:.3}, CPU {:.2} + {:.2} s, {} failures",
            self.seconds, self.wire, self.sender_cpu, self.receivers_cpu, self.failures
        )
    }
}
