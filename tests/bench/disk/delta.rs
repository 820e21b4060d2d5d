//! What one boot changes on a disk.

use std::{fmt::Write, fs::File, os::unix::fs::FileExt, path::Path};

use anyhow::{Context, Result};
use netflash_imager::{ExtentKind, Image};
use tests::{
    lab::{boot_once, sh},
    net::netflash,
};

use super::step::Step;
use crate::{case::Case, report};

/// Sizes of frames, in KiB; the largest is a multiple of each.
const CHUNK_KIB: [u64; 5] = [256, 512, 1024, 2048, 4096];
pub(super) fn section(guest: &Path) -> Result<String> {
    let room = tempfile::tempdir_in("/var/tmp").context("making room for the disk")?;
    let disk = room.path().join("disk.raw");
    let image = room.path().join("guest.img.zst");
    let netflash = netflash()?.display().to_string();
    Step::run(&format!(
        "{netflash} image create {} {}",
        guest.display(),
        image.display()
    ))?;
    sh(&format!(
        "cp --sparse=always {} {}",
        guest.display(),
        disk.display()
    ))?;
    boot_once(&disk, room.path())?;
    let image = Image::open(&image)?;
    let mut text =
        "| frame | changed, MB | in use, MB | share |\n| --- | --- | --- | --- |\n".to_owned();
    for (kibibytes, changed, used) in changed(&image, guest, &disk)? {
        writeln!(
            text,
            "| {kibibytes} KiB | {:.1} | {:.1} | {:.1} % |",
            changed as f64 / 1e6,
            used as f64 / 1e6,
            changed as f64 * 100.0 / used as f64
        )?;
    }
    let manifest = image.manifest();
    let wanted = wanted_stored_bytes(&image, guest, &disk)?;
    let all: u64 = manifest
        .sent()
        .iter()
        .map(|frame| u64::from(manifest.stored_bytes(*frame)))
        .sum();
    writeln!(
        text,
        "\nWith frames of 1 MiB, as they are: {:.1} of {:.1} MB compressed, {:.1} %.",
        wanted as f64 / 1e6,
        all as f64 / 1e6,
        wanted as f64 * 100.0 / all as f64
    )?;
    report::frame(Case::Delta, &text)
}

/// For each size of a chunk: bytes of chunks that changed, and of those that hold anything in use.
fn changed(image: &Image, before: &Path, after: &Path) -> Result<Vec<(u64, u64, u64)>> {
    let manifest = image.manifest();
    let largest = CHUNK_KIB[CHUNK_KIB.len() - 1] << 10;
    let (before, after) = (File::open(before)?, File::open(after)?);
    let mut found: Vec<(u64, u64, u64)> = CHUNK_KIB.iter().map(|&size| (size, 0, 0)).collect();
    let (mut old, mut new) = (vec![0; largest as usize], vec![0; largest as usize]);
    for start in (0..manifest.raw_bytes()).step_by(largest as usize) {
        let end = manifest.raw_bytes().min(start + largest);
        let length = (end - start) as usize;
        before.read_exact_at(&mut old[..length], start)?;
        after.read_exact_at(&mut new[..length], start)?;
        for (kibibytes, changed, used) in &mut found {
            for from in (start..end).step_by((*kibibytes << 10) as usize) {
                let to = end.min(from + (*kibibytes << 10));
                let runs = || manifest.extents().within(from..to);
                let differs = runs()
                    .filter(|run| run.kind != ExtentKind::Free)
                    .any(|run| {
                        let place = (run.offset - start) as usize..(run.end() - start) as usize;
                        old[place.clone()] != new[place]
                    });
                let holds = runs().any(|run| run.kind == ExtentKind::Used);
                *used += if holds { to - from } else { 0 };
                *changed += if holds && differs { to - from } else { 0 };
            }
        }
    }
    Ok(found)
}

/// Compressed bytes of the frames that have to be sent.
fn wanted_stored_bytes(image: &Image, before: &Path, after: &Path) -> Result<u64> {
    let manifest = image.manifest();
    let (before, after) = (File::open(before)?, File::open(after)?);
    let mut wanted = 0;
    for frame in manifest.sent() {
        let differs = manifest
            .frame_extents(*frame)
            .filter(|run| run.kind != ExtentKind::Free)
            .map(|run| {
                let read = |file: &File| -> Result<Vec<u8>> {
                    let mut bytes = vec![0; (run.end() - run.offset) as usize];
                    file.read_exact_at(&mut bytes, run.offset)?;
                    Ok(bytes)
                };
                Ok(read(&before)? != read(&after)?)
            })
            .collect::<Result<Vec<bool>>>()?;
        if differs.contains(&true) {
            wanted += u64::from(manifest.stored_bytes(*frame));
        }
    }
    Ok(wanted)
}
