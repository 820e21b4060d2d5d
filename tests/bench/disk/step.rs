//! One measured run of a command.

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a command took.
#[derive(Clone, Debug, Default)]
pub(super) struct Step {
    pub(super) seconds: f64,
    /// Of all its processes, in the kernel too; the kernel's own threads are not counted.
    pub(super) cpu_seconds: f64,
    /// The most its first process held, in bytes.
    pub(super) peak_memory: u64,
    /// What it printed.
    pub(super) stdout: String,
}

impl Step {
    /// Runs `line` in a shell, which must succeed.
    pub(super) fn run(line: &str) -> Result<Step> {
        let cpu_before = children()?;
        let started = Instant::now();
        // The shell becomes the last program of the line, so that its memory is looked at.
        let child = Command::new("bash")
            .args(["-o", "pipefail", "-c", line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting a shell")?;
        let id = child.id();
        let waiting = thread::spawn(move || (child.wait_with_output(), Instant::now()));
        let mut peak_memory = 0;
        while !waiting.is_finished() {
            peak_memory = peak_of(id).unwrap_or(0).max(peak_memory);
            thread::sleep(LOOK);
        }
        let (output, ended) = waiting.join().expect("waiting does not panic");
        let output = output.with_context(|| format!("waiting for {line}"))?;
        ensure!(
            output.status.success(),
            "{line}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Step {
            seconds: ended.duration_since(started).as_secs_f64(),
            cpu_seconds: children()? - cpu_before,
            peak_memory,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        })
    }

    /// The run with the median time; the most memory of all.
    pub(super) fn median(mut runs: Vec<Step>) -> Step {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let peak_memory = runs.iter().map(|run| run.peak_memory).max().unwrap_or(0);
        Step {
            peak_memory,
            ..runs.swap_remove(runs.len() / 2)
        }
    }
}

/// Processor time of everybody who was waited for, in seconds.
fn children() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("asking for processor time")?;
    // The name in brackets may hold anything; the third field follows it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<f64>().ok();
    let ticks = field(16)
        .zip(field(17))
        .context("the kernel counts in another way")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock tick")?;
    Ok((ticks.0 + ticks.1) / per_second as f64)
}

/// The most memory a process held so far, in bytes.
fn peak_of(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes << 10)
}
