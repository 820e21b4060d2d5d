//! btrfs, judged by `btrfs check` and its own dump of the extent tree.

use std::fs;
use std::path::Path;

use crate::bench::{Bench, MIB, fill, tool};

/// Bytes of extents, counted once and with every copy.
fn allocated(volume: &str) -> (u64, u64) {
    let said = tool(
        "btrfs",
        &["inspect-internal", "dump-tree", "-t", "extent", volume],
    );
    let mut bytes = (0, 0);
    for line in said.lines() {
        if let Some(group) = line.trim().strip_prefix("block group used ") {
            let (used, rest) = group.split_once(' ').unwrap();
            let used: u64 = used.parse().unwrap();
            bytes.0 += used;
            bytes.1 += used * if rest.contains("DUP") { 2 } else { 1 };
        }
    }
    bytes
}

fn fill_with_snapshots(directory: &Path) {
    let place = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    tool("btrfs", &["subvolume", "create", &place("home")]);
    fill(&directory.join("home"));
    tool(
        "btrfs",
        &["subvolume", "snapshot", &place("home"), &place("before")],
    );
    for index in 0..200u64 {
        _ = fs::remove_file(directory.join(format!("home/small/{index}")));
    }
    fs::copy(directory.join("home/growing1"), directory.join("copy")).unwrap();
}

#[test]
fn a_btrfs_is_the_same_on_a_larger_disk() {
    let kinds: [&[&str]; 4] = [
        &[],
        &["-m", "single", "-d", "dup"],
        &["--mixed"],
        &["-n", "4096"],
    ];
    for options in kinds {
        let bench = Bench::new();
        let volume = bench.blank("volume", 300 * MIB);
        tool(
            "mkfs.btrfs",
            &[&["-q", "-L", "data"], options, &[&volume]].concat(),
        );
        bench.fill(&volume, fill_with_snapshots);
        let content = bench.content(&volume);
        let journey = bench.journey(&volume);
        assert_eq!(journey.partition["fs"], "btrfs");
        assert_eq!(journey.partition["label"], "data");
        assert!(journey.notes.is_empty(), "{options:?}: {:?}", journey.notes);
        // Besides extents the first MiB is kept, and 64 KiB around the second superblock; partclone
        // counts one copy of what has two.
        let reserved = MIB + (64 << 10);
        let (one_copy, allocated) = allocated(&volume);
        let others = bench.partclone("btrfs", &volume) + allocated - one_copy + reserved;
        journey.assert_used(&format!("btrfs {options:?}"), others, allocated);
        assert_eq!(journey.used_bytes(), allocated + reserved);
        tool("btrfs", &["check", "--check-data-csum", &journey.restored]);
        assert!(content.len() > 300 && bench.content(&journey.restored) == content);
    }
}

#[test]
fn a_btrfs_whose_log_tree_waits_is_refused_with_the_remedy() {
    let bench = Bench::new();
    let volume = bench.blank("volume", 300 * MIB);
    tool("mkfs.btrfs", &["-q", &volume]);
    let hot = bench.path("hot");
    bench.fill(&volume, |directory| {
        fill(directory);
        nix::unistd::sync();
        fs::write(directory.join("late"), [1; 70_000]).unwrap();
        fs::File::open(directory.join("late"))
            .unwrap()
            .sync_all()
            .unwrap();
        fs::copy(&volume, &hot).unwrap();
    });
    let said = bench.refusal(&hot);
    assert!(
        said.contains("partition 1 (btrfs): its log tree was not replayed"),
        "{said}"
    );
}

#[test]
fn a_btrfs_with_other_checksums_is_kept_whole() {
    let bench = Bench::new();
    let volume = bench.blank("volume", 200 * MIB);
    tool("mkfs.btrfs", &["-q", "--csum", "xxhash", &volume]);
    let journey = bench.journey(&volume);
    assert_eq!(journey.used_bytes(), 200 * MIB);
    assert!(
        journey.notes[0].contains("not crc32c"),
        "{:?}",
        journey.notes
    );
}
