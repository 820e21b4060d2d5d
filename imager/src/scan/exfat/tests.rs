//! Volumes made by `mkfs.exfat` and counted by `dump.exfat`; filled ones are in the system tests.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::scan::volume::prove;
use crate::testing::{MIB, Memory, blank, tool};

fn made(directory: &TempDir, bytes: u64, options: &[&str]) -> String {
    let path = blank(directory, "exfat", bytes);
    tool(
        "mkfs.exfat",
        &[&["-L", "Prüfung"], options, &[&path]].concat(),
        "",
    );
    path
}

fn told(raw: &[u8]) -> Result<Vec<Range<u64>>, String> {
    let free = prove(free, &Memory(raw)).map(|proof| proof.free);
    free.map_err(|obstacle| match obstacle {
        Obstacle::Unknown(reason) => reason,
        Obstacle::Unsafe { found, remedy } => format!("unsafe: {found}; {remedy}"),
        Obstacle::Read(error) => panic!("{error}"),
    })
}

#[test]
fn as_many_clusters_are_free_as_dump_exfat_counts() {
    for (bytes, options) in [
        (16 * MIB, &["-c", "512"][..]),
        (64 * MIB, &[]),
        (300 * MIB, &["-c", "32K"]),
        (400 * MIB, &["-c", "4M"]),
    ] {
        let directory = TempDir::new().unwrap();
        let path = made(&directory, bytes, options);
        let raw = std::fs::read(&path).unwrap();
        let ranges = told(&raw).unwrap_or_else(|reason| panic!("{options:?}: {reason}"));
        let said = tool("dump.exfat", &[&path], "");
        let count = |name: &str| -> u64 {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{said}"))
                .trim()
                .parse()
                .unwrap()
        };
        // Within the clusters, which begin at a place that the boot sector names.
        let heap = u64::from(Fields(&raw).u32(88)) * 512;
        let heap_end = heap + count("Total Clusters:") * count("Cluster size:");
        let sum: u64 = ranges
            .iter()
            .map(|range| {
                range
                    .end
                    .min(heap_end)
                    .saturating_sub(range.start.max(heap))
            })
            .sum();
        assert_eq!(
            sum / count("Cluster size:"),
            count("Free Clusters:"),
            "{options:?}"
        );
        let label = free(&Memory(&raw)).unwrap().label;
        assert_eq!(label.as_deref(), Some("Prüfung"));
    }
}

#[test]
fn what_contradicts_itself_is_not_believed() {
    let directory = TempDir::new().unwrap();
    let raw = std::fs::read(made(&directory, 64 * MIB, &[])).unwrap();
    let fields = Fields(&raw);
    let table = fields.u32(80) as usize * 512;
    let heap = fields.u32(88) as usize * 512;
    let root = heap + (fields.u32(96) as usize - 2) * 4096;
    assert!(told(&raw).is_ok());
    let refused = |words: &str, change: &dyn Fn(&mut [u8])| {
        let mut raw = raw.clone();
        change(&mut raw);
        // The sum is that of a program which wrote such a volume on purpose.
        let sum = (0..11 * 512usize)
            .filter(|at| !NOT_SUMMED.contains(at))
            .fold(0u32, |sum, at| {
                sum.rotate_right(1).wrapping_add(raw[at].into())
            });
        for at in (11 * 512..12 * 512).step_by(4) {
            raw[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        let reason = told(&raw).expect_err(words);
        assert!(reason.contains(words), "{words}: {reason}");
    };
    refused("unsafe: it is mounted", &|raw| raw[106] |= 2);
    refused("TexFAT", &|raw| raw[106] |= 1);
    refused("TexFAT", &|raw| raw[110] = 2);
    refused("boot sector", &|raw| raw[105] = 2);
    refused("boot sector", &|raw| raw[79] = 1);
    refused("boot sector", &|raw| raw[108] = 13);
    refused("boot sector", &|raw| raw[109] = 17);
    refused("boot sector", &|raw| raw[95] = 1);
    refused("boot sector", &|raw| raw[96] = 0);
    // The first entries of the root directory: label, bitmap, table of upper case.
    assert_eq!(
        [raw[root], raw[root + 32], raw[root + 64]],
        [0x83, 0x81, 0x82]
    );
    refused("root directory is damaged", &|raw| raw[root + 32] = 0x01);
    refused("root directory is damaged", &|raw| raw[root + 64] = 0x81);
    refused("root directory is damaged", &|raw| raw[root] = 0);
    refused("wrong size", &|raw| raw[root + 32 + 24] ^= 1);
    refused("too short", &|raw| raw[root + 64 + 26] = 1);
    refused("leads nowhere", &|raw| {
        raw[table + 4 * 2..table + 4 * 3].fill(0)
    });
    refused("too long", &|raw| {
        raw[table + 4 * 2..table + 4 * 3].copy_from_slice(&[9, 0, 0, 0])
    });
    refused("too large", &|raw| {
        // The root directory continues with itself.
        let own = fields.u32(96);
        let at = table + own as usize * 4;
        raw[at..at + 4].copy_from_slice(&own.to_le_bytes());
    });
    refused("calls its own tables free", &|raw| raw[heap] = 0xfe);
    let mut sum = raw.clone();
    sum[11 * 512 + 8] ^= 1;
    assert!(told(&sum).unwrap_err().contains("checksum"));
}

/// A volume that counts how often it is read.
struct Counted<'a> {
    raw: Memory<'a>,
    reads: AtomicU64,
}

impl ReadAt for Counted<'_> {
    fn raw_bytes(&self) -> u64 {
        self.raw.raw_bytes()
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.raw.read_exact_at(offset, buffer)
    }
}

/// Found by the fuzzer: such a chain was followed for a million clusters, whatever the volume had.
#[test]
fn a_chain_that_goes_round_in_circles_ends_with_the_clusters_of_the_volume() {
    let directory = TempDir::new().unwrap();
    let mut raw = std::fs::read(made(&directory, 8 * MIB, &["-c", "4K"])).unwrap();
    let (table, own, clusters) = {
        let fields = Fields(&raw);
        (
            fields.u32(80) as usize * 512,
            fields.u32(96),
            fields.u32(92),
        )
    };
    let at = table + own as usize * 4;
    raw[at..at + 4].copy_from_slice(&own.to_le_bytes());
    let counted = Counted {
        raw: Memory(&raw),
        reads: AtomicU64::new(0),
    };
    assert!(free(&counted).is_err());
    let reads = counted.reads.into_inner();
    assert!((1..2 * u64::from(clusters)).contains(&reads), "{reads}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_to_metadata_makes_us_panic_or_leave_the_volume(
        flips in prop::collection::vec((0usize..3, 0usize..128, any::<u8>()), 1..12),
        cut in 0usize..20 << 20,
    ) {
        static VOLUME: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let directory = TempDir::new().unwrap();
            std::fs::read(made(&directory, 8 * MIB, &["-c", "512"])).unwrap()
        });
        let mut raw = VOLUME.clone();
        let (table, heap, root) = {
            let fields = Fields(&raw);
            let heap = fields.u32(88) as usize * 512;
            (fields.u32(80) as usize * 512, heap, heap + (fields.u32(96) as usize - 2) * 512)
        };
        for (area, place, value) in flips {
            let at = [64 + place % 50, table + place, root + place][area];
            raw[at] = value;
        }
        // Behind a right checksum, as a hostile volume has one.
        let sum = (0..11 * 512usize)
            .filter(|at| !NOT_SUMMED.contains(at))
            .fold(0u32, |sum, at| sum.rotate_right(1).wrapping_add(raw[at].into()));
        for at in (11 * 512..12 * 512).step_by(4) {
            raw[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        if (heap..raw.len()).contains(&cut) {
            raw.truncate(cut);
        }
        if let Ok(ranges) = told(&raw) {
            prop_assert!(ranges.iter().all(|range| range.end <= raw.len() as u64));
        }
    }
}
