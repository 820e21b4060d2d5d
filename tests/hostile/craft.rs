//! Images written by hand, after `docs/IMAGE-FORMAT.md` and without our code: whoever makes hostile ones does not ask
//! our renderer, which refuses nonsense.

use std::ops::Range;

/// Bytes of a frame and of a unit of the extents.
pub(super) const FRAME: usize = 1 << 20;
pub(super) const UNIT: u64 = 4096;

/// Kinds of extents.
pub(super) const USED: u64 = 0;
pub(super) const ZERO: u64 = 1;

/// All that is in an image; every field may lie.
#[derive(Clone)]
pub(super) struct Crafted {
    pub(super) frame_bytes: u32,
    pub(super) sector_bytes: u32,
    pub(super) raw_bytes: u64,
    pub(super) min_target_bytes: u64,
    pub(super) note_bytes: u16,
    /// Units and kind; the number of them is told apart.
    pub(super) extents: Vec<(u64, u64)>,
    pub(super) extent_count: u32,
    /// As the manifest has them; the frames in the file may be others.
    pub(super) stored: Vec<u32>,
    pub(super) hashes: Vec<[u8; 32]>,
    pub(super) tables: Vec<u8>,
    pub(super) partitions: Vec<u8>,
    /// Frames as they lie in the file.
    pub(super) frames: Vec<Vec<u8>>,
    /// Frames the seek table counts, when it lies.
    pub(super) seek_count: Option<u32>,
}

impl Crafted {
    /// An honest image of `raw`, whole frames without tables.
    pub(super) fn honest(raw: &[u8]) -> Crafted {
        let frames: Vec<Vec<u8>> = raw.chunks(FRAME).map(packed).collect();
        Crafted {
            frame_bytes: FRAME as u32,
            sector_bytes: 512,
            raw_bytes: raw.len() as u64,
            min_target_bytes: raw.len() as u64,
            note_bytes: 0,
            extents: vec![(raw.len() as u64 / UNIT, USED)],
            extent_count: 1,
            stored: sizes(&frames),
            hashes: raw.chunks(FRAME).map(hash).collect(),
            tables: vec![0],
            partitions: vec![0; 4],
            frames,
            seek_count: None,
        }
    }

    /// Puts another frame into the place of `index`, and says its size truly.
    pub(super) fn replace(&mut self, index: usize, frame: Vec<u8>) {
        self.frames[index] = frame;
        self.stored = sizes(&self.frames);
    }

    /// Gives it tables, and the hashes that frames of `raw` have with these tables left out: so far it is honest.
    pub(super) fn put_tables(&mut self, gpt: &CraftedGpt, raw: &[u8]) {
        let mut masked = raw.to_vec();
        for sectors in gpt.sectors() {
            let bytes = |sector: u64| (sector.saturating_mul(512) as usize).min(raw.len());
            masked[bytes(sectors.start)..bytes(sectors.end)].fill(0);
        }
        self.hashes = masked.chunks(FRAME).map(hash).collect();
        self.tables = gpt.bytes();
    }

    /// The file.
    pub(super) fn file(&self) -> Vec<u8> {
        let mut file = self.frames.concat();
        let manifest = self.manifest();
        file.extend(0x184d_2a50_u32.to_le_bytes());
        file.extend((manifest.len() as u32).to_le_bytes());
        file.extend(&manifest);
        let mut table = Vec::new();
        for (index, frame) in self.frames.iter().enumerate() {
            let raw = self.raw_bytes.saturating_sub((index * FRAME) as u64);
            let raw = raw.min(FRAME as u64);
            table.extend((frame.len() as u32).to_le_bytes());
            table.extend((raw as u32).to_le_bytes());
        }
        table.extend((manifest.len() as u32 + 8).to_le_bytes());
        table.extend([0; 4]);
        let count = self.seek_count.unwrap_or(self.frames.len() as u32 + 1);
        table.extend(count.to_le_bytes());
        table.push(0);
        table.extend([0xb1, 0xea, 0x92, 0x8f]);
        file.extend(0x184d_2a5e_u32.to_le_bytes());
        file.extend((table.len() as u32).to_le_bytes());
        file.extend(table);
        file
    }

    fn manifest(&self) -> Vec<u8> {
        let mut bytes = b"NFMANIF\n\x01\0".to_vec();
        bytes.extend(self.frame_bytes.to_le_bytes());
        bytes.extend(self.sector_bytes.to_le_bytes());
        bytes.extend(self.raw_bytes.to_le_bytes());
        bytes.extend(self.min_target_bytes.to_le_bytes());
        bytes.extend([0; 8]); // created
        bytes.push(0); // parent
        bytes.extend(self.note_bytes.to_le_bytes());
        bytes.extend(self.extent_count.to_le_bytes());
        for (units, kind) in &self.extents {
            varint(&mut bytes, units << 2 | kind);
        }
        self.stored
            .iter()
            .for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(self.hashes.concat());
        bytes.extend(&self.tables);
        bytes.extend(&self.partitions);
        bytes
    }
}

/// A GPT in the manifest, with an entry for the partition `first..=last`.
pub(super) struct CraftedGpt {
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    pub(super) entries: u64,
    pub(super) backup: u64,
    pub(super) backup_entries: u64,
    pub(super) entry_count: u32,
    pub(super) entry_bytes: u32,
    pub(super) kept: u32,
    pub(super) partition: (u64, u64),
}

impl CraftedGpt {
    /// As every tool makes it on a disk of `sectors`.
    pub(super) fn honest(sectors: u64) -> CraftedGpt {
        CraftedGpt {
            first_usable: 34,
            last_usable: sectors - 34,
            entries: 2,
            backup: sectors - 1,
            backup_entries: sectors - 33,
            entry_count: 128,
            entry_bytes: 128,
            kept: 1,
            partition: (2048, sectors - 34),
        }
    }

    /// Where it says that its parts lie.
    fn sectors(&self) -> [Range<u64>; 4] {
        let entries = u64::from(self.entry_count).saturating_mul(self.entry_bytes.into());
        let run = |first: u64, count: u64| first..first.saturating_add(count);
        let entries = |first: u64| run(first, entries.div_ceil(512));
        [
            0..2,
            entries(self.entries),
            entries(self.backup_entries),
            run(self.backup, 1),
        ]
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![2];
        let mut protective = [0; 512];
        protective[446..462].copy_from_slice(&[
            0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        ]);
        protective[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes.extend(protective);
        bytes.extend([7; 16]);
        for number in [
            self.first_usable,
            self.last_usable,
            self.entries,
            self.backup,
            self.backup_entries,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [self.entry_count, self.entry_bytes, self.kept] {
            bytes.extend(number.to_le_bytes());
        }
        let mut entry = vec![1; self.entry_bytes.clamp(128, 4096) as usize];
        entry[32..40].copy_from_slice(&self.partition.0.to_le_bytes());
        entry[40..48].copy_from_slice(&self.partition.1.to_le_bytes());
        bytes.extend(entry);
        bytes
    }
}

/// What a frame of these bytes is stored as.
pub(super) fn packed(raw: &[u8]) -> Vec<u8> {
    let mut packer = zstd::bulk::Compressor::new(1).expect("a compressor");
    let checksum = zstd::zstd_safe::CParameter::ChecksumFlag(true);
    packer.set_parameter(checksum).expect("a known parameter");
    packer.compress(raw).expect("memory")
}

/// A zstd frame that says `claimed` bytes are in it, and holds `blocks` times 128 KiB of `byte`, in windows of 2 to
/// the power of `window`.
pub(super) fn bomb(claimed: u64, blocks: usize, byte: u8, window: u8) -> Vec<u8> {
    // Content size of eight bytes, no single segment, no checksum, no dictionary (RFC 8878, 3.1.1.1).
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1100_0000, (window - 10) << 3];
    frame.extend(claimed.to_le_bytes());
    for block in 0..blocks {
        let last = u32::from(block + 1 == blocks);
        // A block of one byte, repeated.
        let header = last | 1 << 1 | (128 << 10) << 3;
        frame.extend(&header.to_le_bytes()[..3]);
        frame.push(byte);
    }
    frame
}

fn hash(raw: &[u8]) -> [u8; 32] {
    *blake3::hash(raw).as_bytes()
}

pub(super) fn sizes(frames: &[Vec<u8>]) -> Vec<u32> {
    frames.iter().map(|frame| frame.len() as u32).collect()
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
