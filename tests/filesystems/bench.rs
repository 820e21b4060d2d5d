//! The way of a file system through an image, for all kinds of it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub(super) const MIB: u64 = 1 << 20;
/// What the target is full of before.
const GARBAGE: u8 = 0xa5;
/// How much larger than the source it is.
const LARGER_BYTES: u64 = 32 * MIB;
/// Where the only partition begins.
const START: u64 = MIB;

/// A directory for one test.
pub(super) struct Bench {
    directory: TempDir,
}

/// What came out of a capture and a restore.
pub(super) struct Journey {
    /// The partition in the words of the manifest.
    pub(super) partition: Value,
    pub(super) notes: Vec<String>,
    /// The bytes of the partition, read back from the larger disk.
    pub(super) restored: String,
}

impl Journey {
    pub(super) fn used_bytes(&self) -> u64 {
        self.partition["used_bytes"].as_u64().unwrap()
    }

    /// Within two per cent of what somebody else would keep, and not below `allocated`.
    pub(super) fn assert_used(&self, what: &str, others: u64, allocated: u64) {
        let used = self.used_bytes();
        eprintln!("measured {what}: used {used}, partclone {others}, allocated {allocated}");
        assert!(used >= allocated, "{what}: {used} of {allocated} allocated");
        assert!(
            used.abs_diff(others) * 50 <= others,
            "{what}: {used}, partclone keeps {others}"
        );
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        assert!(
            nix::unistd::geteuid().is_root(),
            "needs root for loop devices: sudo ./scripts/test"
        );
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

    /// An empty file of `bytes`.
    pub(super) fn blank(&self, name: &str, bytes: u64) -> String {
        File::create(self.path(name))
            .unwrap()
            .set_len(bytes)
            .unwrap();
        self.path(name)
    }

    /// Fills the file system in `volume` by the kernel's own driver.
    pub(super) fn fill(&self, volume: &str, fill: impl Fn(&Path)) {
        let mounted = Mounted::new(volume, &self.path("mounted"), "loop");
        fill(&mounted.0);
    }

    /// Every file in `volume` with the hash of its content.
    pub(super) fn content(&self, volume: &str) -> Vec<(PathBuf, blake3::Hash)> {
        let mounted = Mounted::new(volume, &self.path("mounted"), "loop,ro");
        let mut files = Vec::new();
        let mut directories = vec![mounted.0.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    directories.push(entry.path());
                } else {
                    let hash = blake3::hash(&fs::read(entry.path()).unwrap());
                    files.push((entry.path(), hash));
                }
            }
        }
        files.sort_by(|a, b| a.0.cmp(&b.0));
        files
    }

    /// A GPT disk with `volume` as its only partition.
    pub(super) fn disk(&self, volume: &str) -> String {
        let bytes = fs::metadata(volume).unwrap().len();
        let disk = self.blank("disk.raw", START + bytes + MIB);
        let (start, end) = (START / 512, (START + bytes) / 512 - 1);
        tool(
            "sgdisk",
            &["--clear", &format!("--new=1:{start}:{end}"), &disk],
        );
        copy(volume, 0, &disk, START, bytes);
        disk
    }

    /// Captures a disk with `volume` and restores it onto a larger one full of garbage.
    pub(super) fn journey(&self, volume: &str) -> Journey {
        let bytes = fs::metadata(volume).unwrap().len();
        let disk = self.disk(volume);
        let image = self.path("a.img.zst");
        let made = json(&run(netflash().args(["create", &disk, &image, "--json"])));
        let larger = self.path("larger.raw");
        let file = File::create(&larger).unwrap();
        for place in (0..START + bytes + LARGER_BYTES).step_by(MIB as usize) {
            file.write_all_at(&[GARBAGE; MIB as usize], place).unwrap();
        }
        let looped = Loop::new(&larger);
        run(netflash().args(["extract", &image, &looped.0, "--yes"]));
        drop(looped);
        let restored = self.blank("restored", bytes);
        copy(&larger, START, &restored, 0, bytes);
        fs::remove_file(&larger).unwrap();
        fs::remove_file(&disk).unwrap();
        let notes = made["notes"].as_array().unwrap();
        Journey {
            partition: made["partitions"][0].clone(),
            notes: notes
                .iter()
                .map(|note| note.as_str().unwrap().to_owned())
                .collect(),
            restored,
        }
    }

    /// What `netflash image create` says of a disk with `volume`, which it must refuse.
    pub(super) fn refusal(&self, volume: &str) -> String {
        let disk = self.disk(volume);
        let image = self.path("refused.img.zst");
        let output = netflash().args(["create", &disk, &image]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(!Path::new(&image).exists());
        said(&output)
    }

    /// Bytes of `volume` that partclone says are in use.
    pub(super) fn partclone(&self, kind: &str, volume: &str) -> u64 {
        let (image, log) = (self.path("partclone"), self.path("partclone.log"));
        let program = format!("partclone.{kind}");
        _ = fs::remove_file(&image);
        run(Command::new(&program).args(["-F", "-c", "-s", volume, "-O", &image, "-L", &log]));
        let mut info = Command::new("partclone.info");
        let info = said(&info.args(["-s", &image, "-L", &log]).output().unwrap());
        // "Space in use: 137.3 MB = 33520 Blocks", "Block size: 4096 Byte".
        let number = |label: &str| -> u64 {
            let line = info.lines().find(|line| line.starts_with(label));
            let number = line.expect("a known line").split_whitespace().rev().nth(1);
            number.unwrap().parse().unwrap()
        };
        number("Space in use:") * number("Block size:")
    }
}

/// Files made, most of them deleted, and three that grow in turns.
pub(super) fn fill(directory: &Path) {
    let small = directory.join("small");
    fs::create_dir_all(&small).unwrap();
    for index in 0..900u64 {
        let bytes = [120, 3000, 9000, 40_000, 120_000][index as usize % 5];
        fs::write(small.join(index.to_string()), noise(index, bytes)).unwrap();
    }
    nix::unistd::sync();
    for index in (0..900u64).filter(|index| index * 7919 % 5 < 3) {
        fs::remove_file(small.join(index.to_string())).unwrap();
    }
    let mut growing: Vec<File> = (0..3)
        .map(|index| File::create(directory.join(format!("growing{index}"))).unwrap())
        .collect();
    for round in 0..300u64 {
        for (index, file) in growing.iter_mut().enumerate() {
            file.write_all(&noise(1000 + round * 3 + index as u64, 16 << 10))
                .unwrap();
            if round % 16 == 0 {
                file.sync_data().unwrap();
            }
        }
    }
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut noise = vec![0; bytes];
    hasher.finalize_xof().fill(&mut noise);
    noise
}

/// Copies `bytes` from one file into another, leaving holes for zeros.
pub(super) fn copy(from: &str, from_at: u64, to: &str, to_at: u64, bytes: u64) {
    let source = File::open(from).unwrap();
    let target = File::options().write(true).open(to).unwrap();
    let mut piece = vec![0; MIB as usize];
    for place in (0..bytes).step_by(piece.len()) {
        let length = (bytes - place).min(MIB) as usize;
        source
            .read_exact_at(&mut piece[..length], from_at + place)
            .unwrap();
        if piece[..length].iter().any(|&byte| byte != 0) {
            target
                .write_all_at(&piece[..length], to_at + place)
                .unwrap();
        }
    }
}

fn netflash() -> Command {
    let program = std::env::var_os("NETFLASH_BIN")
        .unwrap_or_else(|| panic!("NETFLASH_BIN is not set: run ./scripts/test"));
    let mut command = Command::new(program);
    command.arg("image");
    command
}

/// Runs a tool that `scripts/setup` installs.
pub(super) fn tool(program: &str, arguments: &[&str]) -> String {
    run(Command::new(program).args(arguments))
}

fn run(command: &mut Command) -> String {
    let output = command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run ./scripts/setup"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A mounted file system, until it goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(volume: &str, place: &str, options: &str) -> Mounted {
        fs::create_dir_all(place).unwrap();
        tool("mount", &["-o", options, volume, place]);
        Mounted(place.into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tool("umount", &[self.0.to_str().unwrap()]);
    }
}

/// A file as a block device, until it goes.
pub(super) struct Loop(String);

impl Loop {
    pub(super) fn new(file: &str) -> Loop {
        Loop(
            tool("losetup", &["--find", "--show", file])
                .trim()
                .to_owned(),
        )
    }
}

impl Loop {
    pub(super) fn device(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tool("losetup", &["--detach", &self.0]);
    }
}
