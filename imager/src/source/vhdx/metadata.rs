//! What a VHDX says of its disk.

use crate::read_at::{Fields, ReadAt};
use crate::source::fault::Fault;
use crate::source::medium::Extract;

const TABLE_BYTES: usize = 64 << 10;
const ITEMS_MAX: u16 = 2047;
const ITEM_BYTES: usize = 8;
const FILE_PARAMETERS: &str = "caa16737-fa36-4d43-b3b6-33f0aa44e76b";
const DISK_BYTES: &str = "2fa54224-cd1b-4876-b211-5dbed83bf4b8";
const SECTOR_BYTES: &str = "8141bf1d-a96f-4709-ba47-f233a8faab5f";
const HAS_PARENT: u32 = 1 << 1;
/// Sectors that one bitmap tells of.
const BITMAP_SECTORS: u64 = 1 << 23;
/// Block sizes, bytes.
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 1 << 20..=256 << 20;
/// The largest VHDX.
const DISK_BYTES_MAX: u64 = 64 << 40;

/// The facts that are needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) disk_bytes: u64,
    pub(super) block_bytes: u32,
    pub(super) sector_bytes: u32,
}

impl Metadata {
    /// Reads the region.
    ///
    /// # Errors
    /// When something is missing or nonsense, and when the disk has a parent.
    pub(super) fn read(region: &Extract) -> Result<Metadata, Fault> {
        let mut table = vec![0; TABLE_BYTES];
        let read = region.read_exact_at(0, &mut table);
        read.map_err(|error| Fault::decoding(0, error))?;
        let fields = Fields(&table);
        let count = fields.u16(10);
        if fields.bytes(0, 8) != b"metadata" || count > ITEMS_MAX {
            return Err(damaged("its metadata table"));
        }
        let (mut parameters, mut disk, mut sector) = (None, None, None);
        for index in 0..usize::from(count) {
            let entry = Fields(fields.bytes(32 + index * 32, 32));
            let item = match entry.guid(0).as_str() {
                FILE_PARAMETERS => &mut parameters,
                DISK_BYTES => &mut disk,
                SECTOR_BYTES => &mut sector,
                _ => continue,
            };
            let length = (entry.u32(20) as usize).min(ITEM_BYTES);
            let mut bytes = vec![0; length];
            let read = region.read_exact_at(u64::from(entry.u32(16)), &mut bytes);
            read.map_err(|_| damaged("an item of its metadata"))?;
            *item = Some(bytes);
        }
        let (Some(parameters), Some(disk), Some(sector)) = (parameters, disk, sector) else {
            return Err(damaged("its metadata lack an item"));
        };
        let metadata = Metadata {
            disk_bytes: Fields(&disk).u64(0),
            block_bytes: Fields(&parameters).u32(0),
            sector_bytes: Fields(&sector).u32(0),
        };
        if Fields(&parameters).u32(4) & HAS_PARENT != 0 {
            return Err(Fault::refuse(
                "it is a differencing disk that needs its parent; merge it first (Hyper-V: edit \
                 disk, merge, or delete the checkpoint)",
            ));
        }
        metadata.check()
    }

    fn check(self) -> Result<Metadata, Fault> {
        let blocks = BLOCK_BYTES.contains(&self.block_bytes) && self.block_bytes.is_power_of_two();
        let sectors = matches!(self.sector_bytes, 512 | 4096);
        if !blocks || !sectors {
            return Err(damaged("its block or sector size"));
        }
        let whole = self.disk_bytes.is_multiple_of(u64::from(self.sector_bytes));
        if !whole || self.disk_bytes == 0 || self.disk_bytes > DISK_BYTES_MAX {
            return Err(damaged("the size of its disk"));
        }
        Ok(self)
    }

    /// Blocks that one bitmap tells of.
    pub(super) fn blocks_per_bitmap(&self) -> u64 {
        BITMAP_SECTORS * u64::from(self.sector_bytes) / u64::from(self.block_bytes)
    }
}

fn damaged(what: &str) -> Fault {
    Fault::refuse(format!("it is damaged: {what}"))
}
