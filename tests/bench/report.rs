//! The document: a section for each case, with everything needed to repeat it.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use clap::ValueEnum;
use tests::lab::sh;

use crate::{
    case::Case,
    cell::{Cell, Measured, payload_bytes},
    tool::Tool,
};

/// More runnable tasks for each core than this, and seconds say little: a receiver of the bench is one task each.
const BUSY_PER_CORE: f64 = 6.0;
/// What is then said.
const BUSY: &str = " Other work kept the machine busy meanwhile: the seconds are those of a crowded machine and \
     vary by a factor of two, bytes and processor time are steadier.";
/// The beginning of the document.
const HEAD: &str = "# Benchmarks\n\nWritten by `./scripts/bench`; not edited by hand. Where the time goes is told in \
     [performance.md](performance.md).\n\n\
     One sender and its receivers, each in a network namespace of its own around a bridge; loss is drawn for each \
     receiver on its own; files lie in memory. 64 MiB of random data, where nothing else is said.\n\n\
     *Seconds*: from the start of the sender until the last receiver has everything, median and mean of the runs. \
     *Wire*: bytes that left the sender's interface, Ethernet headers included, for each byte of payload. *CPU*: \
     seconds of processor time of the sender, and of all receivers together; the kernel's work of carrying a datagram \
     to N namespaces is charged to whoever sends it. *Memory*: the most that one receiver held. *Failures*: receivers \
     without exactly the payload, in all runs.\n\n\
     netflash does more than the others in that time: its receivers unpack, check a BLAKE3 hash for each MiB, write, \
     flush, read everything back and hash it again.\n";

/// The section of a case.
pub(crate) fn section(case: Case, cells: &[(Cell, Measured)], runs: usize) -> Result<String> {
    let mut text = String::from(
        "| receivers | loss | program | seconds | mean | MB/s | share | wire | CPU sender | CPU receivers | memory \
         | failures |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (cell, measured) in cells {
        let megabytes = payload_bytes(cell)? as f64 / 1e6 / measured.seconds;
        let world = cell.world;
        let share = world.link_megabits.map_or("".to_owned(), |megabits| {
            format!(
                "{:.2}",
                megabytes * measured.wire * 8.0 / f64::from(megabits)
            )
        });
        writeln!(
            text,
            "| {} | {} % | {cell} | {:.2} | {:.2} | {megabytes:.0} | {share} | {:.3} | {:.2} | {:.2} | {} MiB | {} of {} |",
            world.receivers,
            world.loss_percent,
            measured.seconds,
            measured.mean_seconds,
            measured.wire,
            measured.sender_cpu,
            measured.receivers_cpu,
            measured.peak_memory >> 20,
            measured.failures,
            world.receivers * runs
        )?;
    }
    writeln!(text)?;
    for line in comparisons(cells) {
        writeln!(text, "{line}")?;
    }
    writeln!(text, "\n```")?;
    let mut tools: Vec<Tool> = cells.iter().map(|(cell, _)| cell.tool).collect();
    tools.dedup();
    tools.sort();
    tools.dedup();
    for tool in tools {
        for line in tool.command_lines() {
            writeln!(text, "{line}")?;
        }
    }
    let rates = cells.iter().map(|(cell, _)| cell.rate_megabits.to_string());
    let mut rates: Vec<String> = rates.collect();
    rates.sort();
    rates.dedup();
    writeln!(text, "```\n\nRATE was {}.", rates.join(" or "))?;
    frame(case, &text)
}

/// How netflash stands beside the better of the others, network by network.
fn comparisons(cells: &[(Cell, Measured)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (cell, ours) in cells.iter().filter(|(cell, _)| cell.tool == Tool::Netflash) {
        let others = cells.iter().filter(|(other, measured)| {
            other.tool != Tool::Netflash && other.world == cell.world && measured.failures == 0
        });
        let best = |figure: fn(&Measured) -> f64| {
            let figures = others.clone().map(|(_, measured)| figure(measured));
            figures.reduce(f64::min)
        };
        let figures = best(|measured| measured.seconds)
            .zip(best(|measured| measured.sender_cpu))
            .zip(best(|measured| measured.receivers_cpu));
        if let Some(((seconds, sender_cpu), receivers_cpu)) = figures {
            lines.push(format!(
                "- {cell} at {} %: {:.2} times as fast as the faster of the others; CPU of the sender {:.2}, of the \
                 receivers {:.2} of the cheaper one's.",
                cell.world.loss_percent,
                seconds / ours.seconds,
                ours.sender_cpu / sender_cpu,
                ours.receivers_cpu / receivers_cpu
            ));
        }
    }
    lines
}

/// A section around a table, with the machine it was measured on.
pub(crate) fn frame(case: Case, table: &str) -> Result<String> {
    Ok(format!(
        "{}\n\n## {}\n\n{}\n\n{table}\n{}\n",
        marker(case),
        case.title(),
        case.meaning(),
        machine()
    ))
}

/// Puts a section into the document at `path`, in the place of the one that was there.
pub(crate) fn replace(path: &Path, case: Case, section: &str) -> Result<()> {
    let before = fs::read_to_string(path).unwrap_or_default();
    let mut text = HEAD.to_owned();
    for &each in Case::value_variants() {
        let kept = section_of(&before, each);
        let section = if each == case { Some(section) } else { kept };
        if let Some(section) = section {
            text.push('\n');
            text.push_str(section.trim_end());
            text.push('\n');
        }
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// The section of `case` in a document.
fn section_of(text: &str, case: Case) -> Option<&str> {
    let rest = &text[text.find(&marker(case))?..];
    let end = rest[1..]
        .find("<!-- case ")
        .map_or(rest.len(), |end| end + 1);
    Some(&rest[..end])
}

fn marker(case: Case) -> String {
    format!("<!-- case {} -->", format!("{case:?}").to_lowercase())
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
        "Machine: {cores} cores of {model}, Linux {}, load {} at the end. udpcast {}, UFTP {}; `net.core.rmem_max` was \
         raised to 8 MiB for them.{care}",
        kernel.trim(),
        load,
        version("udpcast"),
        version("uftp"),
    )
}
