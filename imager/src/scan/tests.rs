//! Disks made by the tools everybody uses, and the opinions of other readers about them.

use std::io::Cursor;
use std::path::Path;

use ::gpt::disk::LogicalBlockSize;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::testing::{MIB, Memory, blank, ext, free_of_dumpe2fs, tool};

/// What is free on an ext file system, or the reason why that is not told.
fn free_of_ours(raw: &[u8]) -> Result<Vec<Range<u64>>, String> {
    let told = prove(ext::free, &Memory(raw)).map(|proof| proof.free);
    told.map_err(|obstacle| match obstacle {
        Obstacle::Unknown(reason) => reason,
        Obstacle::Unsafe { found, .. } => found,
        Obstacle::Read(error) => panic!("{error}"),
    })
}

fn facts_of(raw: &[u8]) -> (&'static str, String, String) {
    let facts = fs::identify(&Memory(raw)).unwrap().facts;
    (facts.fs, facts.label, facts.uuid)
}

#[test]
fn the_free_blocks_are_those_of_dumpe2fs() {
    let kinds: [(&str, u64, &[&str]); 13] = [
        ("ext4", 300 * MIB, &["-t", "ext4"]),
        ("ext4", 100 * MIB, &["-t", "ext4", "-b", "1024"]),
        (
            "ext4",
            100 * MIB,
            &["-t", "ext4", "-b", "2048", "-O", "^64bit"],
        ),
        (
            "ext4",
            300 * MIB,
            &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"],
        ),
        (
            "ext4",
            300 * MIB,
            &[
                "-t",
                "ext4",
                "-O",
                "^metadata_csum,uninit_bg,^64bit,^flex_bg",
            ],
        ),
        (
            "ext4",
            300 * MIB,
            &["-t", "ext4", "-O", "^resize_inode,meta_bg"],
        ),
        (
            "ext4",
            100 * MIB,
            &[
                "-t",
                "ext4",
                "-b",
                "1024",
                "-O",
                "^resize_inode,meta_bg,^flex_bg",
            ],
        ),
        (
            "ext4",
            300 * MIB,
            &["-t", "ext4", "-O", "sparse_super2,^resize_inode"],
        ),
        (
            "ext4",
            300 * MIB,
            &[
                "-t",
                "ext4",
                "-O",
                "^sparse_super,^resize_inode,^flex_bg",
                "-b",
                "1024",
            ],
        ),
        (
            "ext4",
            300 * MIB,
            &[
                "-t",
                "ext4",
                "-O",
                "metadata_csum_seed,mmp,quota,casefold,orphan_file",
            ],
        ),
        ("ext3", 100 * MIB, &["-t", "ext3"]),
        ("ext2", 100 * MIB, &["-t", "ext2", "-b", "1024"]),
        ("ext2", 100 * MIB, &["-t", "ext2", "-g", "8192", "-r", "0"]),
    ];
    for (name, bytes, options) in kinds {
        let directory = TempDir::new().unwrap();
        let (path, raw) = ext(&directory, bytes, options);
        assert_eq!(facts_of(&raw).0, name, "{options:?}");
        let free = free_of_ours(&raw).unwrap_or_else(|reason| panic!("{options:?}: {reason}"));
        assert_eq!(free, free_of_dumpe2fs(&path), "{options:?}");
    }
}

#[test]
fn what_is_not_proved_free_is_kept() {
    let directory = TempDir::new().unwrap();
    let (_, clean) = ext(
        &directory,
        64 * MIB,
        &["-t", "ext4", "-O", "^metadata_csum"],
    );
    assert!(free_of_ours(&clean).is_ok());
    let refused = |place: usize, change: fn(u8) -> u8, word: &str| {
        let mut raw = clean.clone();
        raw[1024 + place] = change(raw[1024 + place]);
        let reason = free_of_ours(&raw).expect_err(word);
        assert!(reason.contains(word), "{reason}");
    };
    refused(0x60, |byte| byte | 0x04, "journal");
    refused(0x3a, |byte| byte & !1, "unmounted");
    refused(0x3a, |byte| byte | 2, "errors");
    refused(0x62, |byte| byte | 0x80, "unknown features");
    refused(0x65, |byte| byte | 0x02, "unknown features");
    refused(0x0c, |byte| byte ^ 1, "its superblock says");
    refused(0x20, |byte| byte ^ 1, "contradicts");
    // The bitmap of group 0 frees a block that is in use.
    let mut raw = clean.clone();
    let descriptors = u32::from_le_bytes(raw[4096..4100].try_into().unwrap_or_default()) as usize;
    let bitmap = descriptors * if raw[1024 + 0x18] == 2 { 4096 } else { 1024 };
    if raw[1024 + 0x18] == 2 {
        raw[bitmap] &= !1;
        assert!(free_of_ours(&raw).unwrap_err().contains("group 0"));
    }
}

#[test]
fn a_wrong_checksum_is_distrusted() {
    let directory = TempDir::new().unwrap();
    let (_, clean) = ext(&directory, 64 * MIB, &["-t", "ext4", "-b", "4096"]);
    assert!(free_of_ours(&clean).is_ok());
    let mut superblock = clean.clone();
    superblock[1024 + 0x78] ^= 1;
    assert!(
        free_of_ours(&superblock)
            .unwrap_err()
            .contains("superblock")
    );
    let mut descriptor = clean.clone();
    descriptor[4096 + 0x10] ^= 1;
    assert!(
        free_of_ours(&descriptor)
            .unwrap_err()
            .contains("descriptor")
    );
    let mut bitmap = clean.clone();
    let place = u32::from_le_bytes(clean[4096..4100].try_into().unwrap()) as usize * 4096;
    bitmap[place + 1000] ^= 1;
    assert!(free_of_ours(&bitmap).unwrap_err().contains("bitmap"));
}

#[test]
fn clusters_are_no_blocks() {
    let directory = TempDir::new().unwrap();
    let (_, raw) = ext(&directory, 64 * MIB, &["-t", "ext4", "-O", "bigalloc"]);
    assert!(free_of_ours(&raw).unwrap_err().contains("unknown features"));
}

fn gpt_disk(directory: &TempDir) -> Vec<u8> {
    let path = blank(directory, "gpt", 64 * MIB);
    let arguments = [
        "--clear",
        "--new=1:2048:+1M",
        "--typecode=1:ef02",
        "--new=2:0:+8M",
        "--typecode=2:ef00",
        "--change-name=2:Bóot",
        "--new=7:40960:+20M",
        &path,
    ];
    tool("sgdisk", &arguments, "");
    std::fs::read(&path).unwrap()
}

#[test]
fn a_gpt_reads_as_the_gpt_crate_reads_it() {
    let directory = TempDir::new().unwrap();
    let raw = gpt_disk(&directory);
    let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
    let theirs = ::gpt::GptConfig::new()
        .logical_block_size(LogicalBlockSize::Lb512)
        .open_from_device(Cursor::new(raw.clone()))
        .unwrap();
    let expected: Vec<(u32, u64, u64, String)> = theirs
        .partitions()
        .iter()
        .map(|(number, p)| {
            (
                *number,
                p.first_lba * 512,
                (p.last_lba + 1 - p.first_lba) * 512,
                p.name.clone(),
            )
        })
        .collect();
    let ours: Vec<(u32, u64, u64, String)> = found
        .partitions
        .iter()
        .map(|p| (p.number, p.start_bytes, p.bytes, p.label.clone()))
        .collect();
    assert_eq!(ours, expected);
    let gpt = found.tables.gpt.unwrap();
    assert_eq!(gpt.backup_lba, theirs.primary_header().unwrap().backup_lba);
    assert_eq!(gpt.last_usable_lba, theirs.header().last_usable);
    assert_eq!(
        found
            .partitions
            .iter()
            .map(|p| (p.boot.bios, p.boot.uefi))
            .collect::<Vec<_>>(),
        [(true, false), (false, true), (false, false)]
    );
    // Between the second and the third, and behind it, but not the last MiB nor before the first.
    assert_eq!(found.free, [10 * MIB..20 * MIB, 40 * MIB..63 * MIB]);
}

#[test]
fn the_size_of_sectors_follows_from_where_the_gpt_lies() {
    let mut disk = Cursor::new(vec![0; 64 * MIB as usize]);
    ::gpt::mbr::ProtectiveMBR::with_lb_size((64 * MIB / 4096 - 1) as u32)
        .overwrite_lba0(&mut disk)
        .unwrap();
    let mut table = ::gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(LogicalBlockSize::Lb4096)
        .create_from_device(disk, None)
        .unwrap();
    let linux = ::gpt::partition_types::LINUX_FS;
    table
        .add_partition("root", 20 * MIB, linux, 0, None)
        .unwrap();
    let raw = table.write().unwrap().into_inner();
    let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
    assert_eq!(found.tables.sector_bytes, 4096);
    assert_eq!(found.tables.lba0.as_ref().map(Vec::len), Some(4096));
    let gpt = found.tables.gpt.as_ref().unwrap();
    assert_eq!(
        (gpt.backup_lba, gpt.entries_sectors(4096)),
        (64 * MIB / 4096 - 1, 4)
    );
    assert_eq!(
        (found.partitions.len(), found.partitions[0].bytes),
        (1, 20 * MIB)
    );
    // Asked for sectors of 512 bytes, there is no table.
    assert_eq!(
        scan(&Memory(&raw), Some(512), &Whole::default(), None)
            .unwrap()
            .tables
            .gpt,
        None
    );
}

#[test]
fn a_gpt_is_read_from_its_backup_when_the_primary_is_gone() {
    let directory = TempDir::new().unwrap();
    let raw = gpt_disk(&directory);
    let whole = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
    let mut damaged = raw.clone();
    damaged[520] ^= 1;
    assert_eq!(
        scan(&Memory(&damaged), None, &Whole::default(), None)
            .unwrap()
            .tables,
        whole.tables
    );
    // Without a valid backup its sectors are data: nothing there is masked.
    let mut alone = raw.clone();
    let last = alone.len() - 512;
    alone[last] ^= 1;
    let gpt = scan(&Memory(&alone), None, &Whole::default(), None)
        .unwrap()
        .tables
        .gpt
        .unwrap();
    assert_eq!(gpt.backup_lba, 64 * MIB / 512);
    let mut neither = damaged;
    neither[last] ^= 1;
    let found = scan(&Memory(&neither), None, &Whole::default(), None).unwrap();
    assert_eq!(
        (found.tables.gpt, found.free.len(), found.notes.len()),
        (None, 0, 1)
    );
}

#[test]
fn an_mbr_with_logical_partitions_reads_as_mbrman_reads_it() {
    let directory = TempDir::new().unwrap();
    let path = blank(&directory, "mbr", 64 * MIB);
    let script = "label: dos\nstart=2048,size=8192,type=83,bootable\nstart=20480,size=61440,type=5\n\
                  start=22528,size=10240,type=83\nstart=40960,size=8192,type=82\n";
    tool("sfdisk", &["--quiet", &path], script);
    let raw = std::fs::read(&path).unwrap();
    let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
    let theirs = mbrman::MBR::read_from(&mut Cursor::new(&raw[..]), 512).unwrap();
    let expected: Vec<(u32, u64, u64)> = theirs
        .iter()
        .filter(|(_, p)| p.is_used() && !p.is_extended())
        .map(|(number, p)| {
            (
                number as u32,
                u64::from(p.starting_lba) * 512,
                u64::from(p.sectors) * 512,
            )
        })
        .collect();
    let ours: Vec<(u32, u64, u64)> = found
        .partitions
        .iter()
        .map(|p| (p.number, p.start_bytes, p.bytes))
        .collect();
    assert_eq!(ours, expected);
    assert_eq!(ours.iter().map(|p| p.0).collect::<Vec<_>>(), [1, 5, 6]);
    assert!(found.partitions[0].boot.bios);
    // Nothing within the extended partition: its own tables lie between the logical ones.
    assert_eq!(found.free, [5 * MIB..10 * MIB, 40 * MIB..63 * MIB]);
}

#[test]
fn a_chain_of_logical_partitions_that_loops_comes_to_an_end() {
    let mut raw = vec![0u8; 4 << 20];
    let entry = |raw: &mut [u8], at: usize, kind: u8, start: u32, sectors: u32| {
        raw[at + 4] = kind;
        raw[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        raw[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    };
    entry(&mut raw, 446, 5, 64, 8000);
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (place, next) in [(64usize, 100u32), (164, 0)] {
        entry(&mut raw, place * 512 + 446, 0x83, 1, 50);
        entry(&mut raw, place * 512 + 462, 5, next, 60);
        raw[place * 512 + 510..place * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
    }
    let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
    assert_eq!(found.partitions.len(), 2);
}

#[test]
fn a_file_system_without_a_table_is_no_table() {
    let directory = TempDir::new().unwrap();
    let path = blank(&directory, "fat", 40 * MIB);
    tool("mkfs.fat", &["-F", "32", "-n", "STICK", &path], "");
    let raw = std::fs::read(&path).unwrap();
    let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
    assert_eq!((&found.tables.lba0, found.free.len()), (&None, 0));
    assert_eq!(
        (
            found.partitions[0].fs.as_str(),
            found.partitions[0].label.as_str()
        ),
        ("vfat", "STICK")
    );
}

#[test]
fn facts_are_those_of_the_makers() {
    let directory = TempDir::new().unwrap();
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let (_, raw) = ext(
        &directory,
        64 * MIB,
        &["-t", "ext4", "-L", "root", "-U", uuid],
    );
    assert_eq!(facts_of(&raw), ("ext4", "root".into(), uuid.into()));
    let path = blank(&directory, "swap", 8 * MIB);
    tool("mkswap", &["-L", "more", "-U", uuid, &path], "");
    let raw = std::fs::read(Path::new(&path)).unwrap();
    assert_eq!(facts_of(&raw), ("swap", "more".into(), uuid.into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_to_metadata_makes_us_panic(
        flips in prop::collection::vec((0usize..24 << 10, any::<u8>()), 1..30),
        cut in 0usize..10 << 20,
    ) {
        static DISK: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let directory = TempDir::new().unwrap();
            let path = blank(&directory, "disk", 10 * MIB);
            tool("sgdisk", &["--clear", "--new=1:2048:+8M", &path], "");
            let (_, fs) = ext(&TempDir::new().unwrap(), 8 * MIB, &["-t", "ext4", "-b", "1024"]);
            let mut raw = std::fs::read(&path).unwrap();
            raw[MIB as usize..9 * MIB as usize].copy_from_slice(&fs);
            raw
        });
        let mut raw = DISK.clone();
        for (place, value) in flips {
            // Half of them among the tables, half in superblock and descriptors.
            let place = if place < 18 << 10 { place } else { MIB as usize + (place - (18 << 10)) };
            raw[place] = value;
        }
        raw.truncate(raw.len() - cut);
        let found = scan(&Memory(&raw), None, &Whole::default(), None).unwrap();
        prop_assert!(found.free.iter().all(|range| range.start < range.end && range.end <= raw.len() as u64));
        prop_assert!(found.free.windows(2).all(|pair| pair[0].end < pair[1].start));
    }
}
