//! Volumes made by `mkfs.fat`, filled by `mtools`, counted by `fsck.fat`.

use tempfile::TempDir;

use super::*;
use crate::scan::volume::prove;
use crate::testing::{MIB, Memory, blank, noise, tool};

/// A volume with files, of which some were deleted again.
fn made(directory: &TempDir, bytes: u64, options: &[&str]) -> String {
    let path = blank(directory, "fat", bytes);
    tool("mkfs.fat", &[options, &[&path]].concat(), "");
    let file = directory.path().join("content");
    let names: Vec<String> = (1..15).map(|index| format!("::file{index}")).collect();
    for (name, index) in names.iter().zip(1usize..) {
        std::fs::write(&file, noise(index as u64, content_bytes(bytes, index))).unwrap();
        tool("mcopy", &["-i", &path, file.to_str().unwrap(), name], "");
    }
    for name in names.iter().step_by(3) {
        tool("mdel", &["-i", &path, name], "");
    }
    path
}

fn content_bytes(bytes: u64, index: usize) -> usize {
    bytes as usize / 400 * index
}

fn told(raw: &[u8]) -> Result<Vec<Range<u64>>, String> {
    let free = prove(free, &Memory(raw)).map(|proof| proof.free);
    free.map_err(|obstacle| match obstacle {
        Obstacle::Unknown(reason) => reason,
        other => panic!("{other:?}"),
    })
}

/// Free clusters and all clusters, as `fsck.fat` counts them.
fn counted(path: &str) -> (u64, u64) {
    let said = tool("fsck.fat", &["-n", "-v", path], "");
    let counts = said
        .lines()
        .last()
        .and_then(|line| line.rsplit_once(", "))
        .and_then(|(_, counts)| counts.strip_suffix(" clusters")?.split_once('/'))
        .unwrap_or_else(|| panic!("{said}"));
    let (used, all): (u64, u64) = (counts.0.parse().unwrap(), counts.1.parse().unwrap());
    (all - used, all)
}

const KINDS: [(u64, Width, &[&str]); 7] = [
    (2 * MIB, Width::Fat12, &["-F", "12"]),
    (8 * MIB, Width::Fat12, &["-F", "12", "-s", "8", "-f", "1"]),
    (20 * MIB, Width::Fat16, &["-F", "16"]),
    (80 * MIB, Width::Fat16, &["-F", "16", "-S", "4096"]),
    // As an EFI system partition often is: fewer clusters than FAT32 is said to have.
    (40 * MIB, Width::Fat32, &["-F", "32"]),
    (80 * MIB, Width::Fat32, &["-F", "32", "-s", "1"]),
    (300 * MIB, Width::Fat32, &["-F", "32", "-S", "4096"]),
];

#[test]
fn as_many_clusters_are_free_as_fsck_counts_and_no_file_needs_them() {
    for (bytes, width, options) in KINDS {
        let directory = TempDir::new().unwrap();
        let path = made(&directory, bytes, options);
        let mut raw = std::fs::read(&path).unwrap();
        let geometry = Geometry::parse(Fields(&raw[..512]), bytes).unwrap();
        let ranges = told(&raw).unwrap_or_else(|reason| panic!("{options:?}: {reason}"));
        let sum: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        assert_eq!(geometry.width, width, "{options:?}");
        assert_eq!(
            (sum / geometry.cluster_bytes, geometry.clusters),
            counted(&path),
            "{options:?}"
        );
        for range in ranges {
            raw[range.start as usize..range.end as usize].fill(0);
        }
        std::fs::write(&path, &raw).unwrap();
        let out = directory.path().join("out");
        for index in (1..15usize).filter(|index| index % 3 != 1) {
            let name = format!("::file{index}");
            tool(
                "mcopy",
                &["-n", "-o", "-i", &path, &name, out.to_str().unwrap()],
                "",
            );
            let expected = noise(index as u64, content_bytes(bytes, index));
            assert!(
                std::fs::read(&out).unwrap() == expected,
                "{name} {options:?}"
            );
        }
    }
}

#[test]
fn what_contradicts_itself_is_not_believed() {
    for (bytes, width, options) in [KINDS[0], KINDS[2], KINDS[4]] {
        let directory = TempDir::new().unwrap();
        let raw = std::fs::read(made(&directory, bytes, options)).unwrap();
        let geometry = Geometry::parse(Fields(&raw[..512]), bytes).unwrap();
        let (table, second) = (geometry.tables.start as usize, geometry.tables.end as usize);
        let refused = |words: &str, change: &dyn Fn(&mut [u8])| {
            let mut raw = raw.clone();
            change(&mut raw);
            let reason = told(&raw).expect_err(words);
            assert!(reason.contains(words), "{words}: {reason}");
        };
        let both = |raw: &mut [u8], at: usize, value: u8| {
            raw[table + at] = value;
            raw[second + at] = value;
        };
        refused("boot sector", &|raw| raw[11] = 1);
        refused("boot sector", &|raw| raw[13] = 3);
        refused("boot sector", &|raw| raw[16] = 3);
        refused("boot sector", &|raw| raw[14..16].fill(0));
        refused("differ", &|raw| raw[second + 9] ^= 1);
        refused("does not belong", &|raw| both(raw, 0, 0x12));
        let state = if width == Width::Fat32 { 0x41 } else { 0x25 };
        refused("unmounted cleanly", &|raw| raw[state] |= STATE_DIRTY);
        if width != Width::Fat12 {
            let clean = if width == Width::Fat32 { 7 } else { 3 };
            refused("unmounted cleanly", &|raw| both(raw, clean, 0x07));
        }
        // The entry of a cluster in a file, last byte of one of its first: it leads far away.
        let at = match width {
            Width::Fat12 => 3 * 40,
            Width::Fat16 => 2 * 40,
            Width::Fat32 => 4 * 40,
        };
        let far = |raw: &mut [u8]| {
            for start in [table, second] {
                raw[start + at..start + at + 4].copy_from_slice(&[0xee, 0xee, 0xee, 0x0e]);
            }
        };
        match width {
            Width::Fat12 | Width::Fat16 | Width::Fat32 => refused("beyond its end", &far),
        }
        let last = told(&raw).unwrap().last().unwrap().clone();
        let hole = (last.start - geometry.data) / geometry.cluster_bytes + FIRST_CLUSTER + 1;
        let lead = |raw: &mut [u8]| {
            let bytes = match width {
                Width::Fat12 => [hole as u8, (hole >> 8) as u8 & 15, 0, 0],
                _ => (hole as u32).to_le_bytes(),
            };
            let count = if width == Width::Fat32 { 4 } else { 2 };
            for start in [table, second] {
                raw[start + at..start + at + count].copy_from_slice(&bytes[..count]);
            }
        };
        refused("leads into nothing", &lead);
        if width == Width::Fat32 {
            refused("root directory", &|raw| {
                for start in [table, second] {
                    raw[start + 8..start + 12].fill(0);
                }
            });
            refused("boot sector", &|raw| raw[40] |= 0x80);
        }
    }
}

#[test]
fn a_boot_sector_of_anything_is_no_panic() {
    for seed in 0..3000 {
        let mut raw = noise(seed, 4096);
        // Near enough to be looked at.
        raw[11..17].copy_from_slice(&[0, 2, 1, 1, 0, 1 + (seed % 2) as u8]);
        raw[19..21].fill(0);
        raw[22..24].copy_from_slice(&((seed % 5) as u16).to_le_bytes());
        raw[32..36].copy_from_slice(&8u32.to_le_bytes());
        _ = free(&Memory(&raw));
    }
}
