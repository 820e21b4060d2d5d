//! What a disk may look like after a power cut, decided from its bytes alone.
//!
//! Written from the formats (UEFI 2.10, section 5), knowing nothing of the program under test: neither its manifest nor
//! its way to render tables.

use std::ops::Range;

use super::journal::SECTOR;

/// What may be cleared at either end of the disk, in bytes.
const EDGE: usize = 1 << 20;
/// LBA 0 and 1.
const BOOT: usize = 2 * SECTOR;

/// The states a disk may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Nothing can start from it: no boot signature, no partition table at either end.
    Dead,
    /// It is the image, but for LBA 0 and 1, each of which is the image's or zeros.
    Whole,
    /// It is what it was before, but for sectors that were cleared.
    Former,
}

/// The disk before and the disk as it should become.
pub(crate) struct Oracle {
    /// The content before.
    pub(crate) former: Vec<u8>,
    /// The content of the source.
    pub(crate) image: Vec<u8>,
    /// Bytes that no file system uses: they may be anything when the image is there.
    pub(crate) unused: Vec<Range<usize>>,
}

impl Oracle {
    /// What this disk is. `None`: something that must not be.
    pub(crate) fn judge(&self, disk: &[u8]) -> Option<Verdict> {
        if self.is_whole(disk) {
            Some(Verdict::Whole)
        } else if self.is_former(disk) {
            Some(Verdict::Former)
        } else if !can_start(disk) {
            Some(Verdict::Dead)
        } else {
            None
        }
    }

    /// Whether `disk` is the image in all that matters, LBA 0 and 1 included.
    pub(crate) fn is_image(&self, disk: &[u8]) -> bool {
        disk[..BOOT] == self.image[..BOOT] && self.is_whole(disk)
    }

    fn is_whole(&self, disk: &[u8]) -> bool {
        let sector = |lba: usize| lba * SECTOR..(lba + 1) * SECTOR;
        let boot = (0..2)
            .all(|lba| disk[sector(lba)] == self.image[sector(lba)] || is_zero(&disk[sector(lba)]));
        let mut at = BOOT;
        let mut same = boot && disk.len() == self.image.len();
        for unused in self
            .unused
            .iter()
            .cloned()
            .chain(std::iter::once(disk.len()..disk.len()))
        {
            same = same && disk[at..unused.start] == self.image[at..unused.start];
            at = unused.end;
        }
        same
    }

    fn is_former(&self, disk: &[u8]) -> bool {
        let cleared = |at: usize| at < EDGE || at >= disk.len() - EDGE;
        disk.chunks_exact(SECTOR)
            .zip(self.former.chunks_exact(SECTOR))
            .enumerate()
            .all(|(index, (found, former))| {
                found == former || cleared(index * SECTOR) && is_zero(found)
            })
    }
}

/// Whether firmware would find something to start: a boot sector, or a partition table at either end.
pub(crate) fn can_start(disk: &[u8]) -> bool {
    let last = disk.len() / SECTOR - 1;
    disk[510..512] == [0x55, 0xaa] || is_table(disk, 1) || is_table(disk, last)
}

/// Whether a valid GPT header lies at `lba`, with valid entries.
fn is_table(disk: &[u8], lba: usize) -> bool {
    let header = &disk[lba * SECTOR..(lba + 1) * SECTOR];
    let number = |at: usize, bytes: usize| {
        header[at..at + bytes]
            .iter()
            .rev()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let length = number(12, 4) as usize;
    if &header[..8] != b"EFI PART"
        || !(92..=SECTOR).contains(&length)
        || number(24, 8) != lba as u64
    {
        return false;
    }
    let mut unsigned = header[..length].to_vec();
    unsigned[16..20].fill(0);
    let start = (number(72, 8) as usize).saturating_mul(SECTOR);
    let bytes = (number(80, 4) as usize).saturating_mul(number(84, 4) as usize);
    u64::from(crc32(&unsigned)) == number(16, 4)
        && disk
            .get(start..start.saturating_add(bytes))
            .is_some_and(|entries| u64::from(crc32(entries)) == number(88, 4))
}

/// The checksum of zip, Ethernet and GPT, one bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
