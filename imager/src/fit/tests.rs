//! Fitted tables, judged by `sgdisk` and by the `gpt` crate.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use gpt::disk::LogicalBlockSize;
use proptest::prelude::*;

use super::{FitError, FittedTables, LastPartition, fit, u64_at};
use crate::tables::{Gpt, Tables};

const MIB: u64 = 1 << 20;

/// A table of partitions given by their first and last sector, of a disk of `sectors`.
fn table(sector_bytes: u32, sectors: u64, partitions: &[(u64, u64)]) -> Tables {
    let mut entries = vec![0; 128 * 128];
    for (index, (first, last)) in partitions.iter().enumerate() {
        let entry = &mut entries[index * 128..][..128];
        // "Linux filesystem data", as it lies on the disk.
        entry[..16].copy_from_slice(&[
            0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47,
            0x7d, 0xe4,
        ]);
        entry[16..32].fill(index as u8 + 1);
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
    }
    let array = (128 * 128u64).div_ceil(u64::from(sector_bytes));
    let mut lba0 = vec![0; sector_bytes as usize];
    lba0[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0]);
    lba0[458..462].copy_from_slice(&(sectors as u32 - 1).to_le_bytes());
    lba0[510..512].copy_from_slice(&[0x55, 0xaa]);
    let gpt = Gpt {
        disk_guid: [0x42; 16],
        first_usable_lba: 2 + array,
        last_usable_lba: sectors - 2 - array,
        entries_lba: 2,
        backup_lba: sectors - 1,
        backup_entries_lba: sectors - 1 - array,
        entry_count: 128,
        entry_bytes: 128,
        entries,
    };
    Tables {
        sector_bytes,
        lba0: Some(lba0),
        gpt: Some(gpt),
    }
}

fn write(path: &Path, disk_bytes: u64, fitted: &FittedTables) {
    let file = File::create(path).unwrap();
    file.set_len(disk_bytes).unwrap();
    for run in &fitted.runs {
        file.write_all_at(&run.data, run.offset).unwrap();
    }
}

fn assert_sgdisk_is_content(path: &Path) {
    let checked = Command::new("sgdisk")
        .arg("-v")
        .arg(path)
        .output()
        .expect("apt install gdisk");
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(
        checked.status.success() && text.contains("No problems found"),
        "{text}"
    );
}

/// Reads one header independently of the code under test and checks what the standard asks of it.
fn assert_header(disk: &File, lba: u64, other: u64, last_usable: u64, sector: u64) {
    let mut header = vec![0; 92];
    disk.read_exact_at(&mut header, lba * sector).unwrap();
    assert_eq!(&header[..8], b"EFI PART");
    assert_eq!((u64_at(&header, 24), u64_at(&header, 32)), (lba, other));
    assert_eq!(u64_at(&header, 48), last_usable);
    let array_lba = u64_at(&header, 72);
    let mut array = vec![0; 128 * 128];
    disk.read_exact_at(&mut array, array_lba * sector).unwrap();
    assert_eq!(header[88..92], crc32fast::hash(&array).to_le_bytes());
    let checksum = header[16..20].to_vec();
    header[16..20].fill(0);
    assert_eq!(checksum, crc32fast::hash(&header).to_le_bytes());
}

#[test]
fn sgdisk_finds_no_problem_whatever_the_size_of_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let image = table(512, 200 * 2048, &[(2048, 40959), (40960, 100_000)]);
    // The source's own size, a sector more and less, far larger, beyond what an MBR can say, and as small as can be.
    let sectors = [
        200 * 2048,
        200 * 2048 + 1,
        200 * 2048 - 1,
        300_001,
        1 << 26,
        (1 << 32) + 77,
    ];
    for sectors in sectors.into_iter().chain([100_000 + 34, 100_000 + 35]) {
        let fitted = fit(&image, sectors * 512 + 511, 512, LastPartition::Keep).unwrap();
        write(&path, sectors * 512, &fitted);
        assert_sgdisk_is_content(&path);
    }
}

#[test]
fn the_tables_sgdisk_made_come_back_byte_for_byte_on_a_disk_of_the_same_size() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(64 * MIB).unwrap();
    let made = Command::new("sgdisk")
        .args(["-n", "1:0:+8M", "-n", "2:0:0", "-c", "2:root"])
        .arg(&path)
        .output()
        .expect("apt install gdisk");
    assert!(made.status.success());
    let disk = fs::read(&path).unwrap();
    let header = &disk[512..1024];
    let last = disk.len() as u64 / 512 - 1;
    let backup = &disk[last as usize * 512..];
    let gpt = Gpt {
        disk_guid: header[56..72].try_into().unwrap(),
        first_usable_lba: u64_at(header, 40),
        last_usable_lba: u64_at(header, 48),
        entries_lba: u64_at(header, 72),
        backup_lba: u64_at(header, 32),
        backup_entries_lba: u64_at(backup, 72),
        entry_count: 128,
        entry_bytes: 128,
        entries: disk[1024..1024 + 128 * 128].to_vec(),
    };
    let tables = Tables {
        sector_bytes: 512,
        lba0: Some(disk[..512].to_vec()),
        gpt: Some(gpt),
    };
    let fitted = fit(&tables, disk.len() as u64, 512, LastPartition::Keep).unwrap();
    let mut rendered = vec![0; disk.len()];
    fitted.overlay(0, &mut rendered);
    assert!(rendered == disk, "sgdisk wrote nothing but tables");

    // And on another size the partitions keep their places and names.
    write(
        &path,
        100 * MIB,
        &fit(&tables, 100 * MIB, 512, LastPartition::Keep).unwrap(),
    );
    assert_sgdisk_is_content(&path);
    let listed = Command::new("sgdisk")
        .arg("-p")
        .arg(&path)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("root"));
}

#[test]
fn a_disk_too_small_by_one_sector_is_refused_with_the_size_it_needs() {
    let image = table(512, 200 * 2048, &[(2048, 100_000)]);
    let needed = 100_000 + 1 + 33;
    assert!(fit(&image, needed * 512, 512, LastPartition::Keep).is_ok());
    let refused = fit(&image, needed * 512 - 1, 512, LastPartition::Keep).unwrap_err();
    let (needed_bytes, disk_bytes) = (needed * 512, needed * 512 - 1);
    assert_eq!(
        refused,
        FitError::TooSmall {
            needed_bytes,
            disk_bytes
        }
    );
}

#[test]
fn other_sectors_and_inconsistent_tables_are_refused() {
    let image = table(512, 200 * 2048, &[(2048, 100_000)]);
    let refused = fit(&image, 200 * MIB, 4096, LastPartition::Keep).unwrap_err();
    assert_eq!(
        refused,
        FitError::SectorSize {
            image: 512,
            disk: 4096
        }
    );
    let mut short = image.clone();
    short.gpt.as_mut().unwrap().entry_count = 4;
    let mut overlapping = image.clone();
    overlapping.gpt.as_mut().unwrap().entries_lba = u64::MAX;
    let mut endless = image;
    endless.gpt.as_mut().unwrap().entries[40..48].fill(0xff);
    for tables in [short, overlapping] {
        let refused = fit(&tables, 200 * MIB, 512, LastPartition::Keep).unwrap_err();
        assert!(matches!(refused, FitError::Inconsistent(_)), "{refused}");
    }
    let refused = fit(&endless, 200 * MIB, 512, LastPartition::Keep).unwrap_err();
    assert!(matches!(refused, FitError::TooSmall { .. }), "{refused}");
}

#[test]
fn an_mbr_is_kept_as_it_is_and_grows_only_when_asked() {
    let mut lba0 = vec![0; 512];
    lba0[446..462].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0]);
    lba0[510..].copy_from_slice(&[0x55, 0xaa]);
    let tables = Tables {
        sector_bytes: 512,
        lba0: Some(lba0.clone()),
        gpt: None,
    };
    let kept = fit(&tables, 100 * MIB, 512, LastPartition::Keep).unwrap();
    assert_eq!(kept.runs.len(), 1);
    assert_eq!(kept.runs[0].data, lba0);
    let grown = fit(&tables, 100 * MIB, 512, LastPartition::Grow).unwrap();
    assert_eq!(
        grown.runs[0].data[458..462],
        (100 * 2048 - 0x800u32).to_le_bytes()
    );
    let refused = fit(&tables, 2 * MIB, 512, LastPartition::Keep).unwrap_err();
    assert!(matches!(refused, FitError::TooSmall { .. }), "{refused}");
}

#[test]
fn an_image_without_a_table_has_none_on_any_disk() {
    let none = Tables {
        sector_bytes: 512,
        ..Tables::default()
    };
    assert_eq!(
        fit(&none, 77, 4096, LastPartition::Keep),
        Ok(FittedTables::default())
    );
}

#[test]
fn a_grown_partition_ends_on_a_megabyte_and_sgdisk_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let image = table(512, 200 * 2048, &[(2048, 40959), (40960, 100_000)]);
    let fitted = fit(&image, 300 * MIB, 512, LastPartition::Grow).unwrap();
    write(&path, 300 * MIB, &fitted);
    assert_sgdisk_is_content(&path);
    assert_eq!(
        u64_at(&fitted.runs[0].data, 1024 + 128 + 40),
        299 * 2048 - 1
    );
}

proptest! {
    #[test]
    fn both_headers_hold_on_any_disk_and_the_gpt_crate_agrees(
        wide in any::<bool>(),
        first in 256u64..4000,
        length in 1u64..8000,
        spare in 0u64..20_000,
        extra_bytes in 0u64..4096,
        disk_spare in 0u64..40_000,
        grow in any::<bool>(),
    ) {
        let sector_bytes = if wide { 4096 } else { 512 };
        let sector = u64::from(sector_bytes);
        let array = (128 * 128u64).div_ceil(sector);
        let last = first + length - 1;
        let image = table(sector_bytes, last + 2 + array + spare, &[(first, last)]);
        let sectors = last + 2 + array + disk_spare;
        let last_partition = if grow { LastPartition::Grow } else { LastPartition::Keep };
        let disk_bytes = sectors * sector + extra_bytes % sector;
        let fitted = fit(&image, disk_bytes, sector_bytes, last_partition).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        write(&path, sectors * sector, &fitted);
        let disk = File::open(&path).unwrap();
        let last_usable = sectors - 2 - array;
        assert_header(&disk, 1, sectors - 1, last_usable, sector);
        assert_header(&disk, sectors - 1, 1, last_usable, sector);

        let size = if wide { LogicalBlockSize::Lb4096 } else { LogicalBlockSize::Lb512 };
        let opened = gpt::GptConfig::new()
            .writable(false)
            .logical_block_size(size)
            .only_valid_headers(true)
            .open(&path)
            .unwrap();
        let partition = &opened.partitions()[&1];
        prop_assert_eq!(partition.first_lba, first);
        prop_assert!(partition.last_lba == last || grow && partition.last_lba > last);
        prop_assert!(partition.last_lba <= last_usable);

        // Runs rise, do not overlap, and stay on the disk.
        let ends: Vec<u64> = fitted.runs.iter().map(|run| run.offset + run.data.len() as u64).collect();
        prop_assert!(fitted.runs.iter().skip(1).zip(&ends).all(|(run, end)| run.offset >= *end));
        prop_assert_eq!(*ends.last().unwrap(), sectors * sector);
    }

    #[test]
    fn no_table_however_odd_makes_it_panic(
        sectors in 0u64..5000,
        entries_lba in any::<u64>(),
        first_usable in any::<u64>(),
        last_usable in any::<u64>(),
        backup in any::<u64>(),
        backup_entries in any::<u64>(),
        entry_count in 0u32..300,
        entry_bytes in 0u32..512,
        end in any::<u64>(),
        small in any::<bool>(),
        grow in any::<bool>(),
    ) {
        let mut image = table(512, 5000, &[(40, 50)]);
        let gpt = image.gpt.as_mut().unwrap();
        let near = |lba: u64| if small { lba % 5000 } else { lba };
        gpt.entries_lba = near(entries_lba);
        gpt.first_usable_lba = near(first_usable);
        gpt.last_usable_lba = near(last_usable);
        gpt.backup_lba = near(backup);
        gpt.backup_entries_lba = near(backup_entries);
        gpt.entries[40..48].copy_from_slice(&near(end).to_le_bytes());
        gpt.entries.resize((entry_count * entry_bytes) as usize, 3);
        (gpt.entry_count, gpt.entry_bytes) = (entry_count, entry_bytes);
        let last = if grow { LastPartition::Grow } else { LastPartition::Keep };
        if let Ok(fitted) = fit(&image, sectors * 512, 512, last) {
            let mut disk = vec![0; sectors as usize * 512];
            fitted.overlay(0, &mut disk);
        }
    }
}
