//! The boot sector of an NTFS volume: how large its clusters are and where its tables begin.

use std::ops::RangeInclusive;

use crate::read_at::{Fields, ReadAt, read_array};
use crate::scan::volume::Obstacle;

const SECTOR_BYTES: RangeInclusive<u64> = 256..=4096;
const CLUSTER_BYTES: RangeInclusive<u64> = 512..=2 << 20;
const RECORD_BYTES: RangeInclusive<u64> = 512..=64 << 10;
/// Clusters are counted in 32 bits by every implementation.
const CLUSTERS_MAX: u64 = u32::MAX as u64;

/// Where things lie; every value is in its valid range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) cluster_bytes: u64,
    pub(super) clusters: u64,
    pub(super) record_bytes: usize,
    /// First cluster of the master file table.
    pub(super) table: u64,
    /// First cluster of the copy of its first records.
    pub(super) mirror: u64,
    /// End of what a cluster may cover: the last sector holds the copy of the boot sector.
    pub(super) end_bytes: u64,
}

impl Geometry {
    pub(super) fn read(view: &dyn ReadAt) -> Result<Geometry, Obstacle> {
        let sector = read_array::<512>(view, 0)?.unwrap_or([0; 512]);
        Geometry::parse(Fields(&sector), view.raw_bytes())
            .ok_or_else(|| Obstacle::unknown("its boot sector contradicts itself or the partition"))
    }

    fn parse(fields: Fields<'_>, partition_bytes: u64) -> Option<Geometry> {
        let sector_bytes = u64::from(fields.u16(0x0b));
        let valid_sector = SECTOR_BYTES.contains(&sector_bytes) && sector_bytes.is_power_of_two();
        // Counts that only a FAT has, at the same places.
        let strange = [(0x0e, 7), (0x16, 2), (0x20, 4)]
            .iter()
            .any(|&(at, count)| fields.bytes(at, count).iter().any(|&byte| byte != 0));
        let signed = fields.bytes(3, 8) == b"NTFS    " && fields.u16(510) == 0xaa55;
        if !valid_sector || strange || !signed {
            return None;
        }
        let cluster_bytes = cluster_bytes(fields.u8(0x0d), sector_bytes)?;
        let record_bytes = record_bytes(fields.u8(0x40), cluster_bytes)?;
        let volume_bytes = fields.u64(0x28).checked_mul(sector_bytes)?;
        let clusters = volume_bytes / cluster_bytes;
        let (table, mirror) = (fields.u64(0x30), fields.u64(0x38));
        let sane = volume_bytes <= partition_bytes
            && (1..=CLUSTERS_MAX).contains(&clusters)
            && (1..clusters).contains(&table)
            && (1..clusters).contains(&mirror)
            && table != mirror;
        sane.then_some(Geometry {
            cluster_bytes,
            clusters,
            record_bytes,
            table,
            mirror,
            end_bytes: partition_bytes.saturating_sub(sector_bytes),
        })
    }
}

/// Sectors per cluster as a number up to 128, else as the negative of a power of two.
fn cluster_bytes(code: u8, sector_bytes: u64) -> Option<u64> {
    let sectors = match code {
        0..=128 => u64::from(code),
        _ => 1u64.checked_shl(256 - u32::from(code))?,
    };
    sectors
        .checked_mul(sector_bytes)
        .filter(|bytes| bytes.is_power_of_two() && CLUSTER_BYTES.contains(bytes))
}

/// Clusters per record, or the negative of a power of two in bytes.
fn record_bytes(code: u8, cluster_bytes: u64) -> Option<usize> {
    let bytes = match code {
        0..=127 => u64::from(code) * cluster_bytes,
        _ => 1u64.checked_shl(256 - u32::from(code))?,
    };
    (bytes.is_power_of_two() && RECORD_BYTES.contains(&bytes)).then_some(bytes as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counts_or_negative_powers_of_two() {
        assert_eq!(cluster_bytes(8, 512), Some(4096));
        assert_eq!(cluster_bytes(128, 512), Some(65_536));
        assert_eq!(cluster_bytes(0xf4, 512), Some(2 << 20));
        assert_eq!(cluster_bytes(0xf3, 512), None);
        assert_eq!(cluster_bytes(0, 512), None);
        assert_eq!(cluster_bytes(3, 512), None);
        assert_eq!(cluster_bytes(129, 512), None);
        assert_eq!(record_bytes(0xf6, 4096), Some(1024));
        assert_eq!(record_bytes(1, 4096), Some(4096));
        assert_eq!(record_bytes(0x80, 4096), None);
        assert_eq!(record_bytes(0, 4096), None);
    }
}
