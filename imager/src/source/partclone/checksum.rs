//! The checksums of partclone files.

use std::hash::Hasher;

use twox_hash::{XxHash3_128, XxHash64};

/// A kind of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChecksumKind {
    None,
    Crc32,
    Xxh64,
    Xxh128,
    /// Of format 0001, which by an old mistake takes the first byte of a block for all of them.
    FirstByte,
}

impl ChecksumKind {
    /// The kind with this number in a header of format 0002.
    pub(super) fn of(number: u16) -> Option<ChecksumKind> {
        Some(match number {
            0 => ChecksumKind::None,
            0x20 => ChecksumKind::Crc32,
            0x30 => ChecksumKind::Xxh64,
            0x31 => ChecksumKind::Xxh128,
            _ => return None,
        })
    }

    /// Bytes of one checksum.
    pub(super) fn bytes(self) -> usize {
        match self {
            ChecksumKind::None => 0,
            ChecksumKind::Crc32 | ChecksumKind::FirstByte => 4,
            ChecksumKind::Xxh64 => 8,
            ChecksumKind::Xxh128 => 16,
        }
    }

    /// A checksum of nothing yet.
    pub(super) fn start(self) -> Checksum {
        match self {
            ChecksumKind::None => Checksum::None,
            ChecksumKind::Crc32 => Checksum::Crc32(CrcState::default()),
            ChecksumKind::FirstByte => Checksum::FirstByte(CrcState::default()),
            ChecksumKind::Xxh64 => Checksum::Xxh64(XxHash64::with_seed(0)),
            ChecksumKind::Xxh128 => Checksum::Xxh128(Box::default()),
        }
    }
}

/// A checksum as it grows.
#[derive(Clone)]
pub(super) enum Checksum {
    None,
    Crc32(CrcState),
    FirstByte(CrcState),
    Xxh64(XxHash64),
    Xxh128(Box<XxHash3_128>),
}

impl Checksum {
    pub(super) fn update(&mut self, block: &[u8]) {
        match self {
            Checksum::None => {}
            Checksum::Crc32(crc) => crc.update(block),
            Checksum::FirstByte(crc) => {
                let first = block.first().copied().unwrap_or(0);
                let run = [first; 512];
                let mut left = block.len();
                while left > 0 {
                    let count = left.min(run.len());
                    crc.update(&run[..count]);
                    left -= count;
                }
            }
            Checksum::Xxh64(hash) => hash.write(block),
            Checksum::Xxh128(hash) => hash.write(block),
        }
    }

    /// As it stands in the file.
    pub(super) fn value(&self) -> Vec<u8> {
        match self {
            Checksum::None => Vec::new(),
            Checksum::Crc32(crc) | Checksum::FirstByte(crc) => crc.value().to_le_bytes().into(),
            Checksum::Xxh64(hash) => hash.finish().to_le_bytes().into(),
            // The low half first.
            Checksum::Xxh128(hash) => hash.finish_128().to_le_bytes().into(),
        }
    }

    pub(super) fn reset(&mut self) {
        *self = match self {
            Checksum::None => ChecksumKind::None,
            Checksum::Crc32(_) => ChecksumKind::Crc32,
            Checksum::FirstByte(_) => ChecksumKind::FirstByte,
            Checksum::Xxh64(_) => ChecksumKind::Xxh64,
            Checksum::Xxh128(_) => ChecksumKind::Xxh128,
        }
        .start();
    }
}

/// The CRC-32 everybody has, without its last inversion.
#[derive(Clone, Default)]
pub(super) struct CrcState(crc32fast::Hasher);

impl CrcState {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn value(&self) -> u32 {
        !self.0.clone().finalize()
    }
}
