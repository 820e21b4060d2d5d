//! ext2, ext3 and ext4, judged by `dumpe2fs` and `e2fsck`.

use crate::bench::{Bench, MIB, fill, tool};

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
