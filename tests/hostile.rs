//! Images made to harm: whatever one says, nothing outside the chosen disk is written, the program comes to an end, and
//! its memory does not follow what is claimed.
//!
//! The disk is a loop device in the middle of a larger file, whose other bytes must stay; memory and processor time are
//! limited by the kernel, which ends whoever wants more. Needs root, for loop devices.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};

#[path = "hostile/craft.rs"]
mod craft;

use craft::{Crafted, CraftedGpt, FRAME, USED, ZERO, bomb, packed, sizes};

/// The disk, and what lies before and behind it in its file.
const DISK: usize = 16 * FRAME;
const GUARD: usize = 2 * FRAME;
const GUARD_BYTE: u8 = 0xa5;
const FORMER_BYTE: u8 = 0x5a;
/// Frames of the honest image, which is smaller than the disk.
const FRAMES: usize = 8;
/// What the program may have of address space, bytes: the memory it promises, and its own code.
const ADDRESS_SPACE: &str = "--as=400000000";
/// Processor time it may take, seconds: an honest image takes less than one.
const PROCESSOR_TIME: &str = "--cpu=30";

/// What must become of an attack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Refused before anything is written.
    Untouched,
    /// Found out while it is written.
    Refused,
    /// Restored as far as it makes sense, or refused.
    Either,
}

/// A disk among bytes that are not its own.
struct Guarded {
    directory: tempfile::TempDir,
    device: String,
}

impl Guarded {
    fn new() -> Result<Guarded> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("surroundings");
        fs::write(&file, vec![GUARD_BYTE; DISK + 2 * GUARD])?;
        let output = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(format!("--offset={GUARD}"))
            .arg(format!("--sizelimit={DISK}"))
            .arg(&file)
            .output()
            .context("starting losetup")?;
        ensure!(
            output.status.success(),
            "needs root for loop devices: sudo ./scripts/test: {}",
            said(&output)
        );
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        Ok(Guarded { directory, device })
    }

    fn reset(&self) -> Result<()> {
        fs::write(&self.device, vec![FORMER_BYTE; DISK]).context("filling the disk")?;
        Ok(())
    }

    /// The disk as it is now; fails when a byte around it is another.
    fn disk(&self) -> Result<Vec<u8>> {
        let synced = Command::new("blockdev")
            .args(["--flushbufs", &self.device])
            .status()?;
        ensure!(synced.success(), "blockdev: {synced}");
        let mut all = fs::read(self.directory.path().join("surroundings"))?;
        let behind = all.split_off(GUARD + DISK);
        let disk = all.split_off(GUARD);
        for (place, guard) in [("before", all), ("behind", behind)] {
            ensure!(
                guard.iter().all(|&byte| byte == GUARD_BYTE),
                "bytes {place} the disk were written"
            );
        }
        Ok(disk)
    }

    /// Brings an image to the disk, within limits.
    fn extract(&self, image: &Path) -> Result<Output> {
        limited(&["extract", text(image)?, &self.device, "--yes"])
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// `netflash image` with these words, within limits; it must come to an end by itself.
fn limited(words: &[&str]) -> Result<Output> {
    let program =
        std::env::var_os("NETFLASH_BIN").context("NETFLASH_BIN is not set: run ./scripts/test")?;
    let output = Command::new("prlimit")
        .args([ADDRESS_SPACE, PROCESSOR_TIME, "--core=0", "--"])
        .arg(program)
        .arg("image")
        .args(words)
        // Each further arena would take 64 MiB of addresses.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null())
        .output()
        .context("starting prlimit (package util-linux)")?;
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "ended with {:?}, signal {:?}: {}",
        output.status.code(),
        output.status.signal(),
        said(&output)
    );
    Ok(output)
}

fn noise() -> Vec<u8> {
    let mut raw = vec![0; FRAMES * FRAME];
    blake3::Hasher::new().finalize_xof().fill(&mut raw);
    raw
}

/// Tries one attack on a fresh disk.
fn attack(guarded: &Guarded, name: &str, end: End, image: &Crafted) -> Result<()> {
    guarded.reset()?;
    let path: PathBuf = guarded.directory.path().join("hostile.img.zst");
    fs::write(&path, image.file())?;
    for reader in ["info", "verify"] {
        limited(&[reader, text(&path)?]).with_context(|| format!("{name}: {reader}"))?;
    }
    let output = guarded.extract(&path).with_context(|| name.to_owned())?;
    let disk = guarded.disk().with_context(|| name.to_owned())?;
    let done = output.status.success();
    println!("{name}: done {done}: {}", said(&output).trim());
    ensure!(end == End::Either || !done, "{name} was restored");
    ensure!(
        end != End::Untouched || disk.iter().all(|&byte| byte == FORMER_BYTE),
        "{name}: the disk was written"
    );
    Ok(())
}

#[test]
fn a_byte_written_beside_the_disk_is_noticed() -> Result<()> {
    let guarded = Guarded::new()?;
    let file = guarded.directory.path().join("surroundings");
    let surroundings = fs::File::options().write(true).open(file)?;
    for at in [GUARD - 1, GUARD + DISK] {
        guarded.disk()?;
        surroundings.write_all_at(&[0], at as u64)?;
        ensure!(guarded.disk().is_err(), "byte {at} was changed unseen");
        surroundings.write_all_at(&[GUARD_BYTE], at as u64)?;
    }
    Ok(())
}

/// A change that makes an honest image a hostile one.
type Change = fn(&mut Crafted);
/// The same of its tables.
type TableChange = fn(&mut CraftedGpt);

#[test]
fn an_honest_image_written_by_hand_is_restored() -> Result<()> {
    let (guarded, raw) = (Guarded::new()?, noise());
    let path = guarded.directory.path().join("honest.img.zst");
    for tables in [None, Some(CraftedGpt::honest((raw.len() / 512) as u64))] {
        let mut image = Crafted::honest(&raw);
        if let Some(gpt) = &tables {
            image.put_tables(gpt, &raw);
        }
        fs::write(&path, image.file())?;
        guarded.reset()?;
        let output = guarded.extract(&path)?;
        ensure!(output.status.success(), "{}", said(&output));
        let disk = guarded.disk()?;
        let edge = if tables.is_some() { 34 * 512 } else { 0 };
        ensure!(disk[edge..raw.len() - edge] == raw[edge..raw.len() - edge]);
    }
    Ok(())
}

#[test]
fn what_a_manifest_may_not_say_is_refused_before_anything_is_written() -> Result<()> {
    let changes: [(&str, Change); 31] = [
        ("frames of 4 KiB", |i| i.frame_bytes = 4096),
        ("frames of 4 GiB", |i| i.frame_bytes = u32::MAX),
        ("sectors of no bytes", |i| i.sector_bytes = 0),
        ("sectors of an odd size", |i| i.sector_bytes = 1024),
        ("a disk of no size", |i| i.raw_bytes = 0),
        ("a disk of 2^64 bytes", |i| i.raw_bytes = u64::MAX),
        ("a disk of 128 TiB in a few bytes", |i| {
            i.raw_bytes = ((1 << 27) - 16) << 20;
            i.extents = vec![(i.raw_bytes / 4096, USED)];
        }),
        ("one frame more than there is", |i| {
            i.raw_bytes += FRAME as u64;
            i.extents[0].0 += 256;
        }),
        ("a disk smaller than its extents", |i| i.raw_bytes -= 4096),
        ("a smallest disk above its size", |i| {
            i.min_target_bytes = u64::MAX;
        }),
        ("a note that goes beyond the end", |i| {
            i.note_bytes = u16::MAX
        }),
        ("2^32 extents", |i| i.extent_count = u32::MAX),
        ("an extent of 2^62 units", |i| {
            i.extents[0].0 = (1 << 62) - 1
        }),
        ("extents that wrap around", |i| {
            let whole = i.extents[0].0;
            i.extents = vec![((1 << 52) - 1, USED), (1, ZERO), (whole, USED)];
            i.extent_count = 3;
        }),
        ("an extent of no units", |i| {
            i.extents.push((0, ZERO));
            i.extent_count = 2;
        }),
        ("an extent of an unknown kind", |i| i.extents[0].1 = 3),
        ("two extents where one is", |i| {
            i.extents = vec![(1, USED), (i.extents[0].0 - 1, USED)];
            i.extent_count = 2;
        }),
        ("a frame stored in no bytes", |i| i.stored[2] = 0),
        ("a frame stored in 4 GiB", |i| i.stored[2] = u32::MAX),
        ("frames that lie beyond the file", |i| i.stored[7] += 1000),
        ("frames of other sizes than the seek table has", |i| {
            i.stored.swap(1, 6);
            i.stored[1] += 1;
            i.stored[6] -= 1;
        }),
        ("too few hashes", |i| _ = i.hashes.pop()),
        ("too many hashes", |i| i.hashes.push([0; 32])),
        ("tables of an unknown kind", |i| i.tables = vec![9]),
        ("tables that are cut short", |i| i.tables = vec![2, 0, 0]),
        ("2^32 partitions", |i| i.partitions = vec![0xff; 4]),
        ("a partition that is cut short", |i| {
            i.partitions = vec![1, 0, 0, 0, 9]
        }),
        ("a partition beyond the disk", |i| {
            i.partitions = vec![1, 0, 0, 0, 1, 0, 0, 0];
            for number in [4096u64, 1 << 60, 0] {
                i.partitions.extend(number.to_le_bytes());
            }
            i.partitions.extend([0; 11]);
        }),
        ("a seek table of 2^32 frames", |i| {
            i.seek_count = Some(u32::MAX)
        }),
        ("a seek table of 2^27 frames", |i| {
            i.seek_count = Some(1 << 27)
        }),
        ("a seek table of no frames", |i| i.seek_count = Some(0)),
    ];
    let (guarded, honest) = (Guarded::new()?, Crafted::honest(&noise()));
    for (name, change) in changes {
        let mut image = honest.clone();
        change(&mut image);
        attack(&guarded, name, End::Untouched, &image)?;
    }
    Ok(())
}

#[test]
fn frames_that_are_not_what_was_said_are_not_written() -> Result<()> {
    let (guarded, raw) = (Guarded::new()?, noise());
    let mebibyte = FRAME as u64;
    let blocks = |bytes: usize| bytes / (128 << 10);
    let frames = [
        (
            "4 GiB in a frame of one",
            bomb(mebibyte, blocks(4 << 30), 7, 20),
        ),
        (
            "4 GiB in a frame that says so",
            bomb(4 << 30, blocks(4 << 30), 7, 20),
        ),
        ("a window of 2 GiB", bomb(mebibyte, blocks(FRAME), 7, 31)),
        (
            "a frame of 2^64 bytes",
            bomb(u64::MAX, blocks(FRAME), 7, 20),
        ),
        ("half a frame", packed(&raw[..FRAME / 2])),
        (
            "two frames in one",
            [packed(&raw[..FRAME / 2]), packed(&raw[..FRAME / 2])].concat(),
        ),
        ("other bytes", packed(&raw[..FRAME])),
        ("no frame at all", vec![0xff; 5000]),
        (
            "a skippable frame",
            [&[0x50, 0x2a, 0x4d, 0x18, 0xf8, 1, 0, 0][..], &[0; 504]].concat(),
        ),
    ];
    for (name, frame) in frames {
        let mut image = Crafted::honest(&raw);
        // More than a frame may be stored in is no image; the bombs are cut to fit.
        let most = frame.len().min(FRAME + (1 << 13));
        image.replace(3, frame[..most].to_vec());
        attack(&guarded, name, End::Refused, &image)?;
        let found = guarded.disk()?;
        let other = found[3 * FRAME..4 * FRAME].iter();
        ensure!(
            other.clone().all(|&byte| byte == FORMER_BYTE),
            "{name}: its place was written"
        );
    }
    Ok(())
}

#[test]
fn what_lies_beyond_the_disk_is_never_written() -> Result<()> {
    let guarded = Guarded::new()?;
    let raw: Vec<u8> = noise().repeat(3);
    let larger = |min_target_bytes: u64| {
        let mut image = Crafted::honest(&raw);
        image.min_target_bytes = min_target_bytes;
        image
    };
    attack(
        &guarded,
        "an image larger than the disk",
        End::Untouched,
        &larger(raw.len() as u64),
    )?;
    attack(
        &guarded,
        "used bytes beyond its smallest disk",
        End::Either,
        &larger(4096),
    )?;
    attack(
        &guarded,
        "a smallest disk of no bytes",
        End::Either,
        &larger(0),
    )?;

    // A million frames that nobody stores: zeros far beyond the end.
    let mut zeros = Crafted::honest(&raw[..FRAME]);
    zeros.frames.extend(vec![vec![0]; 1 << 20]);
    zeros.stored = sizes(&zeros.frames);
    zeros.raw_bytes = ((1 << 20) + 1) * FRAME as u64;
    zeros.extents = vec![(256, USED), (256 << 20, ZERO)];
    zeros.extent_count = 2;
    zeros.min_target_bytes = 1 << 20;
    attack(&guarded, "zeros of a tebibyte", End::Either, &zeros)?;
    Ok(())
}

#[test]
fn tables_that_point_elsewhere_reach_nothing() -> Result<()> {
    let (guarded, raw) = (Guarded::new()?, noise());
    let sectors = (raw.len() / 512) as u64;
    let changes: [(&str, TableChange); 14] = [
        ("entries in the middle", |g| g.entries = 9000),
        ("entries at the end of everything", |g| g.entries = u64::MAX),
        ("entries over the header", |g| g.entries = 0),
        ("a backup in the middle", |g| {
            (g.backup, g.backup_entries) = (9000, 8000)
        }),
        ("a backup at the start", |g| {
            (g.backup, g.backup_entries) = (1, 2)
        }),
        ("a backup in the guard", |g| g.backup += 40_000),
        ("a backup at the end of everything", |g| {
            (g.backup, g.backup_entries) = (u64::MAX, u64::MAX - 32);
        }),
        ("2^32 entries", |g| g.entry_count = u32::MAX),
        ("entries of 2^31 bytes", |g| g.entry_bytes = 1 << 31),
        ("2^32 entries kept", |g| g.kept = u32::MAX),
        ("a mebibyte of entries", |g| {
            (g.entry_count, g.first_usable) = (8192, 2050)
        }),
        ("no usable sector", |g| {
            (g.first_usable, g.last_usable) = (16_000, 34)
        }),
        ("usable sectors beyond the end", |g| g.last_usable = 1 << 50),
        ("a partition beyond the end", |g| g.partition.1 = 1 << 50),
    ];
    for (name, change) in changes {
        let mut gpt = CraftedGpt::honest(sectors);
        change(&mut gpt);
        let mut image = Crafted::honest(&raw);
        image.put_tables(&gpt, &raw);
        for smallest in [raw.len() as u64, 0] {
            image.min_target_bytes = smallest;
            attack(&guarded, name, End::Either, &image)?;
        }
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a plain name")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
