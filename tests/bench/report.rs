//! The table as Markdown, with everything needed to repeat it.

use std::{fmt::Write, fs};

use anyhow::Result;
use tests::lab::sh;

use crate::{
    cell::{Cell, Measured},
    tool::Tool,
};

/// More runnable tasks for each core than this, and seconds say little: a receiver of the bench is one task each.
const BUSY_PER_CORE: f64 = 6.0;
/// What is then said.
const BUSY: &str = " Other work kept the machine busy meanwhile: the seconds are those of a crowded machine and \
     vary by a factor of two, bytes and processor time are steadier.";

/// `docs/benchmarks.md`.
pub(crate) fn render(
    cells: &[(Cell, Measured)],
    mebibytes: usize,
    runs: usize,
    rate: u32,
) -> Result<String> {
    let mut text = String::new();
    let machine = machine();
    writeln!(
        text,
        "# Benchmarks\n\n\
         Written by `./scripts/bench`; not edited by hand.\n\n\
         {mebibytes} MiB of random data from one sender to N receivers, each in a network namespace of its own around \
         a bridge, every sender told to keep {rate} Mbit/s. Loss is drawn for each receiver on its own. Segmentation \
         offload is off on all interfaces. Files lie in memory. Median of {runs} runs; failures are those of all \
         runs.\n\n{machine}\n"
    )?;
    writeln!(
        text,
        "*Seconds*: from the start of the sender until the last receiver has everything. *Wire*: bytes that left the \
         sender's interface, Ethernet headers included, for each byte of payload. *CPU*: seconds of processor time of \
         the sender, and of all receivers together; the kernel's work of carrying a datagram to N namespaces is \
         charged to whoever sends it. *Failures*: receivers without exactly the payload.\n\n\
         netflash does more than the others in that time: its receivers unpack, check a BLAKE3 hash for each MiB, \
         write, flush, read everything back and hash it again.\n"
    )?;
    writeln!(
        text,
        "| receivers | loss | program | seconds | wire | CPU sender | CPU receivers | failures |"
    )?;
    writeln!(text, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for (cell, measured) in cells {
        writeln!(
            text,
            "| {} | {} % | {} | {:.1} | {:.3} | {:.2} | {:.2} | {} of {} |",
            cell.receivers,
            cell.loss_percent,
            cell.tool,
            measured.seconds,
            measured.wire,
            measured.sender_cpu,
            measured.receivers_cpu,
            measured.failures,
            cell.receivers * runs
        )?;
    }
    writeln!(text, "\n## How each was called\n\n```")?;
    for tool in Tool::ALL {
        for line in tool.command_lines() {
            writeln!(text, "{line}")?;
        }
    }
    writeln!(
        text,
        "```\n\nThe limit of receive buffers, `net.core.rmem_max`, was raised to 8 MiB for them."
    )?;
    Ok(text)
}

/// The machine and the versions, as far as they say.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    let busy = load
        .parse::<f64>()
        .is_ok_and(|load| load > BUSY_PER_CORE * cores as f64);
    let care = if busy { BUSY } else { "" };
    let version =
        |package: &str| sh(&format!("dpkg-query -W -f ${{Version}} {package}")).unwrap_or_default();
    format!(
        "Machine: {cores} cores of {model}, Linux {}, load {} at the end. udpcast {}, UFTP {}.{care}",
        kernel.trim(),
        load,
        version("udpcast"),
        version("uftp"),
    )
}
