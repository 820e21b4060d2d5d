//! The disks of the power-cut tests: one to be imaged, one that was in use before, both with real tables and data.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use netflash_imager::{Image, SealOptions, Source, seal};
use tests::sim::Chance;

/// Size of each disk, in bytes. The partition fills it, so that nothing but the file system has free space.
pub(crate) const DISK_BYTES: usize = 40 << 20;
/// Where the partition begins and how long it is, in bytes.
const PARTITION: Range<usize> = 1 << 20..39 << 20;

/// Where an older version differs: among the content of files, in this many places.
const FILES: Range<usize> = 10 << 20..30 << 20;
const CHANGES: usize = 12;

/// Runs a program that must succeed; gives what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup"));
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A raw disk: boot code, GPT by `sgdisk`, an ext4 file system of random files by `mke2fs`, in a boot gap more code.
pub(crate) fn disk(dir: &Path, name: &str, chance: &mut Chance) -> Vec<u8> {
    let files = dir.join(format!("{name}.files"));
    fs::create_dir_all(files.join("home")).expect("a directory");
    for number in 0..27 {
        let bytes = chance.range(900_000, 1_200_000) as usize;
        fs::write(files.join(format!("home/{number}")), chance.bytes(bytes)).expect("a file");
    }
    let system = dir.join(format!("{name}.ext4"));
    let size = format!("{}k", PARTITION.len() / 1024);
    let text = |path: &PathBuf| path.to_str().expect("a plain name").to_owned();
    run(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-d",
            &text(&files),
            &text(&system),
            &size,
        ],
    );

    let mut raw = vec![0; DISK_BYTES];
    raw[PARTITION].copy_from_slice(&fs::read(&system).expect("what mke2fs made"));
    let path = dir.join(format!("{name}.raw"));
    fs::write(&path, &raw).expect("the raw disk");
    let (first, last) = (PARTITION.start / 512, PARTITION.end / 512 - 1);
    run(
        "sgdisk",
        &["-n", &format!("1:{first}:{last}"), &text(&path)],
    );
    let mut raw = fs::read(&path).expect("the raw disk");
    raw[..440].copy_from_slice(&chance.bytes(440));
    raw[40 * 512..400 * 512].copy_from_slice(&chance.bytes(360 * 512));
    fs::write(&path, &raw).expect("the raw disk");
    raw
}

/// An older version of the disk `raw`, as `name`: other boot code, another name of the partition, other content in some
/// places of its files.
pub(crate) fn older(dir: &Path, name: &str, raw: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut older = raw.to_vec();
    for _ in 0..CHANGES {
        let at = chance.range(FILES.start as u64, FILES.end as u64 - 5000) as usize;
        let bytes = chance.range(1, 5000) as usize;
        older[at..at + bytes].copy_from_slice(&chance.bytes(bytes));
    }
    older[40 * 512..44 * 512].copy_from_slice(&chance.bytes(4 * 512));
    let path = dir.join(format!("{name}.raw"));
    fs::write(&path, &older).expect("the raw disk");
    run(
        "sgdisk",
        &["-c", "1:older", path.to_str().expect("a plain name")],
    );
    fs::read(&path).expect("the raw disk")
}

/// The partitions of [`neighbours`], in bytes; no border lies on a mebibyte.
pub(crate) const FIRST: Range<usize> = 2056 * 512..26_000 * 512;
pub(crate) const SECOND: Range<usize> = 26_008 * 512..40_008 * 512;
const NEIGHBOURS_BYTES: usize = 24 << 20;

/// A raw disk with two ext4 file systems in a GPT that is always the same, boot code, and more code before them.
pub(crate) fn neighbours(dir: &Path, name: &str, chance: &mut Chance) -> Vec<u8> {
    let path = dir.join(format!("{name}.raw"));
    let shown = path.to_str().expect("a plain name");
    let mut raw = vec![0; NEIGHBOURS_BYTES];
    for place in [FIRST, SECOND] {
        let files = dir.join(format!("{name}.{}.files", place.start));
        fs::create_dir_all(&files).expect("a directory");
        for number in 0..place.len() / 2_000_000 {
            let bytes = chance.range(900_000, 1_200_000) as usize;
            fs::write(files.join(number.to_string()), chance.bytes(bytes)).expect("a file");
        }
        let system = dir.join(format!("{name}.{}.ext4", place.start));
        let (files, system) = (files.display().to_string(), system.display().to_string());
        let size = format!("{}k", place.len() / 1024);
        run(
            "mke2fs",
            &["-q", "-t", "ext4", "-d", &files, &system, &size],
        );
        let system = fs::read(&system).expect("what mke2fs made");
        raw[place.start..place.start + system.len()].copy_from_slice(&system);
    }
    fs::write(&path, &raw).expect("the raw disk");
    let mut table = vec!["-a".to_owned(), "1".to_owned()];
    let guid = |number: u32| format!("22222222-2222-4222-8222-00000000000{number}");
    table.extend(["-U".to_owned(), guid(0)]);
    for (number, place) in (1..).zip([FIRST, SECOND]) {
        let (first, last) = (place.start / 512, place.end / 512 - 1);
        table.extend(["-n".to_owned(), format!("{number}:{first}:{last}")]);
        table.extend(["-u".to_owned(), format!("{number}:{}", guid(number))]);
    }
    table.push(shown.to_owned());
    run(
        "sgdisk",
        &table.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let mut raw = fs::read(&path).expect("the raw disk");
    raw[..440].copy_from_slice(&chance.bytes(440));
    raw[40 * 512..400 * 512].copy_from_slice(&chance.bytes(360 * 512));
    fs::write(&path, &raw).expect("the raw disk");
    raw
}

/// What `dumpe2fs` calls free in the file system of a disk made by [`disk`], in bytes of the disk.
pub(crate) fn free_blocks(dir: &Path, name: &str) -> Vec<Range<usize>> {
    let system = dir.join(format!("{name}.ext4"));
    let listing = run("dumpe2fs", &[system.to_str().expect("a plain name")]);
    let block = listing
        .lines()
        .find_map(|line| line.strip_prefix("Block size:"))
        .and_then(|text| text.trim().parse::<usize>().ok())
        .expect("dumpe2fs gives a block size");
    let mut free: Vec<Range<usize>> = listing
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "))
        .flat_map(|line| line.split(", "))
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
            let number = |text: &str| text.trim().parse::<usize>().expect("a block number");
            PARTITION.start + number(first) * block..PARTITION.start + (number(last) + 1) * block
        })
        .collect();
    free.sort_by_key(|range| range.start);
    free
}

/// Seals the raw disk `name`.
pub(crate) fn image(dir: &Path, name: &str, used_only: bool) -> Image {
    let path = dir.join(format!("{name}.img.zst"));
    let source = Source::open(&dir.join(format!("{name}.raw")), dir).expect("the raw disk");
    let options = SealOptions {
        used_only,
        whole: Default::default(),
        only: None,
        level: 1,
        note: String::new(),
        parent: None,
        created: 0,
        threads: 2,
    };
    seal(
        source,
        &path,
        &options,
        &mut |_| {},
        &AtomicBool::new(false),
    )
    .expect("an image");
    Image::open(&path).expect("the image just made")
}
