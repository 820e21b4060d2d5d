//! Sealed transfers by the real program: what they cost, and what others can make of them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    lab::{inside, sh, wait_until},
    net::{Hall, Payload, Program},
};

/// How long a transfer may take on an idle machine.
const LIMIT: Duration = Duration::from_secs(120);
/// How long tcpdump may take to begin and to end.
const TCPDUMP: Duration = Duration::from_secs(20);
/// Bytes before the first packet of a capture.
const CAPTURE_HEAD: u64 = 24;
/// Bytes that are looked for in a capture, and how many times.
const SAMPLE_BYTES: usize = 24;
const SAMPLES: usize = 16;
/// Opens a capture by what the protocol's page says.
const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/judge/open_sealed.py");

/// A file with a secret, as OPERATING.md says to make it.
fn key_file(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("room.key");
    sh(&format!("openssl rand -hex -out {} 32", path.display()))?;
    Ok(path)
}

/// Sends to every receiver of the hall and compares what arrives; bytes at the sender's interface.
fn transfer(hall: &Hall, payload: &Payload, directory: &Path, key: Option<&Path>) -> Result<u64> {
    let key = key.map(|path| path.display().to_string());
    let with_key = |words: &[&str]| -> Vec<String> {
        let key = key
            .iter()
            .flat_map(|key| ["--key-file".to_owned(), key.clone()]);
        words
            .iter()
            .map(|&word| word.to_owned())
            .chain(key)
            .collect()
    };
    let before = hall.sent()?;
    let mut receivers = Vec::new();
    for name in hall.receivers() {
        let disk = directory.join(format!("{name}.raw"));
        let words = with_key(&[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        receivers.push((payload.receive(&name, &disk, &words)?, disk));
    }
    let count = receivers.len().to_string();
    let words = with_key(&["--receivers", &count, "--rate", "200M"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    payload.send(hall.sender(), &words)?.succeed(LIMIT)?;
    for (receiver, disk) in receivers {
        receiver.succeed(LIMIT)?;
        payload.compare(&disk)?;
        fs::remove_file(disk).context("removing a disk")?;
    }
    Ok(hall.sent()?.since(&before).bytes)
}

/// Eight receivers that lose so much get everything, and the wire carries no more than it may.
fn sealed_costs_little(test: &str, loss_percent: f64, wire_limit: f64) -> Result<()> {
    inside(test, || {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), 64)?;
        let hall = Hall::build(8, loss_percent)?;
        let key = key_file(directory.path())?;
        let bytes = transfer(&hall, &payload, directory.path(), Some(&key))?;
        let ratio = bytes as f64 / payload.bytes as f64;
        println!("sealed, loss {loss_percent} %: wire {ratio:.4} x payload");
        ensure!(
            ratio <= wire_limit,
            "the wire carried {ratio:.4} x the payload, more than {wire_limit}"
        );
        Ok(())
    })
}

#[test]
fn a_sealed_session_without_loss_costs_little() -> Result<()> {
    sealed_costs_little("a_sealed_session_without_loss_costs_little", 0.0, 1.06)
}

#[test]
fn a_sealed_session_at_one_per_cent_loss_costs_little() -> Result<()> {
    let test = "a_sealed_session_at_one_per_cent_loss_costs_little";
    sealed_costs_little(test, 1.0, 1.08)
}

#[test]
fn a_sealed_session_at_five_per_cent_loss_costs_little() -> Result<()> {
    let test = "a_sealed_session_at_five_per_cent_loss_costs_little";
    sealed_costs_little(test, 5.0, 1.13)
}

/// Everything that the sender's interface carried during a transfer.
fn captured(
    hall: &Hall,
    payload: &Payload,
    directory: &Path,
    key: Option<&Path>,
) -> Result<PathBuf> {
    let path = directory.join(if key.is_some() {
        "sealed.pcap"
    } else {
        "open.pcap"
    });
    let words = ["-i", "eth0", "-n", "-U", "-Z", "root", "-B", "32768", "-w"];
    let words = words.map(str::to_owned);
    let words = words
        .into_iter()
        .chain([path.display().to_string(), "udp".to_owned()]);
    let tcpdump = Program::start("tcpdump", hall.sender(), "tcpdump", words)?;
    wait_until("tcpdump to listen", TCPDUMP, || {
        Ok(fs::metadata(&path).is_ok_and(|file| file.len() >= CAPTURE_HEAD))
    })?;
    transfer(hall, payload, directory, key)?;
    tcpdump.ask_to_end()?;
    tcpdump.wait(TCPDUMP)?;
    Ok(path)
}

/// How many samples of the raw disk, which does not compress, are in a capture.
fn samples_in(capture: &Path, raw: &Path) -> Result<usize> {
    let capture = fs::read(capture).context("reading the capture")?;
    let raw = fs::read(raw).context("reading the raw disk")?;
    let samples = (0..SAMPLES).map(|at| {
        let start = raw.len() / SAMPLES * at;
        &raw[start..start + SAMPLE_BYTES]
    });
    let seen = |sample: &&[u8]| {
        capture
            .windows(SAMPLE_BYTES)
            .any(|window| window == *sample)
    };
    Ok(samples.filter(seen).count())
}

#[test]
fn a_sealed_session_shows_nothing_and_is_what_its_page_says() -> Result<()> {
    inside(
        "a_sealed_session_shows_nothing_and_is_what_its_page_says",
        || {
            let directory = tempfile::tempdir()?;
            let payload = Payload::random(directory.path(), 8)?;
            let hall = Hall::build(1, 0.0)?;
            let key = key_file(directory.path())?;

            let open = captured(&hall, &payload, directory.path(), None)?;
            let seen = samples_in(&open, &payload.raw)?;
            ensure!(
                seen > SAMPLES / 2,
                "the look itself finds only {seen} of {SAMPLES} samples"
            );

            let sealed = captured(&hall, &payload, directory.path(), Some(&key))?;
            let seen = samples_in(&sealed, &payload.raw)?;
            ensure!(seen == 0, "{seen} samples of the image are on the wire");

            let (sealed, key, image) = (sealed.display(), key.display(), payload.image.display());
            let verdict = sh(&format!("/usr/bin/python3 {JUDGE} {sealed} {key} {image}"))?;
            println!("the judge: {}", verdict.trim());
            let verdict: Value = serde_json::from_str(&verdict).context("reading the judge")?;
            let count = |name: &str| verdict[name].as_u64().context("a count of the judge");
            ensure!(count("open")? == 0, "something is not sealed");
            ensure!(
                count("announces")? > 0 && count("symbols")? > 100,
                "too little was captured"
            );
            ensure!(
                count("announces_opened")? == count("announces")?,
                "announces do not open"
            );
            ensure!(
                count("symbols_opened")? == count("symbols")?,
                "symbols do not open"
            );
            // Those of the manifest, and the last of a block with its zeros, are not in the file as they are.
            ensure!(
                count("found")? * 10 >= count("symbols")? * 9,
                "what opens is not the image"
            );
            Ok(())
        },
    )
}
