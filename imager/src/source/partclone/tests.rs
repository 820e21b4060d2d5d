//! Files as old and as new partclones write them, which the one of Debian does not.

use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::read_at::ReadAt;
use crate::testing::{noise, tool};

const BLOCK_BYTES: usize = 4096;
const USED: [bool; 11] = [
    true, true, false, true, false, false, true, true, true, false, true,
];

/// Restores `file` into memory.
fn restored(file: &[u8]) -> Result<Vec<u8>, Fault> {
    let directory = TempDir::new().unwrap();
    let stop = AtomicBool::new(false);
    let mut workshop = Workshop {
        scratch: directory.path(),
        disk: None,
        observer: &mut |_| {},
        stop: &stop,
    };
    let spool = workshop.spool()?;
    let progress = Progress {
        read_bytes: &|| 0,
        total_bytes: 0,
    };
    let mut reader = Cursor::new(file);
    let bytes = restore(&mut reader, &spool, 0, 1 << 30, &progress, &mut workshop)?;
    let disk = spool.finish(bytes)?;
    let mut raw = vec![0; bytes as usize];
    disk.read_exact_at(0, &mut raw).unwrap();
    Ok(raw)
}

fn blocks() -> Vec<Vec<u8>> {
    (0..USED.len())
        .map(|index| noise(index as u64 + 1, BLOCK_BYTES))
        .collect()
}

fn expected() -> Vec<u8> {
    let kept = blocks().into_iter().zip(USED);
    kept.flat_map(|(block, used)| if used { block } else { vec![0; BLOCK_BYTES] })
        .collect()
}

/// Format 0001, with `stray` bytes behind each checksum.
fn old(stray: usize) -> Vec<u8> {
    let mut file = vec![0; 36];
    file[..20].copy_from_slice(b"partclone-imageEXTFS");
    file[30..34].copy_from_slice(b"0001");
    let count = USED.len() as u64;
    file.extend((BLOCK_BYTES as u32).to_le_bytes());
    file.extend((count * BLOCK_BYTES as u64).to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(7u64.to_le_bytes());
    file.resize(4160, 0);
    file.extend(USED.map(u8::from));
    file.extend(b"BiTmAgIc");
    let mut crc = u32::MAX;
    for (block, _) in blocks().iter().zip(USED).filter(|(_, used)| *used) {
        // Bit by bit, and the first byte again and again, as format 0001 has it.
        for _ in 0..BLOCK_BYTES {
            crc ^= u32::from(block[0]);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
            }
        }
        file.extend(block);
        file.extend(crc.to_le_bytes());
        file.extend(vec![0; stray]);
    }
    file
}

/// Format 0002 with checksums of `xxhsum`, which is asked for them.
fn current(kind: u16, bytes: u16, algorithm: &str, blocks_per_strip: u32) -> Vec<u8> {
    let mut file = vec![0; 34];
    file[..15].copy_from_slice(MAGIC);
    file[16..22].copy_from_slice(b"0.3.40");
    file[30..].copy_from_slice(b"0002");
    file.extend(0xc0deu16.to_le_bytes());
    file.extend(b"EXTFS\0\0\0\0\0\0\0\0\0\0\0");
    let count = USED.len() as u64;
    for number in [count * BLOCK_BYTES as u64, count, 7, 7] {
        file.extend(number.to_le_bytes());
    }
    file.extend((BLOCK_BYTES as u32).to_le_bytes());
    file.extend(18u32.to_le_bytes());
    for number in [2u16, 64, kind, bytes] {
        file.extend(number.to_le_bytes());
    }
    file.extend(blocks_per_strip.to_le_bytes());
    file.extend([1, 1]);
    file.extend((!crc32fast::hash(&file)).to_le_bytes());
    assert_eq!(file.len(), 110);
    let mut map = [0u8; 2];
    for (index, _) in USED.iter().enumerate().filter(|(_, used)| **used) {
        map[index / 8] |= 1 << (index % 8);
    }
    file.extend(map);
    file.extend((!crc32fast::hash(&map)).to_le_bytes());
    let directory = TempDir::new().unwrap();
    let strip_path = directory.path().join("strip");
    let kept: Vec<Vec<u8>> = blocks()
        .into_iter()
        .zip(USED)
        .filter_map(|(block, used)| used.then_some(block))
        .collect();
    for strip in kept.chunks(blocks_per_strip as usize) {
        let strip = strip.concat();
        std::fs::write(&strip_path, &strip).unwrap();
        let said = tool("xxhsum", &[algorithm, strip_path.to_str().unwrap()], "");
        let hex = said.split_whitespace().next().unwrap();
        let big = u128::from_str_radix(hex, 16).unwrap().to_le_bytes();
        file.extend(strip);
        file.extend(&big[..usize::from(bytes)]);
    }
    file
}

#[test]
fn format_0001_is_restored_also_with_the_stray_bytes_of_64_bits() {
    assert!(restored(&old(0)).unwrap() == expected());
    assert!(restored(&old(4)).unwrap() == expected());
    let mut damaged = old(0);
    let second = 4160 + USED.len() + 8 + BLOCK_BYTES + 4;
    damaged[second] ^= 1;
    let refused = restored(&damaged).unwrap_err().to_string();
    assert!(refused.contains("checksum of its data"), "{refused}");
}

#[test]
fn partclone_restores_our_file_of_format_0001_alike() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("old"), old(0)).unwrap();
    std::fs::write(path("out"), vec![0; expected().len()]).unwrap();
    let (old, out, log) = (path("old"), path("out"), path("log"));
    let arguments = ["-q", "-C", "-L", &log, "-s", &old, "-O", &out];
    tool("partclone.restore", &arguments, "");
    assert!(std::fs::read(Path::new(&out)).unwrap() == expected());
}

#[test]
fn checksums_of_newer_partclones_are_checked() {
    for (kind, bytes, algorithm) in [(0x30, 8, "-H64"), (0x31, 16, "-H128")] {
        for blocks_per_strip in [1, 3, 100] {
            let file = current(kind, bytes, algorithm, blocks_per_strip);
            assert!(restored(&file).unwrap() == expected());
            let mut damaged = file;
            damaged[200] ^= 1;
            assert!(restored(&damaged).is_err());
        }
    }
}

#[test]
fn a_claim_beyond_the_room_is_refused_before_anything_is_written() {
    let mut file = old(0);
    file[48..56].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let refused = restored(&file).unwrap_err().to_string();
    assert!(refused.contains("room"), "{refused}");
    file[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(restored(&file).is_err());
}

proptest! {
    #[test]
    fn any_change_gives_a_disk_or_an_error(
        at in 0usize..5000,
        value in any::<u8>(),
        left in 0usize..40_000,
    ) {
        let mut file = old(0);
        file[at] = value;
        file.truncate(left.max(1));
        let _ = restored(&file);
    }
}
