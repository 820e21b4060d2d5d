//! From an image to a disk.

use std::fmt::Write;

use anyhow::{Result, ensure};
use tests::{lab::sh, net::netflash};

use super::floor::{Device, Floor, forget};
use super::step::Step;
use crate::{case::Case, report};

pub(super) fn section(runs: usize) -> Result<String> {
    let floor = Floor::lay()?;
    let netflash = netflash()?.display().to_string();
    let (image, pipe) = (
        floor.in_memory("ours.img.zst"),
        floor.in_memory("theirs.zst"),
    );
    Step::run(&format!(
        "{netflash} image create {} {}",
        floor.disk().display(),
        image.display()
    ))?;
    let partition = floor.partition(&floor.disk())?;
    Step::run(&format!(
        "partclone.extfs -c -s {} -o - -L /dev/null 2>/dev/null | zstd -T2 -3 -qfo {}",
        partition.path,
        pipe.display()
    ))?;
    drop(partition);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut ours_traffic, mut theirs_traffic) = Default::default();
    for _ in 0..runs {
        let target = floor.empty_disk("ours.raw", floor.bytes())?;
        let device = Device::whole(&target)?;
        forget()?;
        let before = device.traffic()?;
        ours.push(Step::run(&format!(
            "exec {netflash} image extract {} {} --yes --json",
            image.display(),
            device.path
        ))?);
        ours_traffic = device.traffic()?.since(before);

        let target = floor.empty_disk("theirs.raw", floor.bytes())?;
        let partition = floor.partition(&target)?;
        forget()?;
        let before = partition.traffic()?;
        theirs.push(Step::run(&format!(
            "zstd -dqc {} | partclone.restore -s - -o {} -L /dev/null 2>/dev/null && sync {}",
            pipe.display(),
            partition.path,
            partition.path
        ))?);
        theirs_traffic = partition.traffic()?.since(before);
        let whole = sh(&format!("e2fsck -fn {}", partition.path)).is_ok();
        ensure!(whole, "partclone's disk is not whole");
    }
    let (ours, theirs) = (Step::median(ours), Step::median(theirs));
    let mut text = "| program | seconds | CPU | written, MB | read back, MB | memory |\n\
                    | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let rows = [
        ("netflash", &ours, &ours_traffic, true),
        ("zstd + partclone.restore", &theirs, &theirs_traffic, false),
    ];
    for (name, step, traffic, own) in rows {
        let traffic: &super::floor::Traffic = traffic;
        let memory = match own {
            true => format!("{} MiB", step.peak_memory >> 20),
            false => String::new(),
        };
        writeln!(
            text,
            "| {name} | {:.2} | {:.2} | {:.0} | {:.0} | {memory} |",
            step.seconds,
            step.cpu_seconds,
            traffic.written as f64 / 1e6,
            traffic.read as f64 / 1e6,
        )?;
    }
    write!(
        text,
        "\n- netflash takes {:.2} of the time and {:.2} of the processor time.\n\n```\n\
         netflash image extract IMAGE DISK --yes --json\n\
         zstd -dqc FILE | partclone.restore -s - -o PARTITION -L /dev/null && sync PARTITION\n```\n",
        ours.seconds / theirs.seconds,
        ours.cpu_seconds / theirs.cpu_seconds
    )?;
    report::frame(Case::Restore, &text)
}
