//! From a disk to an image.

use std::fmt::Write;

use anyhow::Result;
use netflash_imager::Image;
use tests::net::netflash;

use super::floor::{Device, Floor, forget};
use super::step::Step;
use crate::{case::Case, report};

/// One way to do it.
struct Way<'a> {
    name: &'a str,
    level: i32,
    line: String,
    output: std::path::PathBuf,
}

pub(super) fn section(runs: usize) -> Result<String> {
    let floor = Floor::lay()?;
    let disk = Device::whole(&floor.disk())?;
    let netflash = netflash()?.display().to_string();
    let ours = |level| {
        let output = floor.in_memory(&format!("ours{level}.img.zst"));
        Way {
            name: "netflash",
            level,
            line: format!(
                "exec {netflash} image create {} {} --level {level} --json",
                disk.path,
                output.display()
            ),
            output,
        }
    };
    let theirs = |level| {
        let output = floor.in_memory(&format!("theirs{level}.zst"));
        Way {
            name: "partclone + zstd",
            level,
            line: format!(
                "partclone.extfs -c -s PARTITION -o - -L /dev/null 2>/dev/null | zstd -T2 -{level} -qfo {}",
                output.display()
            ),
            output,
        }
    };
    let ways = [ours(3), theirs(3), ours(1), theirs(1)];
    let mut steps: Vec<Vec<(Step, u64)>> = vec![Vec::new(); ways.len()];
    // In turns, so that what else the machine does falls on all of them.
    for _ in 0..runs {
        for (way, steps) in ways.iter().zip(&mut steps) {
            let _ = std::fs::remove_file(&way.output);
            let own = way
                .line
                .contains("PARTITION")
                .then(|| floor.partition(&floor.disk()));
            let own = own.transpose()?;
            let read = own.as_ref().unwrap_or(&disk);
            forget()?;
            let before = read.traffic()?;
            let step = Step::run(&way.line.replace("PARTITION", &read.path))?;
            steps.push((step, read.traffic()?.since(before).read));
        }
    }
    let used: u64 = Image::open(&ways[0].output)?
        .manifest()
        .partitions()
        .iter()
        .map(|partition| partition.used_bytes)
        .sum();
    let mut text = format!(
        "{:.0} MB of the disk are in use, as its file system says.\n\n\
         | program | zstd level | seconds | MB/s of used | CPU | read, MB | image, MB | memory |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        used as f64 / 1e6
    );
    let mut seconds = Vec::new();
    for (way, steps) in ways.iter().zip(steps) {
        let read = steps.iter().map(|(_, read)| *read).max().unwrap_or(0);
        let step = Step::median(steps.into_iter().map(|(step, _)| step).collect());
        let memory = match way.name {
            "netflash" => format!("{} MiB", step.peak_memory >> 20),
            _ => String::new(),
        };
        writeln!(
            text,
            "| {} | {} | {:.2} | {:.0} | {:.2} | {:.0} | {:.1} | {memory} |",
            way.name,
            way.level,
            step.seconds,
            used as f64 / 1e6 / step.seconds,
            step.cpu_seconds,
            read as f64 / 1e6,
            way.output.metadata()?.len() as f64 / 1e6,
        )?;
        seconds.push((way.level, step));
    }
    let line = |ours: usize, theirs: usize| {
        let ((level, ours), (other, theirs)) = (&seconds[ours], &seconds[theirs]);
        format!(
            "- netflash at level {level} takes {:.2} of the time and {:.2} of the processor time of partclone at level \
             {other}.\n",
            ours.seconds / theirs.seconds,
            ours.cpu_seconds / theirs.cpu_seconds
        )
    };
    write!(text, "\n{}{}{}", line(0, 1), line(2, 1), line(2, 3))?;
    write!(
        text,
        "\n```\n{}\n{}\n```\n",
        shown(&ways[0]),
        shown(&ways[1])
    )?;
    report::frame(Case::Capture, &text)
}

/// A command line as the document has it.
fn shown(way: &Way<'_>) -> String {
    let mut line = way.line.replace(&way.output.display().to_string(), "IMAGE");
    if let Some(arguments) = line.split_once(" image create ") {
        line = format!(
            "netflash image create DISK IMAGE{}",
            arguments.1.split_once("IMAGE").map_or("", |rest| rest.1)
        );
    }
    line
}
