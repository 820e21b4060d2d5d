//! The same image on the same disk once more: nothing to write, only to look.

use std::fmt::Write;

use anyhow::{Result, ensure};
use netflash_imager::Image;
use tests::net::netflash;

use super::floor::{Device, Floor, forget};
use super::ranges::{read_seconds, that_matter};
use super::step::Step;
use crate::{case::Case, report};

/// A disk larger than the image's, in bytes.
const LARGER_BYTES: u64 = 6 << 30;

pub(super) fn section(runs: usize) -> Result<String> {
    let floor = Floor::lay()?;
    let netflash = netflash()?.display().to_string();
    let path = floor.in_memory("disk.img.zst");
    Step::run(&format!(
        "{netflash} image create {} {}",
        floor.disk().display(),
        path.display()
    ))?;
    let image = Image::open(&path)?;
    let ranges = that_matter(&image);
    let megabytes = ranges
        .iter()
        .map(|range| range.end - range.start)
        .sum::<u64>() as f64
        / 1e6;
    let mut text = format!(
        "{megabytes:.0} MB of the disk are used or zero.\n\n\
         | disk | what | seconds | of plain reading | CPU | read, MB | written, bytes |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for (name, bytes) in [("as large", floor.bytes()), ("larger", LARGER_BYTES)] {
        let target = floor.empty_disk("target.raw", bytes)?;
        let device = Device::whole(&target)?;
        let flash = format!(
            "exec {netflash} image extract {} {} --yes --json",
            path.display(),
            device.path
        );
        let verify = format!(
            "exec {netflash} verify {} {} --json",
            device.path,
            path.display()
        );
        Step::run(&flash)?;
        let mut plain = Vec::new();
        let mut steps = [Vec::new(), Vec::new()];
        let mut most = [super::floor::Traffic::default(); 2];
        for _ in 0..runs {
            forget()?;
            plain.push(read_seconds(&device.path, &ranges)?);
            for (index, line) in [&flash, &verify].into_iter().enumerate() {
                forget()?;
                let before = device.traffic()?;
                let step = Step::run(line)?;
                let told: serde_json::Value = serde_json::from_str(&step.stdout)?;
                let untouched = told["changed"] == false || told["equal"] == true;
                ensure!(untouched, "{line}: {told}");
                let traffic = device.traffic()?.since(before);
                most[index].read = most[index].read.max(traffic.read);
                most[index].written = most[index].written.max(traffic.written);
                steps[index].push(step);
            }
        }
        plain.sort_by(f64::total_cmp);
        let plain = plain[plain.len() / 2];
        writeln!(
            text,
            "| {name} | plain reading | {plain:.2} | 1.00 | | {megabytes:.0} | |"
        )?;
        for ((what, steps), traffic) in ["flash again", "verify"].iter().zip(steps).zip(most) {
            let step = Step::median(steps);
            writeln!(
                text,
                "| {name} | {what} | {:.2} | {:.2} | {:.2} | {:.0} | {} |",
                step.seconds,
                step.seconds / plain,
                step.cpu_seconds,
                traffic.read as f64 / 1e6,
                traffic.written
            )?;
        }
    }
    text.push_str(
        "\n```\nnetflash image extract IMAGE DISK --yes --json\nnetflash verify DISK IMAGE --json\n```\n",
    );
    report::frame(Case::Again, &text)
}
