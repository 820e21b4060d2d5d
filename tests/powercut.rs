//! Power cuts: whatever a disk had on its medium at any instant of a flash, it is dead, whole, or what it was.
//!
//! A flash is recorded by QEMU below the page cache, with its flushes. Then the power is cut in thought: at every flush,
//! and hundreds of times between two, with a random part of the writes since the last flush on the medium, some of them
//! torn; in the short steps around the data, with every subset of the writes. An oracle of its own judges each disk, and the next flash must complete on it.
//!
//! ```text
//! NETFLASH_SEED=1234 cargo test -p tests --test powercut -- --nocapture
//! ```

#[path = "powercut/daemon.rs"]
mod daemon;
#[path = "powercut/disks.rs"]
mod disks;
#[path = "powercut/journal.rs"]
mod journal;
#[path = "powercut/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use netflash_imager::{
    Deploy, DeployOptions, DeployReport, Image, Target, TargetOptions, extract_to_disk,
};
use tests::lab::inside;
use tests::net::{Hall, Payload, differing_mebibytes, wait_while};
use tests::sim::Chance;

use daemon::DaemonDisk;
use journal::{Journal, Write};
use oracle::{Oracle, Verdict, can_start};

/// Power cuts between two flushes, while the data is written and in each shorter step around it.
const CUTS_IN_DATA: usize = 150;
const CUTS_IN_STEP: usize = 20;
/// An epoch of more writes than this is the one of the data.
const STEP_WRITES_MAX: usize = 8;
/// Where a disk is bad: in the data of the file system.
const BAD_BYTE: u64 = (9 << 20) + 5 * 4096;
/// Kills of one receiver, spread over this part of what it has to write.
const KILLS: usize = 20;
const KILLS_UP_TO: f64 = 0.85;
/// How long the receiver may take to its next kill, or to the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// On one in so many of the disks a cut leaves, the next flash is run.
const NEXT_RUN_EVERY: usize = 16;

/// The seed asked for, or a new one; printed, because it is the bug report.
fn seed() -> u64 {
    let given = std::env::var("NETFLASH_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |now| now.subsec_nanos().into())
    });
    println!("NETFLASH_SEED={seed}");
    seed
}

fn flash(image: &Image, disk: &Path) -> DeployReport {
    let target = Target::open(disk, TargetOptions::default()).expect("a disk");
    let options = DeployOptions::default();
    let deploy = Deploy::begin(
        Arc::clone(image.manifest()),
        target,
        options,
        Arc::new(|_| {}),
    );
    extract_to_disk(image, deploy.expect("an image that fits")).expect("a flash")
}

/// A flash that was recorded, and what is needed to judge it.
struct Recording {
    dir: tempfile::TempDir,
    image: Image,
    oracle: Oracle,
    journal: Journal,
}

impl Recording {
    fn make(seed: u64, used_only: bool) -> Recording {
        let dir = tempfile::tempdir().expect("a directory");
        let mut chance = Chance::new(seed);
        let former = disks::disk(dir.path(), "former", &mut chance);
        let raw = disks::disk(dir.path(), "image", &mut chance);
        let unused = if used_only {
            disks::free_blocks(dir.path(), "image")
        } else {
            Vec::new()
        };
        let image = disks::image(dir.path(), "image", used_only);
        let backing = dir.path().join("former.raw");
        let recorder = DaemonDisk::start(&backing, dir.path());
        let report = flash(&image, recorder.path());
        assert!(report.changed && report.verified_frames > 0);
        let journal = Journal::read(&recorder.finish());
        let mut replayed = former.clone();
        for write in journal.epochs.iter().flatten() {
            write.apply(&mut replayed, |_| true);
        }
        let flashed = fs::read(&backing).expect("the disk");
        assert!(
            replayed == flashed,
            "the journal is not all that was written"
        );
        let oracle = Oracle {
            former,
            image: raw,
            unused,
        };
        assert!(oracle.is_image(&flashed), "flashed, but not the image");
        Recording {
            dir,
            image,
            oracle,
            journal,
        }
    }

    /// The next flash, on a disk that a power cut has left.
    fn assert_next_run_completes(&self, disk: &[u8]) {
        let path = self.dir.path().join("next");
        fs::write(&path, disk).expect("a disk");
        flash(&self.image, &path);
        assert!(
            self.oracle.is_image(&fs::read(&path).expect("the disk")),
            "the next flash is not the image"
        );
    }

    /// Cuts the power at every flush, and at random between two. Every disk that comes of it is shown to `see`, with
    /// a text that says where the cut was.
    fn cut(&self, journal: &Journal, chance: &mut Chance, mut see: impl FnMut(&[u8], String)) {
        let mut disk = self.oracle.former.clone();
        see(&disk, "flush before the first write".into());
        for (index, epoch) in journal.epochs.iter().enumerate() {
            let cuts = if epoch.len() > STEP_WRITES_MAX {
                CUTS_IN_DATA
            } else {
                CUTS_IN_STEP
            };
            for _ in 0..cuts {
                let mut cut = disk.clone();
                let text = cut_within(epoch, &mut cut, chance);
                see(&cut, format!("epoch {index}: {text}"));
            }
            for subset in 0..subsets_of(epoch) {
                let mut cut = disk.clone();
                let chosen = epoch
                    .iter()
                    .enumerate()
                    .filter(|(bit, _)| subset >> bit & 1 == 1);
                chosen.for_each(|(_, write)| write.apply(&mut cut, |_| true));
                see(
                    &cut,
                    format!("epoch {index}: subset {subset:b} of its writes"),
                );
            }
            for write in epoch {
                write.apply(&mut disk, |_| true);
            }
            see(&disk, format!("flush after epoch {index}"));
        }
    }
}

/// How many subsets an epoch has, when it is short enough to try them all.
fn subsets_of(epoch: &[Write]) -> u32 {
    if epoch.len() > STEP_WRITES_MAX {
        0
    } else {
        1 << epoch.len()
    }
}

/// Does a random part of the writes of an epoch, in random order, and tears a few of them between sectors.
fn cut_within(epoch: &[Write], disk: &mut [u8], chance: &mut Chance) -> String {
    // Few, half, or nearly all: each finds other faults.
    let share = [0.05, 0.5, 0.95][chance.range(0, 2) as usize];
    let mut writes: Vec<&Write> = epoch.iter().filter(|_| chance.hit(share)).collect();
    for index in (1..writes.len()).rev() {
        writes.swap(index, chance.range(0, index as u64) as usize);
    }
    let mut torn = 0;
    for write in &writes {
        if chance.hit(0.2) {
            torn += 1;
            write.apply(disk, |_| chance.hit(0.5));
        } else {
            write.apply(disk, |_| true);
        }
    }
    format!(
        "{} of {} writes, {torn} of them torn",
        writes.len(),
        epoch.len()
    )
}

/// Cuts a recorded flash everywhere; gives how often each verdict was reached.
fn assert_every_cut_is_safe(used_only: bool) {
    let seed = seed();
    let recording = Recording::make(seed, used_only);
    let writes: usize = recording.journal.epochs.iter().map(Vec::len).sum();
    let epochs: Vec<usize> = recording.journal.epochs.iter().map(Vec::len).collect();
    println!(
        "{writes} writes, {} flushes, writes per epoch {epochs:?}",
        recording.journal.flushes
    );

    let mut chance = Chance::new(seed).fork(1);
    let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let (mut seen, mut next_runs) = (0, 0);
    recording.cut(&recording.journal, &mut chance, |disk, place| {
        let verdict = recording.oracle.judge(disk);
        let Some(verdict) = verdict else {
            panic!("seed {seed}, {place}: a disk that may start half-written")
        };
        *verdicts.entry(verdict).or_default() += 1;
        if seen % NEXT_RUN_EVERY == 0 || place.starts_with("flush") {
            recording.assert_next_run_completes(disk);
            next_runs += 1;
        }
        seen += 1;
    });
    println!("{seen} cuts: {verdicts:?}; the next flash completed on {next_runs} of {next_runs}");
    assert!(
        recording.journal.epochs.len() >= 7,
        "a flush is missing: {epochs:?}"
    );
    assert!(seen >= 200 && verdicts.len() == 3, "{verdicts:?}");
}

#[test]
fn every_power_cut_leaves_a_whole_or_a_dead_disk() {
    assert_every_cut_is_safe(false);
}

#[test]
fn so_it_is_when_only_used_blocks_are_flashed() {
    assert_every_cut_is_safe(true);
}

/// The same writes on a disk that ignores flushes must be found out: otherwise the oracle, or the cutting, is blind.
#[test]
fn without_flushes_the_oracle_finds_disks_that_start_half_written() {
    let seed = seed();
    let recording = Recording::make(seed, false);
    let careless = recording.journal.without_flushes();
    let (mut found, mut seen) = (0, 0);
    recording.cut(&careless, &mut Chance::new(seed).fork(2), |disk, _| {
        seen += 1;
        found += usize::from(recording.oracle.judge(disk).is_none());
    });
    println!("{found} of {seen} cuts without flushes leave a disk that may start half-written");
    assert!(found > 0);
}

#[test]
fn the_oracle_knows_a_disk_that_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = disks::disk(dir.path(), "image", &mut Chance::new(7));
    assert!(can_start(&raw));
    let last = raw.len() - 512;
    // Boot sector, primary and backup table: each alone is enough, without all three nothing starts.
    for kept in 0..4 {
        let mut cut = raw.clone();
        for (part, at) in [0, 512, last].into_iter().enumerate() {
            if part != kept {
                cut[at..at + 512].fill(0);
            }
        }
        assert_eq!(can_start(&cut), kept < 3, "{kept}");
    }
    let mut damaged = raw;
    damaged[..1024].fill(0);
    let entries = damaged.len() - 33 * 512;
    damaged[entries] ^= 1;
    assert!(!can_start(&damaged));
}

#[test]
fn a_disk_that_fails_to_write_is_named_with_the_byte_and_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut chance = Chance::new(seed());
    disks::disk(dir.path(), "former", &mut chance);
    disks::disk(dir.path(), "image", &mut chance);
    let image = disks::image(dir.path(), "image", false);
    let backing = dir.path().join("former.raw");
    let bad = DaemonDisk::failing(&backing, dir.path(), BAD_BYTE);
    let target = Target::open(bad.path(), TargetOptions::default()).expect("a disk");
    let manifest = Arc::clone(image.manifest());
    let deploy = Deploy::begin(manifest, target, DeployOptions::default(), Arc::new(|_| {}));
    let refused =
        extract_to_disk(&image, deploy.expect("an image that fits")).expect_err("a bad disk");
    println!("{refused}");
    // Frames are written whole: the byte named is where the failing one begins.
    let frame = BAD_BYTE >> 20 << 20;
    let text = refused.to_string();
    assert!(
        text.contains(&format!("write error at byte {frame}: Input/output error")),
        "{text}"
    );
    drop(bad);
    assert!(!can_start(&fs::read(&backing).expect("the disk")));
}

/// A kill is no power cut, the page cache survives it; but the program must take up its work from any point.
#[test]
fn a_receiver_killed_twenty_times_completes() -> Result<()> {
    inside("a_receiver_killed_twenty_times_completes", || {
        let directory = tempfile::tempdir()?;
        let mut chance = Chance::new(seed());
        let former = disks::disk(directory.path(), "former", &mut chance);
        let raw = disks::disk(directory.path(), "image", &mut chance);
        let oracle = Oracle {
            former,
            image: raw,
            unused: Vec::new(),
        };
        let payload = Payload::of(&directory.path().join("image.raw"), directory.path())?;
        let disk = directory.path().join("former.raw");
        let hall = Hall::build(1, 1.0)?;
        let all = differing_mebibytes(&payload.raw, &disk)?;
        let sender = payload.send(hall.sender(), &["--receivers", "1", "--rate", "20M"])?;
        let mut lacking = Vec::new();
        for kill in 1..=KILLS {
            let mut receiver = payload.receive("r1", &disk, &[])?;
            let left = (all as f64 * (1.0 - KILLS_UP_TO * kill as f64 / KILLS as f64)) as usize;
            wait_while(&mut receiver, "its share of the disk", PATIENCE, || {
                Ok(differing_mebibytes(&payload.raw, &disk)? <= left)
            })?;
            receiver.kill()?;
            let content = fs::read(&disk).context("reading the disk")?;
            ensure!(
                oracle.judge(&content).is_some(),
                "kill {kill}: a disk that may start half-written"
            );
            lacking.push(differing_mebibytes(&payload.raw, &disk)?);
        }
        payload.receive("r1", &disk, &[])?.succeed(PATIENCE)?;
        sender.succeed(PATIENCE)?;
        payload.compare(&disk)?;
        println!("of {all} MiB there lacked at the kills: {lacking:?}");
        lacking.dedup();
        ensure!(lacking.len() > KILLS / 2, "the kills were not spread");
        Ok(())
    })
}
