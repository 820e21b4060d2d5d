//! What a disk was told, in order: the log of QEMU's `blklogwrites` driver.
//!
//! The format is that of the kernel's `dm-log-writes` (Documentation/admin-guide/device-mapper/log-writes.rst): a
//! super sector, then for each request one sector that describes it and the data it wrote.

use std::fs;
use std::path::Path;

/// Size of a sector of the disk and of the log, in bytes.
pub(crate) const SECTOR: usize = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// Marks carry text, no data.
const MARK: u64 = 8;

/// One write to the disk.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// Where, in bytes.
    pub(crate) offset: usize,
    /// What: whole sectors.
    pub(crate) data: Vec<u8>,
}

impl Write {
    /// Does the write to `disk`, but only to the sectors that `reach` names.
    pub(crate) fn apply(&self, disk: &mut [u8], mut reach: impl FnMut(usize) -> bool) {
        for (index, sector) in self.data.chunks_exact(SECTOR).enumerate() {
            let at = self.offset + index * SECTOR;
            if reach(index) {
                disk[at..at + SECTOR].copy_from_slice(sector);
            }
        }
    }
}

/// Everything a disk was told, cut at its flushes: before the next flush, the writes of an epoch may be on the medium
/// in any number and order; after it, all of them are.
pub(crate) struct Journal {
    /// The epochs that wrote something. The last one may never have been flushed.
    pub(crate) epochs: Vec<Vec<Write>>,
    /// How many flushes there were, also those that had nothing to do.
    pub(crate) flushes: usize,
}

impl Journal {
    /// Reads a log.
    pub(crate) fn read(path: &Path) -> Journal {
        let log = fs::read(path).expect("the log of blklogwrites");
        let word = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().expect("eight bytes"));
        assert_eq!(
            (word(0), word(8)),
            (MAGIC, 1),
            "not a log of blklogwrites, version 1"
        );
        assert_eq!(word(24) as u32 as usize, SECTOR, "sectors of the log");
        let mut at = SECTOR;
        let (mut epochs, mut epoch, mut flushes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..word(16) {
            let (sector, count, flags) = (word(at) as usize, word(at + 8) as usize, word(at + 16));
            at += SECTOR;
            assert!(
                flags & (FUA | DISCARD | MARK) == 0,
                "request with flags {flags:#x} is not replayed"
            );
            if flags & FLUSH != 0 {
                flushes += 1;
                if !epoch.is_empty() {
                    epochs.push(std::mem::take(&mut epoch));
                }
            }
            if count > 0 {
                let bytes = count * SECTOR;
                let data = log[at..at + bytes].to_vec();
                epoch.push(Write {
                    offset: sector * SECTOR,
                    data,
                });
                at += bytes;
            }
        }
        if !epoch.is_empty() {
            epochs.push(epoch);
        }
        Journal { epochs, flushes }
    }

    /// The same writes as a disk would see them that lies about its flushes: one epoch.
    pub(crate) fn without_flushes(&self) -> Journal {
        Journal {
            epochs: vec![self.epochs.concat()],
            flushes: 0,
        }
    }
}
