//! What each level of compression costs and saves, and what memory it takes.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};
use netflash_imager::Image;
use tests::{lab::sh, net::netflash};

use super::step::Step;
use crate::{case::Case, report};

/// Levels of zstd.
const LEVELS: [i32; 6] = [1, 3, 6, 9, 12, 19];
/// Noise, as films and encrypted files are, in MiB.
const NOISE_MIB: usize = 1024;
/// A disk with next to nothing on it, in GiB.
const LARGE_GIB: u64 = 1024;

pub(super) fn section(guest: &Path) -> Result<String> {
    let room = tempfile::tempdir_in("/dev/shm").context("making room for images")?;
    let file = |name: &str| room.path().join(name).display().to_string();
    let netflash = netflash()?.display().to_string();
    let image = file("image.img.zst");
    let create = |disk: &str, level: i32| {
        let _ = fs::remove_file(&image);
        Step::run(&format!(
            "exec {netflash} image create {disk} {image} --level {level} --json"
        ))
    };
    let verify = || Step::run(&format!("exec {netflash} image verify {image} --json"));
    let disk = guest.display().to_string();
    // Everything from memory: it is the processor that is measured.
    fs::read(guest).context("reading the guest")?;
    let mut text = String::new();
    let (mut rows, mut used) = (String::new(), 0);
    for level in LEVELS {
        let (packed, unpacked) = (create(&disk, level)?, verify()?);
        let opened = Image::open(image.as_ref())?;
        used = opened.manifest().sent().len() as u64 * (1 << 20);
        let stored = fs::metadata(&image)?.len();
        writeln!(
            rows,
            "| {level} | {:.2} | {:.0} | {:.1} | {:.3} | {:.0} | {} MiB | {} MiB |",
            packed.seconds,
            used as f64 / 1e6 / packed.seconds,
            stored as f64 / 1e6,
            stored as f64 / used as f64,
            used as f64 / 1e6 / unpacked.seconds,
            packed.peak_memory >> 20,
            unpacked.peak_memory >> 20,
        )?;
        eprintln!("level {level}: {:.2} s", packed.seconds);
    }
    write!(
        text,
        "The Debian of the case `image`, {:.0} MB in its used frames.\n\n\
         | level | seconds | MB/s | image, MB | of the used | verify, MB/s | memory | memory, verify |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n{rows}\n",
        used as f64 / 1e6
    )?;
    let noise = file("noise.raw");
    sh(&format!(
        "dd if=/dev/urandom of={noise} bs=1M count={NOISE_MIB} status=none"
    ))?;
    let quick = create(&noise, 3)?;
    let stored = fs::metadata(&image)?.len();
    let thorough = Step::run(&format!("zstd -T2 -3 -qfo {image} {noise}"))?;
    fs::remove_file(&noise)?;
    writeln!(
        text,
        "{NOISE_MIB} MiB of noise at level 3: {:.2} s, {:.0} MB/s, CPU {:.2} s, {:.4} of the size; `zstd -T2 -3`: {:.2} s, \
         CPU {:.2} s.\n",
        quick.seconds,
        (NOISE_MIB << 20) as f64 / 1e6 / quick.seconds,
        quick.cpu_seconds,
        stored as f64 / (NOISE_MIB << 20) as f64,
        thorough.seconds,
        thorough.cpu_seconds
    )?;
    text.push_str(&large(
        &netflash,
        &file("large.raw"),
        &image,
        &file("copy.raw"),
    )?);
    report::frame(Case::Levels, &text)
}

/// The row of a disk that is nearly empty and very large.
fn large(netflash: &str, disk: &str, image: &str, copy: &str) -> Result<String> {
    let _ = fs::remove_file(image);
    fs::File::create(disk)?.set_len(LARGE_GIB << 30)?;
    sh(&format!("sgdisk --new=1:1M:0 {disk}"))?;
    sh(&format!(
        "mke2fs -q -t ext4 -F -E lazy_itable_init=1,nodiscard,offset=1048576 -N 100000 -J size=4 -d /usr/bin \
         {disk} {}K",
        (LARGE_GIB << 20) - 2048
    ))?;
    let steps = [
        (
            "image create",
            format!("exec {netflash} image create {disk} {image} --json"),
        ),
        (
            "image verify",
            format!("exec {netflash} image verify {image} --json"),
        ),
        (
            "image extract",
            format!("exec {netflash} image extract {image} {copy} --json"),
        ),
    ];
    let mut text = format!(
        "A disk of {LARGE_GIB} GiB with `/usr/bin` on it, in memory:\n\n\
         | command | seconds | memory |\n| --- | --- | --- |\n"
    );
    for (name, line) in steps {
        let step = Step::run(&line)?;
        writeln!(
            text,
            "| `{name}` | {:.1} | {} MiB |",
            step.seconds,
            step.peak_memory >> 20
        )?;
        eprintln!("{name}: {:.1} s", step.seconds);
    }
    Ok(text)
}
