//! What is sent: an image of random bytes or of a given disk, and a comparison that knows nothing of images.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use netflash_imager::{Image, Plan};
use serde::{Deserialize, Serialize};

use super::program::{Program, netflash};
use crate::lab::sh;

const MEBIBYTE: usize = 1 << 20;

/// A raw disk and its image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payload {
    /// The raw disk.
    pub raw: PathBuf,
    /// Its image.
    pub image: PathBuf,
    /// What has to be sent at least: all blocks and the manifest, in bytes.
    pub bytes: u64,
}

impl Payload {
    /// `mebibytes` of random bytes in `directory`, and their image.
    pub fn random(directory: &Path, mebibytes: usize) -> Result<Payload> {
        let raw = directory.join("random.raw");
        let random = File::open("/dev/urandom").context("opening /dev/urandom")?;
        let mut random = random.take((mebibytes * MEBIBYTE) as u64);
        let mut file = File::create(&raw).context("making the raw disk")?;
        std::io::copy(&mut random, &mut file).context("filling the raw disk")?;
        file.flush().context("filling the raw disk")?;
        Payload::of(&raw, directory)
    }

    /// The image of `raw`, made in `directory` by `netflash image create`. Everything is sent, so that the result can
    /// be compared byte by byte.
    pub fn of(raw: &Path, directory: &Path) -> Result<Payload> {
        Payload::created(raw, directory, &["--used-only=off", "--level=1"])
    }

    /// The image of `raw` as an operator makes it: what no file system uses is not sent, and does not count.
    pub fn of_used(raw: &Path, directory: &Path) -> Result<Payload> {
        Payload::created(raw, directory, &[])
    }

    fn created(raw: &Path, directory: &Path, options: &[&str]) -> Result<Payload> {
        let image = directory.join("payload.img.zst");
        let program = netflash()?;
        let made = std::process::Command::new(program)
            .args(["image", "create"])
            .args(options)
            .args([raw, &image])
            .output()
            .context("running netflash image create")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(
            made.status.success(),
            "netflash image create: {}: {said}",
            made.status
        );
        let opened = Image::open(&image).context("opening the image")?;
        let manifest = opened.manifest();
        let bytes = Plan::new(manifest).bytes() + manifest.to_bytes().len() as u64;
        Ok(Payload {
            raw: raw.to_owned(),
            image,
            bytes,
        })
    }

    /// Fails unless `disk` holds exactly the raw disk.
    pub fn compare(&self, disk: &Path) -> Result<()> {
        sh(&format!("cmp {} {}", self.raw.display(), disk.display())).map(drop)
    }

    /// Starts the sender of this image.
    pub fn send(&self, namespace: &str, arguments: &[&str]) -> Result<Program> {
        let mut words = vec![
            "send".to_owned(),
            self.image.display().to_string(),
            "--json".to_owned(),
        ];
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        Program::start("netflash send", namespace, netflash()?, words)
    }

    /// Starts a receiver onto `disk`, named like its namespace.
    pub fn receive(&self, namespace: &str, disk: &Path, arguments: &[&str]) -> Result<Program> {
        let mut words = vec!["receive".to_owned(), disk.display().to_string()];
        words.extend(["--yes", "--json", "--name", namespace].map(str::to_owned));
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        Program::start(
            format!("netflash receive at {namespace}"),
            namespace,
            netflash()?,
            words,
        )
    }
}

/// Mebibytes of `whole` that `disk` lacks: those that differ or are not there.
pub fn differing_mebibytes(whole: &Path, disk: &Path) -> Result<usize> {
    let length = fs::metadata(whole)
        .context("looking at the raw disk")?
        .len() as usize;
    let mut whole = BufReader::new(File::open(whole).context("opening the raw disk")?);
    let mut disk = BufReader::new(File::open(disk).context("opening the copy")?);
    let mut differing = 0;
    let (mut left, mut right) = (vec![0; MEBIBYTE], vec![0; MEBIBYTE]);
    for _ in 0..length.div_ceil(MEBIBYTE) {
        let expected = read_up_to(&mut whole, &mut left)?;
        let got = read_up_to(&mut disk, &mut right)?;
        differing += usize::from(left[..expected] != right[..got]);
    }
    Ok(differing)
}

fn read_up_to(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]).context("comparing")? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
