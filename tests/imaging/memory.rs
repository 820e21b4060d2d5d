//! Memory does not grow with the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use super::bench::{Bench, MIB, from_environment, said, tool};

/// Private writable memory that the program may have (RLIMIT_DATA): heap, buffers and stacks of threads, touched or
/// not. An allocation beyond it fails, and ends the program.
const LIMIT: u64 = 200 * MIB;
/// Size of the disk.
const DISK_BYTES: u64 = 1 << 40;
/// Size of its file system, in KiB: it ends a MiB before the disk does.
const FS_KIB: &str = "1073739776";
/// What it may hold, tables of the file system included.
const HELD_MAX: u64 = 600 * MIB;

fn within_limit(arguments: &[&str]) {
    let output = Command::new("prlimit")
        .arg(format!("--data={LIMIT}"))
        .arg("--")
        .arg(from_environment("NETFLASH_BIN"))
        .arg("image")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}

#[test]
fn a_disk_of_a_tebibyte_is_captured_checked_and_restored_within_200_mib() {
    let bench = Bench::new();
    let (disk, image, copy) = (
        bench.path("disk"),
        bench.path("a.img.zst"),
        bench.path("copy"),
    );
    fs::File::create(&disk)
        .unwrap()
        .set_len(DISK_BYTES)
        .unwrap();
    tool("sgdisk", &["--new=1:1M:0", &disk], "");
    let options = ["-q", "-t", "ext4", "-F", "-N", "20000", "-J", "size=4"];
    let place = "lazy_itable_init=1,nodiscard,offset=1048576";
    let filled = ["-E", place, "-d", "/usr/sbin", &disk, FS_KIB];
    tool("mke2fs", &[&options[..], &filled[..]].concat(), "");
    let held = fs::metadata(&disk).unwrap().blocks() * 512;
    assert!(held < HELD_MAX, "mke2fs wrote {held} bytes");

    within_limit(&["create", &disk, &image]);
    within_limit(&["verify", &image]);
    within_limit(&["extract", &image, &copy]);
    assert_eq!(fs::metadata(&copy).unwrap().len(), DISK_BYTES);
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 2 * HELD_MAX);
    let copied = format!("{copy}?offset=1048576");
    tool("e2fsck", &["-fn", &copied], "");
    let list = |path: &str| tool("debugfs", &["-R", "ls -l /", path], "");
    assert_eq!(list(&format!("{disk}?offset=1048576")), list(&copied));
}
