//! A real image, block by block, onto a file that stands for the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use netflash_imager::{Image, SealOptions, Source, TargetOptions, seal};

use super::*;

const RAW_BYTES: usize = 5 * FRAME_BYTES as usize + 4096;

struct Bench {
    directory: tempfile::TempDir,
    image: Image,
    plan: Plan,
}

impl Bench {
    /// Five frames of noise, so that they make several blocks, and a tail.
    fn new(seed: u8) -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let raw = directory.path().join("raw");
        fs::write(&raw, noise(seed)).unwrap();
        let path = directory.path().join("test.img.zst");
        let options = SealOptions {
            used_only: false,
            whole: Default::default(),
            only: None,
            level: 1,
            note: String::new(),
            parent: None,
            created: 0,
            threads: 1,
        };
        let source = Source::open(&raw, directory.path()).unwrap();
        seal(
            source,
            &path,
            &options,
            &mut |_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
        let image = Image::open(&path).unwrap();
        let plan = Plan::new(image.manifest());
        Bench {
            directory,
            image,
            plan,
        }
    }

    fn disk(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    fn sink(&self) -> DeploySink {
        let options = TargetOptions {
            create: true,
            ..TargetOptions::default()
        };
        DeploySink::new(
            self.image.id(),
            Target::open(&self.disk(), options).unwrap(),
            DeployOptions::default(),
            Arc::new(|_| {}),
            Arc::new(Tally::default()),
        )
    }

    fn begin(&self, mut sink: &mut DeploySink) -> Result<Start, SinkError> {
        let object = ObjectId(self.image.id().0);
        sink.begin(self.image.manifest_bytes(), &object)
    }

    fn payload(&self, block: u32) -> Vec<u8> {
        let mut payload = Vec::new();
        for &frame in self.plan.frames(block) {
            self.image.read_stored(frame, &mut payload).unwrap();
        }
        payload
    }

    fn deliver_all(&self, sink: &mut DeploySink, wanted: &[bool]) {
        for block in (0..)
            .zip(wanted)
            .filter(|(_, wanted)| **wanted)
            .map(|(b, _)| b)
        {
            (&mut *sink).deliver(BlockId(block), self.payload(block));
            assert_eq!(verdict(sink), Verdict::Accepted(BlockId(block)));
        }
    }
}

fn noise(seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) + 0x9e37_79b9_7f4a_7c15;
    (0..RAW_BYTES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn verdict(mut sink: &mut DeploySink) -> Verdict {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(verdict) = sink.poll_verdict() {
            return verdict;
        }
        assert_eq!(sink.poll_failure(), None);
        assert!(Instant::now() < end, "no verdict");
        thread::sleep(Duration::from_millis(5));
    }
}

fn finish(mut sink: DeploySink) {
    (&mut sink).settle();
    assert_eq!(verdict(&mut sink), Verdict::Settled);
    sink.into_deploy().unwrap().commit().unwrap();
}

fn same(disk: &Path, raw: &[u8]) -> bool {
    fs::read(disk).unwrap()[..raw.len()] == *raw
}

#[test]
fn delivered_blocks_make_the_disk_the_image() {
    let bench = Bench::new(1);
    let mut sink = bench.sink();
    let start = bench.begin(&mut sink).unwrap();
    assert!(start.wanted.len() > 1 && start.wanted.iter().all(|w| *w));
    bench.deliver_all(&mut sink, &start.wanted);
    finish(sink);
    assert!(same(&bench.disk(), &noise(1)));
}

#[test]
fn a_wrong_block_is_refused_and_the_right_one_taken_afterwards() {
    let bench = Bench::new(2);
    let mut sink = bench.sink();
    let start = bench.begin(&mut sink).unwrap();
    let mut wrong = bench.payload(0);
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    (&mut &mut sink).deliver(BlockId(0), wrong);
    assert_eq!(verdict(&mut sink), Verdict::Rejected(BlockId(0)));
    bench.deliver_all(&mut sink, &start.wanted);
    finish(sink);
    assert!(same(&bench.disk(), &noise(2)));
}

#[test]
fn a_second_run_wants_only_what_the_first_did_not_write() {
    let bench = Bench::new(3);
    let mut first = bench.sink();
    let start = bench.begin(&mut first).unwrap();
    let last = start.wanted.len() - 1;
    bench.deliver_all(&mut first, &start.wanted[..last]);
    drop(first);
    let mut second = bench.sink();
    let resumed = bench.begin(&mut second).unwrap();
    let lacking = resumed.wanted.iter().filter(|wanted| **wanted).count();
    // The last block, and the first: its frame holds the boot sector and is withheld to the end.
    assert!(lacking <= 2 && resumed.wanted[last], "{:?}", resumed.wanted);
    bench.deliver_all(&mut second, &resumed.wanted);
    finish(second);
    assert!(same(&bench.disk(), &noise(3)));
}

#[test]
fn another_image_than_ordered_is_refused_before_the_disk_is_touched() {
    let bench = Bench::new(4);
    let other = Bench::new(5);
    let mut sink = bench.sink();
    let error = other.begin(&mut sink).unwrap_err();
    assert!(error.to_string().contains(&bench.image.id().to_string()));
    assert_eq!(fs::read(bench.disk()).unwrap(), b"");
}

#[test]
fn a_manifest_of_garbage_is_an_error() {
    let bench = Bench::new(6);
    let mut sink = bench.sink();
    let object = ObjectId(bench.image.id().0);
    assert!((&mut sink).begin(b"garbage", &object).is_err());
}
