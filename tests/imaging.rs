//! Images by the real program, judged by other people's programs.
//!
//! What is used, `dumpe2fs` says and not our manifest; what an image holds, `zstd` says and not
//! our reader. Nothing here needs root.

// A test that panics has failed, which is what a panic says here as well.
#![allow(clippy::unwrap_used)]

#[path = "imaging/bench.rs"]
mod bench;
#[path = "imaging/memory.rs"]
mod memory;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use bench::{
    Bench, MIB, assert_only, from_environment, image, json, netflash, noise, refused, said, tool,
    used_of_dumpe2fs,
};

/// How long the program may take to end after a signal.
const ENDING: Duration = Duration::from_secs(20);

#[test]
fn zstd_restores_the_raw_disk_bit_by_bit() {
    let bench = Bench::new();
    let raw = [noise(1, 3_333_333), vec![0; 5_000_000], noise(2, 1234)].concat();
    let (disk, out) = (bench.file("disk", &raw), bench.path("a.img.zst"));
    let made = json(&image(&[
        "create",
        &disk,
        &out,
        "--used-only=off",
        "--json",
    ]));
    assert!(bench.unpacked(&out) == raw);
    let checked = json(&image(&["verify", &out, "--json"]));
    assert_eq!(
        (&checked["ok"], &checked["image_id"]),
        (&Value::Bool(true), &made["image_id"])
    );
    let copy = bench.path("copy");
    image(&["extract", &out, &copy]);
    assert!(fs::read(copy).unwrap() == raw);
    let piped = netflash().args(["extract", &out, "-"]).output().unwrap();
    assert!(piped.stdout == raw);
}

#[test]
fn a_gpt_disk_keeps_what_dumpe2fs_calls_used() {
    let bench = Bench::new();
    let bytes = 80 * MIB;
    let (disk, mut kept) = bench.disk(bytes, 4 * MIB, |disk| {
        _ = tool(
            "sgdisk",
            &["--clear", "--new=1:2048:+1M", "--new=2:8192:+48M", disk],
            "",
        );
    });
    let raw = fs::read(&disk).unwrap();
    let out = bench.path("a.img.zst");
    image(&["create", &disk, &out]);
    // Tables and boot gap, the partition without a file system, and the last MiB.
    kept.extend([0..2 * MIB, bytes - MIB..bytes]);
    assert_only(&kept, &raw, &bench.unpacked(&out));

    let info = json(&image(&["info", &out, "--json"]));
    for name in [
        "image_id",
        "raw_bytes",
        "used_bytes",
        "stored_bytes",
        "frame_bytes",
        "sector_bytes",
        "min_target_bytes",
    ] {
        assert!(!info[name].is_null(), "{name}");
    }
    assert_eq!(info["raw_bytes"], bytes);
    assert_eq!(info["frame_bytes"], MIB);
    assert_eq!(info["min_target_bytes"], 52 * MIB + 33 * 512);
    let root = &info["partitions"][1];
    for name in ["number", "fs", "label", "uuid", "bytes", "used_bytes", "os"] {
        assert!(root.get(name).is_some(), "{name}");
    }
    assert_eq!(
        (root["number"].as_u64(), root["fs"].as_str()),
        (Some(2), Some("ext4"))
    );
    let uuid = tool(
        "blkid",
        &[
            "-p",
            "-s",
            "UUID",
            "-o",
            "value",
            "-O",
            &(4 * MIB).to_string(),
            &disk,
        ],
        "",
    );
    assert_eq!(root["uuid"].as_str(), Some(uuid.trim()));
}

#[test]
fn an_mbr_disk_keeps_the_tables_between_its_logical_partitions() {
    let bench = Bench::new();
    let bytes = 100 * MIB;
    // A primary from 1 to 3 MiB, an extended from 8 to 80, in it 12 to 60 and 62 to 64.
    let script = "label: dos\nstart=2048,size=4096,type=83,bootable\nstart=16384,size=147456,type=5\n\
                  start=24576,size=98304,type=83\nstart=126976,size=4096,type=83\n";
    let (disk, mut kept) = bench.disk(bytes, 12 * MIB, |disk| {
        _ = tool("sfdisk", &["--quiet", disk], script);
    });
    let raw = fs::read(&disk).unwrap();
    let out = bench.path("a.img.zst");
    image(&["create", &disk, &out]);
    // Free are only: between the primary and the extended one, behind it, and blocks of the ext4.
    kept.extend([
        0..3 * MIB,
        8 * MIB..12 * MIB,
        60 * MIB..80 * MIB,
        bytes - MIB..bytes,
    ]);
    assert_only(&kept, &raw, &bench.unpacked(&out));
    let info = json(&image(&["info", &out, "--json"]));
    let numbers: Vec<u64> = info["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 5, 6]);
}

#[test]
fn a_dirty_file_system_is_refused_unless_every_byte_is_asked_for() {
    let bench = Bench::new();
    let bytes = 80 * MIB;
    let (disk, _) = bench.disk(bytes, 4 * MIB, |disk| {
        _ = tool("sgdisk", &["--clear", "--new=1:8192:+48M", disk], "");
    });
    // The flag of a journal that was not replayed.
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&disk)
        .unwrap();
    let mut flag = [0];
    file.read_exact_at(&mut flag, 4 * MIB + 1024 + 0x60)
        .unwrap();
    file.write_all_at(&[flag[0] | 4], 4 * MIB + 1024 + 0x60)
        .unwrap();
    let out = bench.path("a.img.zst");
    let refused = netflash().args(["create", &disk, &out]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    for word in [
        "partition 1 (ext4): its journal",
        "mount and unmount it once",
        "--whole=1",
    ] {
        assert!(said(&refused).contains(word), "{}", said(&refused));
    }
    assert!(!Path::new(&out).exists());
    let absent = netflash()
        .args(["create", "--whole=7", &disk, &out])
        .output()
        .unwrap();
    assert!(
        said(&absent).contains("no partition 7; the source has 1"),
        "{}",
        said(&absent)
    );
    let made = netflash()
        .args(["create", "--whole=1", &disk, &out])
        .output()
        .unwrap();
    assert!(
        said(&made).contains("partition 1 (ext4) is kept whole as asked, though its journal"),
        "{}",
        said(&made)
    );
    let raw = fs::read(&disk).unwrap();
    assert_only(
        &[0..52 * MIB, bytes - MIB..bytes],
        &raw,
        &bench.unpacked(&out),
    );
}

#[test]
fn standard_input_and_qcow2_are_sources_too() {
    let bench = Bench::new();
    let raw = [noise(8, 2 << 20), vec![0; 3 << 20], noise(9, 512 * 77)].concat();
    let (disk, qcow2) = (bench.file("disk", &raw), bench.path("disk.qcow2"));
    let (of_input, of_qcow2) = (bench.path("input.img.zst"), bench.path("qcow2.img.zst"));
    let mut child = netflash()
        .args(["create", "-", &of_input])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&raw).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(bench.unpacked(&of_input) == raw);
    tool("qemu-img", &["convert", "-O", "qcow2", &disk, &qcow2], "");
    image(&["create", &qcow2, &of_qcow2]);
    assert!(bench.unpacked(&of_qcow2) == raw);
    let difference = json(&image(&["diff", &of_input, &of_qcow2, "--json"]));
    assert_eq!(
        (
            difference["changed_frames"].as_u64(),
            difference["same_frames"].as_u64()
        ),
        (Some(0), Some(6))
    );
}

#[test]
fn damage_is_named_by_its_place() {
    let bench = Bench::new();
    let disk = bench.file("disk", &noise(3, 4 << 20));
    let out = bench.path("a.img.zst");
    image(&["create", &disk, &out]);
    let file = fs::File::options().write(true).open(&out).unwrap();
    file.write_all_at(b"wrong", 2_500_000).unwrap();
    let words = refused(&["verify", &out], 1);
    assert!(
        words.contains("frame 2 at byte 2") && words.contains("1 of 4 frames"),
        "{words}"
    );
    let words = refused(&["extract", &out, &bench.path("copy")], 1);
    assert!(words.contains("frame 2"), "{words}");
    assert!(
        !Path::new(&bench.path("copy")).exists(),
        "half a disk was left"
    );
    file.set_len(3_000_000).unwrap();
    let words = refused(&["info", &out], 1);
    assert!(words.contains("cut off"), "{words}");
}

#[test]
fn what_is_wrong_ends_with_its_exit_code() {
    let bench = Bench::new();
    let gz = bench.file("disk.raw", b"\x1f\x8b\x08 not a disk");
    let empty = bench.file("empty", b"");
    let out = bench.path("a.img.zst");
    assert!(refused(&["create", &gz, &out], 1).contains("gzip"));
    assert!(refused(&["create", &empty, &out], 1).contains("is empty"));
    assert!(refused(&["create", "/nowhere", &out], 1).contains("/nowhere"));
    assert!(refused(&["info", &empty], 1).contains("no netflash image"));
    refused(&["create", &gz], 2);
    refused(&["create", &gz, &out, "--level", "99"], 2);
    let disk = bench.file("disk", b"something");
    image(&["create", &disk, &out]);
    assert!(refused(&["create", &disk, &out], 1).contains("exists"));
    assert!(refused(&["extract", &out, &disk], 1).contains("--yes"));
}

/// Starts `image create` from a pipe and feeds it some megabytes.
fn half_fed(out: &str) -> Child {
    let mut child = netflash()
        .args(["create", "-", out])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&noise(1, 8 << 20))
        .unwrap();
    child
}

#[test]
fn an_interrupted_program_leaves_nothing_behind() {
    let bench = Bench::new();
    let mut child = half_fed(&bench.path("a.img.zst"));
    let pid = child.id().to_string();
    tool("kill", &["-INT", &pid], "");
    let started = Instant::now();
    // The flag is looked at between reads: what feeds it must go on until it hangs up.
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < ENDING, "it does not end");
        let _ = child.stdin.as_mut().unwrap().write_all(&[0; 1 << 16]);
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(bench.directory.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_program_leaves_no_image_under_its_name() {
    let bench = Bench::new();
    let out = bench.path("a.img.zst");
    let mut child = half_fed(&out);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!Path::new(&out).exists());
    let raw = noise(5, 1 << 20);
    image(&["create", &bench.file("disk", &raw), &out]);
    assert!(bench.unpacked(&out) == raw);
}

#[test]
fn a_real_debian_comes_back_as_it_was() {
    let bench = Bench::new();
    let guest = from_environment("NETFLASH_GUEST");
    let guest = guest.to_str().unwrap();
    let (all, used) = (bench.path("all.img.zst"), bench.path("used.img.zst"));
    image(&["create", guest, &all, "--used-only=off"]);
    let raw = bench.path("raw");
    tool("zstd", &["-t", "-q", &all], "");
    tool("zstd", &["-d", "-q", "--sparse", &all, "-o", &raw], "");
    tool("cmp", &[guest, &raw], "");
    fs::remove_file(&raw).unwrap();
    let made = json(&image(&["create", guest, &used, "--json"]));
    assert_eq!(
        made["notes"].as_array().map(Vec::len),
        Some(0),
        "{}",
        made["notes"]
    );
    assert!(made["used_bytes"].as_u64() < made["raw_bytes"].as_u64());
    assert_eq!(
        (&made["boot"]["bios"], &made["boot"]["uefi"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    let root = made["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["fs"] == "ext4")
        .unwrap()
        .clone();
    // The free blocks are counted by the file system itself.
    let (start, bytes) = (
        root["start_bytes"].as_u64().unwrap(),
        root["bytes"].as_u64().unwrap(),
    );
    let partition = bench.path("partition");
    let content = fs::File::open(guest).unwrap();
    let mut part = vec![0; bytes as usize];
    content.read_exact_at(&mut part, start).unwrap();
    fs::write(&partition, &part).unwrap();
    let used_blocks = used_of_dumpe2fs(&partition, bytes);
    // The partition need not end with a whole block.
    let kept = used_blocks.len() as u64 * 4096 + bytes % 4096;
    assert_eq!(root["used_bytes"].as_u64(), Some(kept));
    assert_eq!(
        json(&image(&["verify", &used, "--json"]))["ok"],
        Value::Bool(true)
    );
}

/// Borders that no frame knows of; `cmp` could say the same of these bytes.
#[test]
fn single_partitions_are_compared_and_nothing_beside_them() {
    const PLACES: [u64; 2] = [2056 * 512, 26_008 * 512];
    let bench = Bench::new();
    let mut raw = noise(8, 24 << 20);
    raw[..MIB as usize].fill(0);
    raw[23 << 20..].fill(0);
    let disk = bench.file("disk.raw", &raw);
    let partitions = [
        "-a",
        "1",
        "-n",
        "1:2056:26000",
        "-n",
        "2:26008:40008",
        &disk,
    ];
    tool("sgdisk", &partitions, "");
    let sealed = bench.path("a.img.zst");
    image(&["create", &disk, &sealed, "--used-only=off"]);
    let differs = |scope: [&str; 2]| {
        let mut command = std::process::Command::new(from_environment("NETFLASH_BIN"));
        let ended = command.args(["verify", &disk, &sealed]).args(scope);
        ended.output().unwrap().status.code() == Some(1)
    };
    let scopes = [
        ["--only", "1"],
        ["--only", "2"],
        ["--keep", "1"],
        ["--keep", "2"],
    ];
    assert_eq!(scopes.map(differs), [false; 4]);
    let file = fs::File::options().write(true).open(&disk).unwrap();
    // The first byte of partition 1, the one before partition 2, and that partition's first.
    for (at, found) in [
        (PLACES[0], [true, false, false, true]),
        (PLACES[1] - 1, [false, false, true, true]),
        (PLACES[1], [false, true, true, false]),
    ] {
        file.write_all_at(&[!raw[at as usize]], at).unwrap();
        assert_eq!(scopes.map(differs), found, "byte {at}");
        file.write_all_at(&raw[at as usize..][..1], at).unwrap();
    }
    assert_eq!(scopes.map(differs), [false; 4]);
}
