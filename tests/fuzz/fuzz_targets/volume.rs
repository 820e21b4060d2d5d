//! Hostile volumes and tables to the readers of free space: valid ones of every kind, made and filled
//! by their own tools (`seed_volume.sh`), changed where their readers read, with checksums mended.
//!
//! `NETFLASH_READER=ntfs` plays on the volumes whose names begin so; without, the first byte of the
//! input chooses among all of them.
#![no_main]

use std::cell::RefCell;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use netflash_imager::{free_of_disk, free_of_volume};

#[path = "../bound.rs"]
mod bound;
#[path = "../mend.rs"]
mod mend;
#[path = "../patched.rs"]
mod patched;

use mend::mend;
use patched::Patched;

/// What a reader may allocate: a constant, and a part of the volume. Free ranges of 16 bytes, of two
/// blocks of 512 bytes each, in a vector that grows, are a twentieth.
const ALLOWED_BYTES: usize = 1 << 20;
const ALLOWED_PART: usize = 16;
/// Kinds of which nothing is ever free.
const NEVER_FREE: [&str; 2] = ["luks", "bitlocker"];

/// A volume, and whether it is a whole disk.
struct Seed {
    volume: Patched,
    disk: bool,
}

impl Seed {
    fn load(path: &Path, name: &str) -> Seed {
        let file = File::open(path).expect("a volume");
        let (mut volume, disk) = (Patched::new(&file), name.starts_with("disk"));
        let bytes = volume.bytes();
        let said = volume.watch(|read| free_of(disk, bytes, read));
        // A seed that is not understood leads nowhere.
        match NEVER_FREE.iter().any(|kind| name.starts_with(kind)) {
            true => assert!(said.is_err(), "{name}: {said:?}"),
            false => assert!(said.as_ref().is_ok_and(|free| !free.is_empty()), "{name}: {said:?}"),
        }
        Seed { volume, disk }
    }

    /// Does what `input` says, asks for what is free, and takes it back.
    fn play(&mut self, input: &[u8]) {
        let Some((&flags, changes)) = input.split_first() else {
            return;
        };
        let places = self.volume.change(changes);
        if flags & 1 == 0 {
            mend(&mut self.volume, &places);
        }
        let bytes = self.volume.bytes();
        let allowed = ALLOWED_BYTES + bytes as usize / ALLOWED_PART;
        let said = bound::within(allowed, || {
            free_of(self.disk, bytes, &|at, buffer| self.volume.read(at, buffer))
        });
        if let Ok(free) = said {
            let sane = |range: &Range<u64>| range.start < range.end && range.end <= bytes;
            assert!(free.iter().all(sane));
            assert!(free.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
        self.volume.restore();
    }
}

fn free_of(
    disk: bool,
    bytes: u64,
    read: &dyn Fn(u64, &mut [u8]),
) -> Result<Vec<Range<u64>>, String> {
    match disk {
        true => free_of_disk(bytes, read),
        false => free_of_volume(bytes, read),
    }
}

fn seeds() -> Vec<Seed> {
    let wanted = std::env::var("NETFLASH_READER").unwrap_or_default();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("volumes");
    let listed = fs::read_dir(&directory).expect("run tests/fuzz/seed_volume.sh");
    let mut paths: Vec<_> = listed.map(|entry| entry.expect("a file").path()).collect();
    paths.sort();
    let mut seeds = Vec::new();
    for path in paths {
        let name = path.file_name().expect("of a directory").to_string_lossy();
        if name.starts_with(&wanted) {
            seeds.push(Seed::load(&path, &name));
        }
    }
    assert!(!seeds.is_empty(), "no volume is named {wanted}");
    seeds
}

thread_local! {
    static SEEDS: RefCell<Vec<Seed>> = RefCell::new(seeds());
}

// The volumes are read before the first input, whose time is watched.
fuzz_target!(init: SEEDS.with(|_| ()), |input: &[u8]| {
    SEEDS.with_borrow_mut(|seeds| {
        if let Some((&kind, input)) = input.split_first() {
            let index = usize::from(kind) % seeds.len();
            seeds[index].play(input);
        }
    });
});
