//! File systems saved by partclone, judged by `partclone.restore` of the same file.

use std::fs;

use crate::bench::{Bench, tool};
use crate::trial::{assert_becomes, assert_refused, blank, ext4, files, output_of};

/// Saves `system` with the partclone for it; gives the file.
pub(crate) fn save(bench: &Bench, program: &str, system: &str, options: &[&str]) -> String {
    let (out, log) = (bench.path("saved.pcl"), bench.path("partclone.log"));
    let clone: &[&str] = match program {
        "partclone.dd" => &[],
        _ => &["-c"],
    };
    let arguments = [
        clone,
        &["-q", "-L", &log, "-s", system, "-O", &out],
        options,
    ]
    .concat();
    tool(program, &arguments, "");
    out
}

/// What `partclone.restore` makes of a file.
fn restored(bench: &Bench, saved: &str, bytes: u64) -> Vec<u8> {
    let (out, log) = (blank(bench, "restored", bytes), bench.path("partclone.log"));
    tool(
        "partclone.restore",
        &["-q", "-C", "-L", &log, "-s", saved, "-O", &out],
        "",
    );
    let raw = fs::read(&out).unwrap();
    fs::remove_file(out).unwrap();
    raw
}

#[test]
fn a_file_system_saved_by_partclone_is_what_partclone_restores() {
    let bench = Bench::new();
    let files = files(&bench);
    let bytes = 48 << 20;
    let make = |name: &str, program: &str, arguments: &[&str]| {
        let path = blank(&bench, name, bytes);
        tool(program, &[arguments, &[&path]].concat(), "");
        path
    };
    let vfat = make("vfat", "mkfs.vfat", &["-F", "32"]);
    tool(
        "mcopy",
        &["-i", &vfat, &format!("{files}/3"), "::three"],
        "",
    );
    let ntfs = make("ntfs", "mkfs.ntfs", &["-q", "-F", "-f"]);
    tool("ntfscp", &["-q", &ntfs, &format!("{files}/4"), "four"], "");
    for (program, system) in [
        ("partclone.extfs", ext4(&bench, "ext4", bytes)),
        (
            "partclone.extfs",
            make("ext2", "mke2fs", &["-q", "-F", "-b", "1024", "-d", &files]),
        ),
        ("partclone.vfat", vfat),
        ("partclone.ntfs", ntfs),
        ("partclone.exfat", make("exfat", "mkfs.exfat", &[])),
    ] {
        let saved = save(&bench, program, &system, &[]);
        let expected = restored(&bench, &saved, bytes);
        assert!(expected.iter().any(|&byte| byte != 0));
        assert_becomes(&bench, &saved, &expected);
    }
}

#[test]
fn every_way_of_checksums_is_checked() {
    let bench = Bench::new();
    let system = ext4(&bench, "ext4", 32 << 20);
    // Debian's partclone.restore overruns its buffer with odd strips: it is asked for usual ones.
    let usual = save(&bench, "partclone.extfs", &system, &[]);
    let expected = restored(&bench, &usual, 32 << 20);
    for options in [
        &["-a0"][..],
        &["-a1", "-k1"],
        &["-a1", "-k100"],
        &["-a1", "-k7", "-K"],
        &["-a1", "-k1000000"],
    ] {
        let saved = save(&bench, "partclone.extfs", &system, options);
        assert_becomes(&bench, &saved, &expected);
        if options[0] == "-a1" {
            let mut damaged = fs::read(&saved).unwrap();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            assert_refused(&bench, &bench.file("damaged", &damaged), "checksum");
        }
    }
}

#[test]
fn a_compressed_partclone_file_is_restored_without_a_stop_between() {
    let bench = Bench::new();
    let system = ext4(&bench, "ext4", 32 << 20);
    let saved = save(&bench, "partclone.extfs", &system, &[]);
    let expected = restored(&bench, &saved, 32 << 20);
    for program in ["gzip", "zstd"] {
        let packed = output_of(program, &["-c", &saved]);
        assert_becomes(&bench, &bench.file("d1p1.img", &packed), &expected);
    }
}

#[test]
fn a_damaged_partclone_file_is_refused_with_the_place() {
    let bench = Bench::new();
    let system = ext4(&bench, "ext4", 32 << 20);
    let whole = fs::read(save(&bench, "partclone.extfs", &system, &[])).unwrap();
    for (at, word) in [
        (60, "checksum of its header"),
        (300, "checksum of its block map"),
        (30, "format"),
        (34, "big-endian"),
    ] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        assert_refused(&bench, &bench.file("damaged", &damaged), word);
    }
    for left in [50, 200, whole.len() / 2, whole.len() - 1] {
        assert_refused(&bench, &bench.file("cut", &whole[..left]), "cut short");
    }
}
