//! A small image in memory, and a disk in a file.

use std::path::PathBuf;
use std::sync::Arc;

use crate::deploy::{Deploy, DeployError, DeployOptions, DeployReport};
use crate::extent::{ExtentKind, Extents};
use crate::fit::{LastPartition, fit};
use crate::id::FrameId;
use crate::manifest::{FRAME_BYTES, Manifest, ManifestParts, frames_of, used_frames};
use crate::mask::mask;
use crate::scan::scan_tables;
use crate::tables::{Gpt, Tables};
use crate::target::{Target, TargetOptions};

pub(super) const MIB: usize = FRAME_BYTES as usize;

/// An image, its raw disk, and its frames as they are stored.
pub(super) struct Sample {
    pub(super) manifest: Arc<Manifest>,
    pub(super) raw: Vec<u8>,
    pub(super) stored: Vec<Vec<u8>>,
    parts: ManifestParts,
}

/// Bytes that lie at a place of a disk whatever else is there.
pub(super) type Patch = (usize, Vec<u8>);

/// Bytes that do not compress well and differ with the seed.
pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .take(bytes)
        .collect()
}

/// A GPT of one partition, from the first MiB to where a disk of `raw_bytes` must end it.
pub(super) fn one_partition(raw_bytes: u64, last_lba: u64) -> Tables {
    let mut entries = vec![0; 128 * 128];
    entries[..16].copy_from_slice(&noise(7, 16));
    entries[16..32].copy_from_slice(&noise(8, 16));
    entries[32..40].copy_from_slice(&2048u64.to_le_bytes());
    entries[40..48].copy_from_slice(&last_lba.to_le_bytes());
    let last = raw_bytes / 512 - 1;
    let mut lba0 = vec![0; 512];
    lba0[..4].copy_from_slice(b"boot");
    lba0[446 + 4] = 0xee;
    lba0[446 + 8] = 1;
    lba0[446 + 12..446 + 16].copy_from_slice(&(last as u32).to_le_bytes());
    lba0[510..].copy_from_slice(&[0x55, 0xaa]);
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

impl Sample {
    /// An image of 12 MiB: GPT, used frames, zero frames, a free frame, frames of all three kinds.
    pub(super) fn with_table(seed: u64) -> Sample {
        use ExtentKind::{Free, Used, Zero};
        let runs = [
            (Used, MIB),
            (Used, 2 * MIB),
            (Zero, MIB),
            (Free, 2 * MIB),
            (Used, MIB / 4),
            (Free, MIB / 4),
            (Zero, MIB / 2),
            (Used, 2 * MIB),
            (Free, MIB),
            (Zero, MIB / 2),
            (Used, MIB / 2),
            (Used, MIB),
        ];
        let bytes: usize = runs.iter().map(|(_, bytes)| bytes).sum();
        let tables = one_partition(bytes as u64, (8 * MIB / 512) as u64);
        Sample::new(seed, &runs, tables, (9 * MIB) as u64, &[])
    }

    /// An image without a table that ends within a sector.
    pub(super) fn without_table(seed: u64) -> Sample {
        use ExtentKind::{Used, Zero};
        let tables = Tables {
            sector_bytes: 512,
            ..Tables::default()
        };
        let runs = [(Used, 2 * MIB), (Zero, MIB), (Used, 700)];
        Sample::new(seed, &runs, tables, (3 * MIB + 700) as u64, &[])
    }

    /// An image without a table of `frames` used frames.
    pub(super) fn of_frames(seed: u64, frames: usize) -> Sample {
        let tables = Tables {
            sector_bytes: 512,
            ..Tables::default()
        };
        let bytes = frames * MIB;
        let runs = [(ExtentKind::Used, bytes)];
        Sample::new(seed, &runs, tables, bytes as u64, &[])
    }

    /// An image of noise in `runs`, with `patches` on it.
    pub(super) fn new(
        seed: u64,
        runs: &[(ExtentKind, usize)],
        tables: Tables,
        min_target_bytes: u64,
        patches: &[Patch],
    ) -> Sample {
        let mut extents = Extents::new();
        let mut raw = Vec::new();
        for (kind, bytes) in runs {
            extents.push(*kind, *bytes as u64);
            let end = raw.len() + bytes;
            if *kind == ExtentKind::Zero {
                raw.resize(end, 0);
            } else {
                raw.extend(noise(seed + raw.len() as u64, *bytes));
            }
        }
        let fitted = fit(&tables, raw.len() as u64, 512, LastPartition::Keep).unwrap();
        fitted.overlay(0, &mut raw);
        for (at, patch) in patches {
            raw[*at..at + patch.len()].copy_from_slice(patch);
        }

        let masked_ranges = tables.masked(raw.len() as u64);
        let sent = used_frames(&extents);
        let (mut stored, mut hashes) = (Vec::new(), Vec::new());
        for frame in 0..frames_of(raw.len() as u64) as u32 {
            let start = frame as usize * MIB;
            let end = (start + MIB).min(raw.len());
            let mut masked = raw[start..end].to_vec();
            let range = start as u64..end as u64;
            mask(
                extents.within(range.clone()),
                &masked_ranges,
                range,
                &mut masked,
            );
            if sent.contains(&FrameId(frame)) {
                hashes.push(*blake3::hash(&masked).as_bytes());
            }
            stored.push(zstd::bulk::compress(&raw[start..end], 1).unwrap());
        }
        let parts = ManifestParts {
            sector_bytes: 512,
            created: 0,
            min_target_bytes,
            parent: None,
            note: String::new(),
            extents,
            stored_bytes: stored.iter().map(|frame| frame.len() as u32).collect(),
            hashes,
            tables,
            partitions: scan_tables(&raw.as_slice(), Some(512)).unwrap().partitions,
        };
        Sample {
            manifest: Arc::new(Manifest::new(&parts).unwrap()),
            raw,
            stored,
            parts,
        }
    }

    /// Lets the manifest say that the content of a partition was left out.
    pub(super) fn leave_out(&mut self, number: u32) {
        let mut partitions = self.manifest.partitions().to_vec();
        let of_number = partitions
            .iter_mut()
            .filter(|partition| partition.number == number);
        of_number.for_each(|partition| partition.left_out = true);
        self.parts.partitions = partitions;
        self.manifest = Arc::new(Manifest::new(&self.parts).unwrap());
    }

    /// Whether `disk` holds everything of the image that is not free, and its tables.
    pub(super) fn assert_on(&self, disk: &[u8]) {
        let fitted = fit(
            self.manifest.tables(),
            disk.len() as u64,
            512,
            LastPartition::Keep,
        )
        .unwrap();
        let mut expected = self.raw.clone();
        for range in self.manifest.masked() {
            expected[range.start as usize..range.end as usize].fill(0);
        }
        expected.resize(disk.len(), 0);
        fitted.overlay(0, &mut expected);
        for run in self
            .manifest
            .extents()
            .iter()
            .filter(|run| run.kind != ExtentKind::Free)
        {
            let end = run.end().min(disk.len() as u64) as usize;
            let start = (run.offset as usize).min(end);
            let differs = (start..end).find(|at| disk[*at] != expected[*at]);
            assert_eq!(differs, None, "first differing byte, of {run:?}");
        }
        for run in fitted.runs {
            let start = run.offset as usize;
            assert_eq!(
                disk[start..start + run.data.len()],
                run.data,
                "table at {start}"
            );
        }
    }

    /// Submits every frame in `wanted`, one a payload.
    pub(super) fn feed(&self, deploy: &mut Deploy) {
        let frames: Vec<FrameId> = deploy.wanted().iter().collect();
        for frame in frames {
            deploy
                .submit(vec![frame], self.stored[frame.index()].clone())
                .unwrap();
        }
    }

    /// A whole deploy.
    pub(super) fn deploy(
        &self,
        target: Target,
        options: DeployOptions,
    ) -> Result<DeployReport, DeployError> {
        let mut deploy = Deploy::begin(
            Arc::clone(&self.manifest),
            target,
            options,
            Arc::new(|_| {}),
        )?;
        self.feed(&mut deploy);
        assert!(deploy.settle()?.is_empty());
        deploy.commit()
    }
}

/// A disk in a file.
pub(super) struct Disk {
    _dir: tempfile::TempDir,
    pub(super) path: PathBuf,
}

impl Disk {
    pub(super) fn of(content: &[u8]) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, content).unwrap();
        Disk { _dir: dir, path }
    }

    pub(super) fn target(&self) -> Target {
        Target::open(&self.path, TargetOptions::default()).unwrap()
    }

    pub(super) fn content(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }
}
