//! File systems made by `mkfs.xfs`, and the opinion of `xfs_db` about them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use super::*;
use crate::scan::volume::prove;
use crate::testing::{FileDisk, MIB, blank, tool};

/// The smallest that `mkfs.xfs` makes, bytes.
const SIZE: u64 = 300 * MIB;

/// An XFS with some files in it, as far as a prototype can fill one.
fn made(directory: &TempDir, options: &[&str]) -> String {
    let path = blank(directory, "xfs", SIZE);
    let files = directory.path().join("content");
    std::fs::write(&files, vec![0x5a; 3_000_000]).unwrap();
    let prototype = directory.path().join("prototype");
    let names: String = (0..40)
        .map(|index| format!("file{index} ---644 0 0 {}\n", files.display()))
        .collect();
    std::fs::write(&prototype, format!("/none\n0 0\nd--755 0 0\n{names}$\n")).unwrap();
    let arguments = [
        &["-q", "-f", "-p", prototype.to_str().unwrap()],
        options,
        &[&path],
    ]
    .concat();
    tool("mkfs.xfs", &arguments, "");
    path
}

fn free_of_ours(path: &str) -> Result<Vec<Range<u64>>, Obstacle> {
    prove(free, &FileDisk(File::open(path).unwrap())).map(|proof| proof.free)
}

/// The free extents as `xfs_db` lists them, without the blocks of the free lists.
fn free_of_xfs_db(path: &str) -> Vec<Range<u64>> {
    let field = |command: &str, name: &str| -> u64 {
        tool(
            "xfs_db",
            &["-r", "-c", command, "-c", &format!("print {name}"), path],
            "",
        )
        .trim()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
    };
    let (block_bytes, group_blocks) = (field("sb 0", "blocksize"), field("sb 0", "agblocks"));
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for group in 0..field("sb 0", "agcount") {
        let agf = format!("agf {group}");
        let command = ["-r", "-c", &agf, "-c", "addr bnoroot", "-c", "btdump", path];
        // Records read "1:[10,6] 2:[24,19176]".
        for record in tool("xfs_db", &command, "").split('[').skip(1) {
            let Some((start, count)) = record.split_once(']').unwrap().0.split_once(',') else {
                continue;
            };
            let (Ok(start), Ok(count)) = (start.parse::<u64>(), count.parse::<u64>()) else {
                continue;
            };
            let start = (group * group_blocks + start) * block_bytes;
            ranges.push(start..start + count * block_bytes);
        }
    }
    ranges
}

#[test]
fn the_free_blocks_are_those_of_xfs_db() {
    let kinds: [&[&str]; 6] = [
        &[],
        &["-m", "crc=0"],
        &["-b", "size=1024", "-m", "rmapbt=1"],
        &["-s", "size=4096", "-d", "agcount=2"],
        &["-l", "su=256k"],
        &["-m", "crc=0,finobt=0", "-l", "lazy-count=0"],
    ];
    for options in kinds {
        let directory = TempDir::new().unwrap();
        let path = made(&directory, options);
        let ours =
            free_of_ours(&path).unwrap_or_else(|obstacle| panic!("{options:?}: {obstacle:?}"));
        assert_eq!(ours, free_of_xfs_db(&path), "{options:?}");
        assert!(ours.len() >= 2, "{options:?}");
    }
}

#[test]
fn what_contradicts_itself_is_kept() {
    let directory = TempDir::new().unwrap();
    let path = made(
        &directory,
        &["-m", "crc=0", "-b", "size=4096", "-s", "size=512"],
    );
    let group_bytes = SIZE / 4;
    let log_start = {
        let disk = FileDisk(File::open(&path).unwrap());
        Geometry::read(&disk).unwrap().log.start * 4096
    };
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let refused = |place: u64, bytes: &[u8], word: &str| {
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, place).unwrap();
        file.write_all_at(bytes, place).unwrap();
        let said = format!("{:?}", free_of_ours(&path).expect_err(word));
        assert!(said.contains(word), "{said}");
        file.write_all_at(&before, place).unwrap();
    };
    refused(16, &[1], "realtime");
    refused(48, &[0; 8], "another device");
    refused(84, &[9], "contradicts");
    refused(88, &[9], "contradicts");
    refused(100, &[0xff, 0xf6], "unknown version");
    refused(126, &[1], "not finished");
    refused(151, &[1], "superblock says");
    refused(group_bytes + 512 + 8, &[9], "group 1 is damaged");
    refused(group_bytes + 512 + 55, &[1], "group 1 says");
    refused(
        group_bytes + 4096,
        &[0],
        "free space of its group 1 is damaged",
    );
    refused(group_bytes + 4096 + 16, &[0; 4], "group 1 overlaps");
    // No unmount record, then no record, then no log.
    refused(log_start + 512 + 9, &[0], "log was not replayed");
    refused(log_start + 1024, &[0, 0, 0, 1], "log was not replayed");
    refused(log_start, &[0; 4], "never written");
    assert!(free_of_ours(&path).is_ok());
}

#[test]
fn a_wrong_checksum_is_distrusted() {
    let directory = TempDir::new().unwrap();
    let path = made(&directory, &["-b", "size=4096", "-s", "size=512"]);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    // In the label, in an unused field of a group header, and behind the last record of a tree.
    for place in [108, 512 + 300, 4096 + 4000] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 1], place).unwrap();
        assert!(
            matches!(free_of_ours(&path), Err(Obstacle::Unknown(_))),
            "byte {place}"
        );
        file.write_all_at(&byte, place).unwrap();
    }
    assert!(free_of_ours(&path).is_ok());
}
