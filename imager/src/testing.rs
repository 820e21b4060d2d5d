//! What the tests of this room share: the tools everybody uses, and disks made by them.

use std::io::{self, Write};
use std::ops::Range;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::read_at::ReadAt;

pub(crate) const MIB: u64 = 1 << 20;

/// Runs a tool, which `scripts/setup` installs, and gives what it prints.
pub(crate) fn tool(program: &str, arguments: &[&str], input: &str) -> String {
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
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn blank(directory: &TempDir, name: &str, bytes: u64) -> String {
    let path = directory.path().join(name);
    std::fs::File::create(&path)
        .unwrap()
        .set_len(bytes)
        .unwrap();
    path.to_str().unwrap().to_owned()
}

/// An ext file system made by `mke2fs`, with a few thousand blocks of files in it.
pub(crate) fn ext(directory: &TempDir, bytes: u64, options: &[&str]) -> (String, Vec<u8>) {
    let path = blank(directory, "ext", bytes);
    let files = directory.path().join("files");
    std::fs::create_dir_all(&files).unwrap();
    for index in 0..20u8 {
        std::fs::write(
            files.join(format!("file{index}")),
            vec![index + 1; 70_000 + usize::from(index) * 9_999],
        )
        .unwrap();
    }
    let arguments = [
        &["-q", "-F", "-d", files.to_str().unwrap()],
        options,
        &[&path],
    ]
    .concat();
    tool("mke2fs", &arguments, "");
    let raw = std::fs::read(&path).unwrap();
    (path, raw)
}

/// The free blocks, as `dumpe2fs` lists them: one list of ranges for each group.
pub(crate) fn free_of_dumpe2fs(path: &str) -> Vec<Range<u64>> {
    let dump = tool("dumpe2fs", &[path], "");
    let block_bytes: u64 = dump
        .lines()
        .find_map(|line| line.strip_prefix("Block size:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mut free: Vec<Range<u64>> = Vec::new();
    for list in dump
        .lines()
        .filter_map(|line| line.strip_prefix("  Free blocks: "))
    {
        for range in list.split(", ").filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            match free.last_mut() {
                Some(before) if before.end == first * block_bytes => {
                    before.end = (last + 1) * block_bytes
                }
                _ => free.push(first * block_bytes..(last + 1) * block_bytes),
            }
        }
    }
    free
}

/// Bytes in memory as a disk.
pub(crate) struct Memory<'a>(pub(crate) &'a [u8]);

impl ReadAt for Memory<'_> {
    fn raw_bytes(&self) -> u64 {
        self.0.raw_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, buffer)
    }
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
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

/// A file as a disk.
pub(crate) struct FileDisk(pub(crate) std::fs::File);

impl ReadAt for FileDisk {
    fn raw_bytes(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, buffer, offset)
    }
}
