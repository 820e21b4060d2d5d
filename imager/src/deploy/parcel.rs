//! A partition that is written while its neighbours stay, and what is held back so that nobody mounts it half-written.
//!
//! ```text
//!  partition: | crown | rest of the first MiB | points ....... | last MiB |
//!  clear:       1 … 5           6                6                  6        flush after each
//!  data:                                           7 7 7 7 7 7               flush, read-back
//!  commit:        9             8                8                  8        flush and read-back after each
//! ```
//!
//! The *crown* are the few sectors by which a kernel or boot loader knows what lies there: without them nothing else
//! is looked at, so they go first and come last. One kind of volume has its content where another has its crown: they
//! go one after the other, those further on only when whatever has its own before them is dead already. The *points* are
//! further places where a second copy is found without being told (`docs/decisions/0016-single-partitions.md` says by
//! whom).

use std::ops::Range;

use crate::deploy::hold::EDGE_BYTES;
use crate::ranges::Ranges;

/// Where all volumes are recognised that are not in [`CROWNS`]: boot sectors (FAT, exFAT, NTFS, BitLocker), XFS, LUKS, and
/// what nobody knows. It is cleared first of all.
const FIRST_SECTOR: Range<u64> = 0..512;
/// Where other kinds are, in bytes from the start of the partition, in the order in which they are cleared: what has its
/// crown later has nothing of worth where an earlier one is.
static CROWNS: [(&[&str], Range<u64>); 4] = [
    (&["ext", "f2fs"], 1024..1536),
    (&["LVM2_member"], 0..2048),
    (&["f2fs"], 5120..5632),
    (&["btrfs"], 0x1_0000..0x1_1000),
];

/// Second copies beyond the first MiB, in bytes from the start of the partition: the later headers LUKS2 may have
/// (cryptsetup tries each place), and the mirrors of a btrfs superblock.
const POINTS: [u64; 5] = [1 << 20, 2 << 20, 4 << 20, 64 << 20, 256 << 30];
/// How much is held back at a point, in bytes.
const POINT_BYTES: u64 = 4096;

/// A partition in scope. All its bytes are whole sectors of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    /// Where the image has it, in bytes of the disk.
    pub(crate) range: Range<u64>,
    /// Where it ends on this disk: further out, when it has grown.
    pub(crate) disk_end: u64,
    /// Its file system in the image, in the words of `blkid`.
    pub(crate) fs: String,
    /// Sector size of the disk, in bytes.
    pub(crate) sector_bytes: u64,
}

impl Parcel {
    /// What is cleared first and written last.
    pub(crate) fn guards(&self) -> Ranges {
        let Range { start, end } = self.range;
        let tail = |end: u64| end.saturating_sub(EDGE_BYTES).max(start)..end;
        let points = POINTS.iter().map(|at| start + at..start + at + POINT_BYTES);
        self.cut(points.chain([start..start + EDGE_BYTES, tail(end), tail(self.disk_end)]))
    }

    /// The sectors by which the volume in the image is recognised.
    pub(crate) fn crown(&self) -> Ranges {
        let own = |(kinds, _): &&(&[&str], Range<u64>)| {
            kinds.iter().any(|kind| self.fs.starts_with(kind))
        };
        let own: Vec<Range<u64>> = CROWNS
            .iter()
            .filter(own)
            .map(|(_, at)| at.clone())
            .collect();
        if own.is_empty() {
            self.places(Some(FIRST_SECTOR))
        } else {
            self.places(own)
        }
    }

    /// The sectors by which any volume is recognised, whatever was there before, in the order in which they go.
    pub(crate) fn any_crown(&self) -> Vec<Ranges> {
        let mut gone = Ranges::default();
        let mut steps = Vec::new();
        let later = CROWNS.iter().map(|(_, place)| place.clone());
        for place in [FIRST_SECTOR].into_iter().chain(later) {
            let step = self.places([place]).minus(&gone);
            gone = Ranges::of(gone.iter().chain(step.iter()));
            steps.push(step);
        }
        steps
    }

    fn places(&self, places: impl IntoIterator<Item = Range<u64>>) -> Ranges {
        let start = self.range.start;
        self.cut(
            places
                .into_iter()
                .map(|place| start + place.start..start + place.end),
        )
    }

    /// Whole sectors, none beyond the partition.
    fn cut(&self, ranges: impl Iterator<Item = Range<u64>>) -> Ranges {
        let sector = self.sector_bytes;
        Ranges::of(ranges.map(|range| {
            let start = range.start / sector * sector;
            start..range.end.next_multiple_of(sector).min(self.disk_end)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn parcel(range: Range<u64>, disk_end: u64, fs: &str, sector_bytes: u64) -> Parcel {
        Parcel {
            range,
            disk_end,
            fs: fs.into(),
            sector_bytes,
        }
    }

    #[test]
    fn head_tail_and_points_are_held_back() {
        let plain = parcel(MIB..101 * MIB, 101 * MIB, "ext4", 512);
        let point = |at: u64| at * MIB..at * MIB + POINT_BYTES;
        let expected = [
            MIB..2 * MIB + POINT_BYTES,
            point(3),
            point(5),
            point(65),
            100 * MIB..101 * MIB,
        ];
        assert_eq!(plain.guards(), Ranges::of(expected.clone()));
        let grown = parcel(MIB..101 * MIB, 200 * MIB, "ext4", 512);
        let tail = 199 * MIB..200 * MIB;
        assert_eq!(
            grown.guards(),
            Ranges::of(expected.into_iter().chain([tail]))
        );
    }

    #[test]
    fn guards_and_crowns_are_whole_sectors_within_the_partition() {
        for sector in [512, 4096] {
            for length in [1, 2, 3, 9, 200, 4000] {
                let range = 63 * sector..(63 + length) * sector;
                for fs in ["ext4", "btrfs", "f2fs", "LVM2_member", "ntfs", ""] {
                    let small = parcel(range.clone(), range.end, fs, sector);
                    let guards = small.guards();
                    let farewell = small.any_crown();
                    let cleared = Ranges::of(farewell.iter().flat_map(Ranges::iter));
                    for one in guards
                        .iter()
                        .chain(small.crown().iter())
                        .chain(cleared.iter())
                    {
                        assert!(range.start <= one.start && one.end <= range.end);
                        assert!(one.start % sector == 0 && one.end % sector == 0);
                        assert!(
                            guards.hold(one.clone()),
                            "{one:?} of {fs} is cleared as well"
                        );
                    }
                    assert!(small.crown().minus(&cleared).is_empty());
                }
            }
        }
    }

    #[test]
    fn what_a_volume_holds_goes_after_its_crown() {
        let steps = |sector| parcel(MIB..9 * MIB, 9 * MIB, "ext4", sector).any_crown();
        let at = |range: Range<u64>| Ranges::one(MIB + range.start..MIB + range.end);
        let labels = Ranges::of([512..1024, 1536..2048].map(|at| MIB + at.start..MIB + at.end));
        let btrfs = at(0x1_0000..0x1_1000);
        assert_eq!(
            steps(512),
            [
                at(0..512),
                at(1024..1536),
                labels,
                at(5120..5632),
                btrfs.clone()
            ]
        );
        let none = Ranges::default;
        assert_eq!(
            steps(4096),
            [at(0..4096), none(), none(), at(4096..8192), btrfs]
        );
    }

    #[test]
    fn the_crown_is_where_the_volume_is_recognised() {
        let crown = |fs, sector| parcel(MIB..9 * MIB, 9 * MIB, fs, sector).crown();
        let at = |range: Range<u64>| Ranges::one(MIB + range.start..MIB + range.end);
        assert_eq!(crown("ext4", 512), at(1024..1536));
        assert_eq!(crown("ext2", 4096), at(0..4096));
        assert_eq!(crown("btrfs", 512), at(0x1_0000..0x1_1000));
        assert_eq!(crown("vfat", 512), at(0..512));
        assert_eq!(crown("", 4096), at(0..4096));
    }
}
