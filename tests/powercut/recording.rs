//! A flash that was recorded, and the power cuts that it could have met.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use netflash_imager::{
    Deploy, DeployOptions, DeployReport, Image, Target, TargetOptions, extract_to_disk,
};
use tests::sim::Chance;

use crate::daemon::DaemonDisk;
use crate::disks;
use crate::journal::{Journal, Write};
use crate::oracle::{Oracle, Verdict};

/// Power cuts between two flushes, while the data is written and in each shorter step around it.
const CUTS_IN_DATA: usize = 150;
const CUTS_IN_STEP: usize = 20;
/// An epoch of more writes than this is the one of the data.
const STEP_WRITES_MAX: usize = 8;
/// On one in so many of the disks a cut leaves, the next flash is run.
const NEXT_RUN_EVERY: usize = 16;

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
pub(crate) struct Recording {
    /// For working files.
    pub(crate) dir: tempfile::TempDir,
    pub(crate) image: Image,
    pub(crate) oracle: Oracle,
    pub(crate) journal: Journal,
}

/// What is on the disk before the flash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Another system.
    Other,
    /// An older version of the image: most of it stays.
    Older,
}

impl Recording {
    /// Records a flash by this process.
    pub(crate) fn make(seed: u64, used_only: bool, before: Before) -> Recording {
        let dir = tempfile::tempdir().expect("a directory");
        let mut chance = Chance::new(seed);
        let (former, raw) = match before {
            Before::Other => (
                disks::disk(dir.path(), "former", &mut chance),
                disks::disk(dir.path(), "image", &mut chance),
            ),
            Before::Older => {
                let raw = disks::disk(dir.path(), "image", &mut chance);
                let former = disks::older(dir.path(), "former", &raw, &mut chance);
                (former, raw)
            }
        };
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
        let half = u64::from(image.manifest().frame_count()) / 2;
        match before {
            Before::Other => assert!(report.kept_frames < half),
            Before::Older => assert!(report.kept_frames > half && report.written_frames > 3),
        }
        let journal = Journal::read(&recorder.finish());
        let oracle = Oracle {
            former,
            image: raw,
            unused,
        };
        Recording::of(dir, image, oracle, journal, &backing)
    }

    /// What was recorded while the disk in the file `flashed` became what it is.
    pub(crate) fn of(
        dir: tempfile::TempDir,
        image: Image,
        oracle: Oracle,
        journal: Journal,
        flashed: &Path,
    ) -> Recording {
        let mut replayed = oracle.former.clone();
        for write in journal.epochs.iter().flatten() {
            write.apply(&mut replayed, |_| true);
        }
        let flashed = fs::read(flashed).expect("the disk");
        assert!(
            replayed == flashed,
            "the journal is not all that was written"
        );
        assert!(oracle.is_image(&flashed), "flashed, but not the image");
        Recording {
            dir,
            image,
            oracle,
            journal,
        }
    }

    /// Cuts the power everywhere, judges every disk, and flashes some of them again.
    pub(crate) fn assert_every_cut_is_safe(&self, seed: u64) {
        let epochs: Vec<usize> = self.journal.epochs.iter().map(Vec::len).collect();
        println!(
            "{} writes, {} flushes, writes per epoch {epochs:?}",
            epochs.iter().sum::<usize>(),
            self.journal.flushes
        );
        let mut chance = Chance::new(seed).fork(1);
        let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
        let (mut seen, mut next_runs) = (0, 0);
        self.cut(&self.journal, &mut chance, |disk, place| {
            let Some(verdict) = self.oracle.judge(disk) else {
                panic!("seed {seed}, {place}: a disk that may start half-written")
            };
            *verdicts.entry(verdict).or_default() += 1;
            if seen % NEXT_RUN_EVERY == 0 || place.starts_with("flush") {
                self.assert_next_run_completes(disk);
                next_runs += 1;
            }
            seen += 1;
        });
        println!("{seen} cuts: {verdicts:?}; the next flash completed on {next_runs} of them");
        assert!(epochs.len() >= 7, "a flush is missing: {epochs:?}");
        assert!(seen >= 200 && verdicts.len() == 3, "{verdicts:?}");
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

    /// See [`cut_everywhere`].
    pub(crate) fn cut(
        &self,
        journal: &Journal,
        chance: &mut Chance,
        see: impl FnMut(&[u8], String),
    ) {
        cut_everywhere(&self.oracle.former, journal, chance, see);
    }
}

/// Cuts the power at every flush, and at random between two. Every disk that comes of it is shown to `see`, with
/// a text that says where the cut was.
pub(crate) fn cut_everywhere(
    former: &[u8],
    journal: &Journal,
    chance: &mut Chance,
    mut see: impl FnMut(&[u8], String),
) {
    let mut disk = former.to_vec();
    see(&disk, "flush before the first write".into());
    for (index, epoch) in journal.epochs.iter().enumerate() {
        let cuts = if epoch.len() > STEP_WRITES_MAX {
            CUTS_IN_DATA
        } else {
            CUTS_IN_STEP
        };
        for _ in 0..cuts {
            let mut cut = disk.clone();
            let text = cut_within(epoch, &mut cut, chance, 1);
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

/// How many subsets an epoch has, when it is short enough to try them all.
fn subsets_of(epoch: &[Write]) -> u32 {
    if epoch.len() > STEP_WRITES_MAX {
        0
    } else {
        1 << epoch.len()
    }
}

/// Does a random part of the writes of an epoch, in random order, and tears a few of them, between runs of so many
/// `sectors` that the disk writes whole.
pub(crate) fn cut_within(
    epoch: &[Write],
    disk: &mut [u8],
    chance: &mut Chance,
    sectors: usize,
) -> String {
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
            let mut reached = false;
            write.apply(disk, |sector| {
                if sector.is_multiple_of(sectors) {
                    reached = chance.hit(0.5);
                }
                reached
            });
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
