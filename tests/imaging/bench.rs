//! What the tests of images share: the program, other people's tools, and disks made by them.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn from_environment(name: &str) -> PathBuf {
    std::env::var_os(name)
        .unwrap_or_else(|| panic!("{name} is not set: run ./scripts/test"))
        .into()
}

pub(super) fn netflash() -> Command {
    let mut command = Command::new(from_environment("NETFLASH_BIN"));
    command
        .arg("image")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs `netflash image` and gives what it prints; it must succeed.
pub(super) fn image(arguments: &[&str]) -> String {
    let output = netflash().args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `netflash image`, which must end with `code`, and gives what it says.
pub(super) fn refused(arguments: &[&str], code: i32) -> String {
    let output = netflash().args(arguments).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {}",
        said(&output)
    );
    said(&output)
}

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Runs a tool that `scripts/setup` installs.
pub(super) fn tool(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; run ./scripts/setup"));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        said(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A directory for one test.
pub(super) struct Bench {
    pub(super) directory: TempDir,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench {
            directory: TempDir::new().unwrap(),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub(super) fn file(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// A partitioned disk of noise with an ext4 at `start`; gives the byte ranges that ext4 uses.
    pub(super) fn disk(
        &self,
        bytes: u64,
        start: u64,
        partition: impl Fn(&str),
    ) -> (String, Vec<Range<u64>>) {
        let disk = self.file("disk.raw", &noise(4, bytes as usize));
        // A table in noise; where the tools expect an empty disk, there is one.
        fs::File::options()
            .write(true)
            .open(&disk)
            .unwrap()
            .write_all_at(&vec![0; MIB as usize], 0)
            .unwrap();
        fs::File::options()
            .write(true)
            .open(&disk)
            .unwrap()
            .write_all_at(&vec![0; MIB as usize], bytes - MIB)
            .unwrap();
        partition(&disk);
        let files = self.path("files");
        fs::create_dir_all(&files).unwrap();
        for index in 0..30usize {
            fs::write(
                format!("{files}/{index}"),
                noise(index as u64, 50_000 * index + 77),
            )
            .unwrap();
        }
        let ext = self.file("ext", &noise(6, 48 << 20));
        tool(
            "mke2fs",
            &[
                "-q",
                "-F",
                "-t",
                "ext4",
                "-b",
                "4096",
                "-E",
                "nodiscard",
                "-d",
                &files,
                &ext,
            ],
            "",
        );
        let content = fs::read(&ext).unwrap();
        fs::File::options()
            .write(true)
            .open(&disk)
            .unwrap()
            .write_all_at(&content, start)
            .unwrap();
        let used = used_of_dumpe2fs(&ext, content.len() as u64);
        (
            disk,
            used.into_iter()
                .map(|range| range.start + start..range.end + start)
                .collect(),
        )
    }

    /// What `zstd` makes of an image; it must find no fault with it.
    pub(super) fn unpacked(&self, image: &str) -> Vec<u8> {
        tool("zstd", &["-t", "-q", image], "");
        let raw = self.path("unpacked");
        tool("zstd", &["-d", "-q", "-f", image, "-o", &raw], "");
        fs::read(raw).unwrap()
    }
}

/// The blocks `dumpe2fs` does not list as free.
pub(super) fn used_of_dumpe2fs(path: &str, bytes: u64) -> Vec<Range<u64>> {
    const BLOCK: u64 = 4096;
    let dump = tool("dumpe2fs", &[path], "");
    let mut free = HashSet::new();
    for list in dump
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "))
    {
        for range in list.split(", ").filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            free.extend(first.parse::<u64>().unwrap()..=last.parse().unwrap());
        }
    }
    assert!(!free.is_empty());
    let used = (0..bytes / BLOCK).filter(|block| !free.contains(block));
    used.map(|block| block * BLOCK..(block + 1) * BLOCK)
        .collect()
}

/// Bytes that do not compress, the same for the same seed.
pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8))
        .flat_map(|_| word())
        .take(bytes)
        .collect()
}

pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Everything `zstd` gives back is as on the disk where `kept` says so, and zero elsewhere.
pub(super) fn assert_only(kept: &[Range<u64>], raw: &[u8], unpacked: &[u8]) {
    let mut expected = vec![0; raw.len()];
    for range in kept {
        let range = range.start as usize..range.end as usize;
        expected[range.clone()].copy_from_slice(&raw[range]);
    }
    let differing = expected.iter().zip(unpacked).position(|(a, b)| a != b);
    assert_eq!(
        (differing, unpacked.len()),
        (None, raw.len()),
        "first differing byte, length"
    );
}
