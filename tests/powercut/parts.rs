//! Power cuts while one of two partitions is flashed: the other, and the table, are as before at every instant, and
//! nobody can take the one for a file system before it is whole.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use netflash_imager::{
    Deploy, DeployOptions, DeployReport, Image, Scope, Target, TargetOptions, extract_to_disk,
};
use tests::sim::Chance;

use super::daemon::DaemonDisk;
use super::disks::{self, FIRST, SECOND};
use super::journal::{Journal, SECTOR};
use super::oracle::Verdict;
use super::recording::cut_everywhere;
use super::seed;

/// Where the table lies behind the boot code, and in how many sectors at the end.
const TABLE: Range<usize> = 440..34 * SECTOR;
const BACKUP_SECTORS: usize = 33;
/// Where ext keeps its magic number, in the sector of its superblock.
const MAGIC_AT: usize = 1080;
/// What a BIOS runs to go on to its next device: `int 18h`.
const NEXT_DEVICE: [u8; 2] = [0xcd, 0x18];

/// On one in so many of the disks a cut leaves, the next flash is run.
const NEXT_RUN_EVERY: usize = 16;

fn flash(image: &Image, disk: &Path, scope: &Scope) -> DeployReport {
    let target = Target::open(disk, TargetOptions::default()).expect("a disk");
    let options = DeployOptions {
        scope: scope.clone(),
        ..DeployOptions::default()
    };
    let manifest = Arc::clone(image.manifest());
    let deploy = Deploy::begin(manifest, target, options, Arc::new(|_| {}));
    extract_to_disk(image, deploy.expect("an image that fits")).expect("a flash")
}

/// A recorded flash of the first partition, beside a second that stays.
struct Recording {
    dir: tempfile::TempDir,
    former: Vec<u8>,
    raw: Vec<u8>,
    image: Image,
    scope: Scope,
    journal: Journal,
}

impl Recording {
    fn make(seed: u64, scope: Scope) -> Recording {
        let dir = tempfile::tempdir().expect("a directory");
        let mut chance = Chance::new(seed);
        let former = disks::neighbours(dir.path(), "former", &mut chance);
        let raw = disks::neighbours(dir.path(), "image", &mut chance);
        let image = disks::image(dir.path(), "image", false);
        let recorder = DaemonDisk::start(&dir.path().join("former.raw"), dir.path());
        let report = flash(&image, recorder.path(), &scope);
        assert!(report.changed && report.verified_frames > 0);
        let journal = Journal::read(&recorder.finish());
        Recording {
            dir,
            former,
            raw,
            image,
            scope,
            journal,
        }
    }

    fn keeps(&self) -> bool {
        matches!(self.scope, Scope::Keep(_))
    }

    /// What this disk is. `None`: something that must not be.
    fn judge(&self, disk: &[u8]) -> Option<Verdict> {
        let same = |range: Range<usize>| disk[range.clone()] == self.former[range];
        let end = disk.len();
        let mut stays = vec![SECOND, TABLE, end - BACKUP_SECTORS * SECTOR..end];
        if !self.keeps() {
            stays.extend([0..FIRST.start, FIRST.end..end]);
        }
        if !stays.into_iter().all(same) {
            return None;
        }
        let (part, former, image) = (&disk[FIRST], &self.former[FIRST], &self.raw[FIRST]);
        let verdict = if part == image {
            Verdict::Whole
        } else if is_ext(part) {
            // The sectors before the superblock may be cleared already: nothing of the file system is in them.
            let untouched = part[2 * SECTOR..] == former[2 * SECTOR..];
            let boot = (0..2).all(|sector| {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                part[range.clone()] == former[range.clone()]
                    || part[range].iter().all(|byte| *byte == 0)
            });
            (untouched && boot).then_some(Verdict::Former)?
        } else {
            Verdict::Dead
        };
        if !self.keeps() || disk[..2] == NEXT_DEVICE {
            return Some(verdict);
        }
        // With boot code in place, all else must belong to it.
        let belongs = |other: &[u8]| {
            disk[..440] == other[..440]
                && disk[TABLE.end..FIRST.start] == other[TABLE.end..FIRST.start]
                && *part == other[FIRST]
        };
        (belongs(&self.former) || belongs(&self.raw)).then_some(verdict)
    }

    fn assert_next_run_completes(&self, disk: &[u8]) {
        let path = self.dir.path().join("next");
        fs::write(&path, disk).expect("a disk");
        flash(&self.image, &path, &self.scope);
        let next = fs::read(&path).expect("the disk");
        assert_eq!(self.judge(&next), Some(Verdict::Whole));
        assert!(!self.keeps() || next[..440] == self.raw[..440]);
    }
}

fn is_ext(part: &[u8]) -> bool {
    part[MAGIC_AT..MAGIC_AT + 2] == [0x53, 0xef]
}

/// What `blkid` takes the first partition of a disk for.
fn blkid(disk: &[u8], path: &Path) -> String {
    fs::write(path, &disk[FIRST]).expect("a working file");
    let told = Command::new("blkid")
        .args(["-p", "-o", "value", "-s", "TYPE"])
        .arg(path)
        .output();
    let told = told.expect("blkid, by scripts/setup").stdout;
    String::from_utf8_lossy(&told).trim().to_owned()
}

fn assert_every_cut_is_safe(scope: Scope) {
    let seed = seed();
    let recording = Recording::make(seed, scope);
    let epochs: Vec<usize> = recording.journal.epochs.iter().map(Vec::len).collect();
    println!("{}: writes per epoch {epochs:?}", recording.scope);
    let mut chance = Chance::new(seed).fork(1);
    let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
    let mut seen = 0;
    let probe = recording.dir.path().join("probe");
    cut_everywhere(
        &recording.former,
        &recording.journal,
        &mut chance,
        |disk, place| {
            let Some(verdict) = recording.judge(disk) else {
                panic!(
                    "seed {seed}, {place}: a partition that is half-written, or a neighbour that changed"
                )
            };
            *verdicts.entry(verdict).or_default() += 1;
            if seen % NEXT_RUN_EVERY == 0 || place.starts_with("flush") {
                let expected = if verdict == Verdict::Dead { "" } else { "ext4" };
                assert_eq!(blkid(disk, &probe), expected, "seed {seed}, {place}");
                recording.assert_next_run_completes(disk);
            }
            seen += 1;
        },
    );
    println!("{seen} cuts: {verdicts:?}");
    assert!(seen >= 200 && verdicts.len() == 3, "{verdicts:?}");
}

#[test]
fn a_single_partition_is_former_unknown_or_whole_at_every_cut_and_all_else_stays() {
    assert_every_cut_is_safe(Scope::of(&[1], &[]).expect("a scope"));
}

#[test]
fn so_it_is_when_one_partition_is_kept_and_the_boot_code_comes_last() {
    assert_every_cut_is_safe(Scope::of(&[], &[2]).expect("a scope"));
}

#[test]
fn without_flushes_a_half_written_partition_is_found() {
    let seed = seed();
    let recording = Recording::make(seed, Scope::of(&[1], &[]).expect("a scope"));
    let careless = recording.journal.without_flushes();
    let (mut found, mut seen) = (0, 0);
    cut_everywhere(
        &recording.former,
        &careless,
        &mut Chance::new(seed).fork(2),
        |disk, _| {
            seen += 1;
            found += usize::from(recording.judge(disk).is_none());
        },
    );
    println!("{found} of {seen} cuts without flushes leave a partition that mounts half-written");
    assert!(found > 0);
}
