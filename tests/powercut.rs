//! Power cuts: whatever a disk had on its medium at any instant of a flash, it is dead, whole, or what it was.
//!
//! A flash is recorded by QEMU below the page cache, with its flushes. Then the power is cut in thought: at every flush,
//! and hundreds of times between two, with a random part of the writes since the last flush on the medium, some of them
//! torn; in the short steps around the data, with every subset of the writes. An oracle of its own judges each disk, and
//! the next flash must complete on it. Who flashes is this process, on another system's disk and on an older version of
//! the image, or the agent in a machine. The same is done to the server's disk while it takes a captured image.
//!
//! ```text
//! NETFLASH_SEED=1234 cargo test -p tests --test powercut -- --nocapture
//! ```

#[path = "powercut/agent.rs"]
mod agent;
#[path = "powercut/daemon.rs"]
mod daemon;
#[path = "powercut/desk.rs"]
mod desk;
#[path = "powercut/disks.rs"]
mod disks;
#[path = "powercut/journal.rs"]
mod journal;
#[path = "powercut/kills.rs"]
mod kills;
#[path = "powercut/oracle.rs"]
mod oracle;
#[path = "powercut/parts.rs"]
mod parts;
#[path = "powercut/recording.rs"]
mod recording;
#[path = "powercut/spread.rs"]
mod spread;
#[path = "powercut/store.rs"]
mod store;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use netflash_imager::{Deploy, DeployOptions, Target, TargetOptions, extract_to_disk};
use tests::lab::inside;
use tests::net::{Hall, Payload, differing_mebibytes, wait_while};
use tests::sim::Chance;

use daemon::DaemonDisk;
use oracle::{Oracle, can_start};
use recording::{Before, Recording};

/// Where a disk is bad: in the data of the file system.
const BAD_BYTE: u64 = (9 << 20) + 5 * 4096;
/// Kills of one receiver, spread over this part of what it has to write.
const KILLS: usize = 20;
const KILLS_UP_TO: f64 = 0.85;
/// How long the receiver may take to its next kill, or to the end.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Cuts a recorded flash everywhere.
fn assert_every_cut_is_safe(used_only: bool, before: Before) {
    let seed = seed();
    Recording::make(seed, used_only, before).assert_every_cut_is_safe(seed);
}

#[test]
fn every_power_cut_leaves_a_whole_or_a_dead_disk() {
    assert_every_cut_is_safe(false, Before::Other);
}

#[test]
fn so_it_is_when_only_used_blocks_are_flashed() {
    assert_every_cut_is_safe(true, Before::Other);
}

#[test]
fn every_power_cut_of_a_new_version_leaves_the_old_the_new_or_a_dead_disk() {
    assert_every_cut_is_safe(false, Before::Older);
}

#[test]
fn so_it_is_when_only_used_blocks_of_a_new_version_are_flashed() {
    assert_every_cut_is_safe(true, Before::Older);
}

/// The whole way: the agent in a machine, its kernel's block layer, and a virtual disk with a cache.
#[test]
fn every_power_cut_of_a_machine_leaves_a_whole_or_a_dead_disk() -> Result<()> {
    inside(
        "every_power_cut_of_a_machine_leaves_a_whole_or_a_dead_disk",
        || agent::assert_every_cut_is_safe(seed()),
    )
}

#[test]
#[ignore = "boots a machine thirteen times: ./scripts/nightly media"]
fn a_machine_without_power_a_dozen_times_completes() -> Result<()> {
    inside("a_machine_without_power_a_dozen_times_completes", || {
        spread::assert_every_cut_is_survived(seed())
    })
}

#[test]
fn no_power_cut_of_a_server_makes_it_list_a_bad_image_or_forget_a_capture() -> Result<()> {
    inside(
        "no_power_cut_of_a_server_makes_it_list_a_bad_image_or_forget_a_capture",
        || store::assert_every_cut_is_survived(seed()),
    )
}

#[test]
fn a_capture_survives_a_machine_and_a_server_that_die_again_and_again() -> Result<()> {
    kills::assert_every_death_is_survived(seed())
}

/// The same writes on a disk that ignores flushes must be found out: otherwise the oracle, or the cutting, is blind.
#[test]
fn without_flushes_the_oracle_finds_disks_that_start_half_written() {
    let seed = seed();
    for before in [Before::Other, Before::Older] {
        let recording = Recording::make(seed, false, before);
        let careless = recording.journal.without_flushes();
        let (mut found, mut seen) = (0, 0);
        recording.cut(&careless, &mut Chance::new(seed).fork(2), |disk, _| {
            seen += 1;
            found += usize::from(recording.oracle.judge(disk).is_none());
        });
        println!("{found} of {seen} cuts without flushes leave a disk that may start half-written");
        assert!(found > 0);
    }
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
        let sender = payload.send(hall.sender(), &["--receivers", "1", "--rate", "10M"])?;
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
