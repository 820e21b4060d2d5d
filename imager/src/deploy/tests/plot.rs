//! Images of disks with several partitions, and disks that are partitioned alike.

use std::ops::Range;

use crate::deploy::tests::fixture::{Disk, MIB, Patch, Sample, noise};
use crate::deploy::{DeployError, DeployOptions, DeployReport};
use crate::extent::ExtentKind;
use crate::fit::{LastPartition, fit};
use crate::scope::{PartitionSet, Scope};
use crate::tables::{Gpt, Tables};

pub(super) const SECTOR: u64 = 512;

/// Partitions of a disk, in sectors.
#[derive(Debug, Clone)]
pub(super) struct Plot {
    pub(super) bytes: usize,
    pub(super) gpt: bool,
    pub(super) partitions: Vec<Range<u64>>,
    /// Logical partitions and the sectors with their tables, within an extended partition; for an MBR only.
    pub(super) logical: Vec<(u64, Range<u64>)>,
}

impl Plot {
    pub(super) fn gpt(bytes: usize, partitions: impl IntoIterator<Item = Range<u64>>) -> Plot {
        Plot {
            bytes,
            gpt: true,
            partitions: partitions.into_iter().collect(),
            logical: Vec::new(),
        }
    }

    pub(super) fn mbr(bytes: usize, partitions: impl IntoIterator<Item = Range<u64>>) -> Plot {
        Plot {
            gpt: false,
            ..Plot::gpt(bytes, partitions)
        }
    }

    /// The image of such a disk: `runs` say what of it is used, zero, or free, from its start; the rest is used.
    pub(super) fn image(&self, seed: u64, runs: &[(ExtentKind, usize)]) -> Sample {
        let given: usize = runs.iter().map(|(_, bytes)| bytes).sum();
        let rest = (ExtentKind::Used, self.bytes - given);
        let runs: Vec<(ExtentKind, usize)> = runs.iter().copied().chain([rest]).collect();
        Sample::new(
            seed,
            &runs,
            self.tables(seed),
            self.bytes as u64,
            &self.patches(),
        )
    }

    /// A disk of `bytes` that is partitioned so and holds something else everywhere.
    pub(super) fn disk(&self, seed: u64, bytes: usize) -> Disk {
        let mut content = noise(seed, bytes);
        let fitted = fit(&self.tables(seed), bytes as u64, 512, LastPartition::Keep).unwrap();
        fitted.overlay(0, &mut content);
        for (at, patch) in self.patches() {
            content[at..at + patch.len()].copy_from_slice(&patch);
        }
        Disk::of(&content)
    }

    /// Where partition `number` lies, in bytes.
    pub(super) fn place(&self, number: u32) -> Range<usize> {
        let sectors = match number {
            5.. if !self.gpt => &self.logical[number as usize - 5].1,
            _ => &self.partitions[number as usize - 1],
        };
        (sectors.start * SECTOR) as usize..(sectors.end * SECTOR) as usize
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        let logical = (0..self.logical.len() as u32).map(|index| 5 + index);
        (1..=self.partitions.len() as u32).chain(logical).collect()
    }

    fn tables(&self, seed: u64) -> Tables {
        let mut lba0 = noise(seed, 440);
        lba0.resize(512, 0);
        lba0[440..444].copy_from_slice(b"disk");
        lba0[510..].copy_from_slice(&[0x55, 0xaa]);
        let last = self.bytes as u64 / SECTOR - 1;
        let entry = |lba0: &mut [u8], index: usize, kind: u8, sectors: &Range<u64>| {
            put_entry(&mut lba0[446 + index * 16..][..16], kind, sectors, 0);
        };
        if !self.gpt {
            for (index, sectors) in self.partitions.iter().enumerate() {
                entry(&mut lba0, index, 0x83, sectors);
            }
            if let (Some((first, _)), Some((_, last))) = (self.logical.first(), self.logical.last())
            {
                entry(&mut lba0, 3, 0x05, &(*first..last.end));
            }
            return Tables {
                sector_bytes: 512,
                lba0: Some(lba0),
                gpt: None,
            };
        }
        entry(&mut lba0, 0, 0xee, &(1..last + 1));
        let mut entries = vec![0; 128 * 128];
        for (index, sectors) in self.partitions.iter().enumerate() {
            let entry = &mut entries[index * 128..][..128];
            entry[..16].copy_from_slice(&noise(7, 16));
            entry[16..32].copy_from_slice(&noise(80 + index as u64, 16));
            entry[32..40].copy_from_slice(&sectors.start.to_le_bytes());
            entry[40..48].copy_from_slice(&(sectors.end - 1).to_le_bytes());
        }
        let gpt = Gpt {
            disk_guid: [9; 16],
            first_usable_lba: 34,
            last_usable_lba: last - 33,
            entries_lba: 2,
            backup_lba: last,
            backup_entries_lba: last - 32,
            entry_count: 128,
            entry_bytes: 128,
            entries,
        };
        Tables {
            sector_bytes: 512,
            lba0: Some(lba0),
            gpt: Some(gpt),
        }
    }

    /// The sectors with tables of logical partitions.
    fn patches(&self) -> Vec<Patch> {
        let first = self.logical.first().map_or(0, |(table, _)| *table);
        let tables = self
            .logical
            .iter()
            .enumerate()
            .map(|(index, (table, sectors))| {
                let mut sector = vec![0; 512];
                put_entry(&mut sector[446..462], 0x83, sectors, *table);
                if let Some((next, range)) = self.logical.get(index + 1) {
                    put_entry(&mut sector[462..478], 0x05, &(*next..range.end), first);
                }
                sector[510..].copy_from_slice(&[0x55, 0xaa]);
                ((table * SECTOR) as usize, sector)
            });
        tables.collect()
    }
}

fn put_entry(entry: &mut [u8], kind: u8, sectors: &Range<u64>, base: u64) {
    entry[4] = kind;
    entry[8..12].copy_from_slice(&((sectors.start - base) as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&((sectors.end - sectors.start) as u32).to_le_bytes());
}

pub(super) fn set(numbers: &[u32]) -> PartitionSet {
    PartitionSet::new(numbers.iter().copied()).unwrap()
}

pub(super) fn scoped(scope: Scope) -> DeployOptions {
    DeployOptions {
        scope,
        ..DeployOptions::default()
    }
}

/// Asserts that exactly the bytes of `places` are now those of the image (where it says anything about them), and all
/// others are as before.
pub(super) fn assert_only(image: &Sample, before: &[u8], after: &[u8], places: &[Range<usize>]) {
    let ours = |at: usize| places.iter().any(|place| place.contains(&at));
    let foreign = (0..before.len()).find(|at| !ours(*at) && before[*at] != after[*at]);
    assert_eq!(
        foreign, None,
        "first byte changed that is not in {places:?}"
    );
    for run in image
        .manifest
        .extents()
        .iter()
        .filter(|run| run.kind != ExtentKind::Free)
    {
        let run = run.offset as usize..(run.end() as usize).min(after.len());
        let wrong = run
            .into_iter()
            .find(|at| ours(*at) && image.raw[*at] != after[*at]);
        assert_eq!(wrong, None, "first wrong byte in {places:?}");
    }
}

/// A deploy of `scope`, and what it did to the disk.
pub(super) fn deploy(
    image: &Sample,
    disk: &Disk,
    scope: Scope,
) -> Result<DeployReport, DeployError> {
    image.deploy(disk.target(), scoped(scope))
}

/// Sectors in so many MiB.
pub(super) const fn mib(count: u64) -> u64 {
    count * MIB as u64 / SECTOR
}
