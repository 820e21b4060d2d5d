//! ext2, ext3 and ext4, judged by `dumpe2fs` and `e2fsck`.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::bench::{Bench, MIB, fill, tool};

const SWAP_BYTES: u64 = 40 * MIB;
/// Of a swap file, its header and what may lie in the page of another machine's size.
const SWAP_KEPT_BYTES: u64 = 64 << 10;

pub(super) fn allocated(volume: &str) -> u64 {
    let said = tool("dumpe2fs", &["-h", volume]);
    let field = |name: &str| -> u64 {
        let value = said.lines().find_map(|line| line.strip_prefix(name));
        value.expect("a known field").trim().parse().unwrap()
    };
    (field("Block count:") - field("Free blocks:")) * field("Block size:")
}

#[test]
fn an_ext_is_the_same_on_a_larger_disk() {
    let kinds: [&[&str]; 4] = [
        &["-t", "ext4"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext3"],
        &["-t", "ext2"],
    ];
    for options in kinds {
        let bench = Bench::new();
        let volume = bench.blank("volume", 200 * MIB);
        tool("mke2fs", &[&["-q", "-F"], options, &[&volume]].concat());
        bench.fill(&volume, fill);
        let content = bench.content(&volume);
        let journey = bench.journey(&volume);
        assert_eq!(journey.partition["fs"], options[1]);
        let others = bench.partclone("extfs", &volume);
        journey.assert_used(&format!("{options:?}"), others, allocated(&volume));
        tool("e2fsck", &["-f", "-n", &journey.restored]);
        assert!(content.len() > 300 && bench.content(&journey.restored) == content);
    }
}

/// A swap file of noise in two dozen pieces, one that only has the name, and files as always.
fn fill_with_swap(root: &Path) {
    fill(root);
    let mut swap = File::create(root.join("swapfile")).unwrap();
    let mut between = File::create(root.join("between")).unwrap();
    let noise: Vec<u8> = (0..2 * MIB as u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    for _ in 0..SWAP_BYTES / noise.len() as u64 {
        swap.write_all(&noise).unwrap();
        swap.sync_all().unwrap();
        between.write_all(&noise[..100_000]).unwrap();
        between.sync_all().unwrap();
    }
    let path = root.join("swapfile");
    tool("mkswap", &["-L", "lent", path.to_str().unwrap()]);
    fs::write(root.join("swap.img"), &noise[..300_000]).unwrap();
}

#[test]
fn of_a_swap_file_only_the_header_is_kept() {
    for options in [
        &["-t", "ext4"][..],
        &["-t", "ext3"],
        &["-t", "ext2", "-b", "1024"],
    ] {
        let bench = Bench::new();
        let volume = bench.blank("volume", 200 * MIB);
        tool("mke2fs", &[&["-q", "-F"], options, &[&volume]].concat());
        bench.fill(&volume, fill_with_swap);
        let content = bench.content(&volume);
        let journey = bench.journey(&volume);
        let left_out = SWAP_BYTES - SWAP_KEPT_BYTES;
        assert_eq!(
            journey.used_bytes(),
            allocated(&volume) - left_out,
            "{options:?}"
        );
        let told = journey.notes.iter().any(|note| note.contains("/swapfile"));
        assert!(told, "{:?}", journey.notes);
        tool("e2fsck", &["-f", "-n", &journey.restored]);
        let (mut same, mut other) = (0, Vec::new());
        for (before, after) in content.iter().zip(bench.content(&journey.restored)) {
            assert_eq!(before.0, after.0);
            match before.1 == after.1 {
                true => same += 1,
                false => other.push(after.0),
            }
        }
        assert!(
            same > 300 && other.len() == 1 && other[0].ends_with("swapfile"),
            "{other:?}"
        );
        // The kernel takes it for what it was.
        bench.fill(&journey.restored, |root| {
            let swap = root.join("swapfile");
            let swap = swap.to_str().unwrap();
            assert!(tool("swaplabel", &[swap]).contains("lent"));
        });
    }
}
