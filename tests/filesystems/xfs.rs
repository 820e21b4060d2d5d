//! XFS, judged by `xfs_db` and `xfs_repair`.

use std::fs;

use crate::bench::{Bench, MIB, fill, tool};

fn allocated(volume: &str) -> u64 {
    let field = |name: &str| -> u64 {
        let command = format!("print {name}");
        let said = tool("xfs_db", &["-r", "-c", "sb 0", "-c", &command, volume]);
        said.trim().rsplit(' ').next().unwrap().parse().unwrap()
    };
    (field("dblocks") - field("fdblocks")) * field("blocksize")
}

#[test]
fn an_xfs_is_the_same_on_a_larger_disk() {
    let kinds: [&[&str]; 3] = [
        &[],
        &["-b", "size=1024"],
        &["-m", "rmapbt=1", "-s", "size=4096"],
    ];
    for options in kinds {
        let bench = Bench::new();
        let volume = bench.blank("volume", 300 * MIB);
        tool(
            "mkfs.xfs",
            &[&["-q", "-L", "data"], options, &[&volume]].concat(),
        );
        bench.fill(&volume, fill);
        let content = bench.content(&volume);
        let journey = bench.journey(&volume);
        assert_eq!(journey.partition["fs"], "xfs");
        assert_eq!(journey.partition["label"], "data");
        assert!(journey.notes.is_empty(), "{:?}", journey.notes);
        let others = bench.partclone("xfs", &volume);
        journey.assert_used(&format!("xfs {options:?}"), others, allocated(&volume));
        tool("xfs_repair", &["-n", &journey.restored]);
        assert!(content.len() > 300 && bench.content(&journey.restored) == content);
    }
}

#[test]
fn a_mounted_xfs_is_refused_with_the_remedy() {
    let bench = Bench::new();
    let volume = bench.blank("volume", 300 * MIB);
    tool("mkfs.xfs", &["-q", &volume]);
    let hot = bench.path("hot");
    bench.fill(&volume, |directory| {
        fill(directory);
        nix::unistd::sync();
        fs::copy(&volume, &hot).unwrap();
    });
    let said = bench.refusal(&hot);
    for word in [
        "partition 1 (xfs): its log was not replayed",
        "mount and unmount it once",
        "--whole=1",
    ] {
        assert!(said.contains(word), "{said}");
    }
    // The remedy helps.
    bench.fill(&hot, |_| {});
    bench.journey(&hot);
}
