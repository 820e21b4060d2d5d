//! Which clusters of an exFAT volume are free.
//!
//! The allocation bitmap says it. It is a file that an entry of the root directory points to; both
//! are found through the FAT, and both must be taken in the bitmap themselves.
//!
//! Layout: Microsoft's "exFAT file system specification", revision 1.00.

use std::ops::Range;

use crate::read_at::{Fields, ReadAt, read_array};
use crate::scan::bitmap::Bitmap;
use crate::scan::volume::{Free, Obstacle};

const BOOT_SECTORS: u64 = 11;
/// Volume flags and percentage in use change without a new checksum (section 3.4).
const NOT_SUMMED: [usize; 3] = [106, 107, 112];

const FLAG_SECOND_FAT: u16 = 1;
const FLAG_DIRTY: u16 = 2;

const FIRST_CLUSTER: u32 = 2;
const CLUSTERS_MAX: u32 = 0xffff_fff5;
const END_OF_CHAIN: u32 = 0xffff_ffff;
/// Most clusters of the files that are looked at: a bitmap of 512 MiB in clusters of 512 bytes.
const CHAIN_MAX: u64 = 1 << 20;
/// Most of the root directory looked at, bytes; the entries wanted are among its first.
const ROOT_BYTES_MAX: u64 = 4 << 20;

const ENTRY_BYTES: usize = 32;
const ENTRY_END: u8 = 0;
const ENTRY_BITMAP: u8 = 0x81;
const ENTRY_UPCASE: u8 = 0x82;
const ENTRY_LABEL: u8 = 0x83;

/// What the boot sector says; every value is in its valid range.
struct Volume<'a> {
    view: &'a dyn ReadAt,
    cluster_bytes: u64,
    clusters: u32,
    /// Where the FAT begins, bytes.
    table: u64,
    volume_bytes: u64,
    /// Where cluster 2 begins, bytes.
    heap: u64,
    root: u32,
}

/// What the root directory says of the volume.
#[derive(Default)]
struct Root {
    clusters: Vec<u32>,
    bitmaps: Vec<File>,
    upcase: Option<File>,
    label: Option<String>,
}

#[derive(Clone, Copy)]
struct File {
    first: u32,
    bytes: u64,
}

/// The free clusters of an exFAT volume.
pub(super) fn free(view: &dyn ReadAt) -> Result<Free, Obstacle> {
    let volume = Volume::open(view)?;
    let root = volume.read_root()?;
    let (&[bitmap], Some(upcase)) = (&root.bitmaps[..], root.upcase) else {
        return Err(Obstacle::unknown("its root directory is damaged"));
    };
    if bitmap.bytes != u64::from(volume.clusters).div_ceil(8) {
        return Err(Obstacle::unknown("its bitmap has the wrong size"));
    }
    let bitmap_clusters = volume.chain(bitmap.first, bitmap.bytes)?;
    let upcase_clusters = volume.chain(upcase.first, upcase.bytes)?;

    let map = Bitmap::new(u64::from(volume.clusters), |at, buffer: &mut [u8]| {
        volume.read(&bitmap_clusters, at, buffer)
    });
    for &cluster in root
        .clusters
        .iter()
        .chain(&bitmap_clusters)
        .chain(&upcase_clusters)
    {
        let bit = u64::from(cluster - FIRST_CLUSTER);
        if !map.all_set(&(bit..bit + 1))? {
            return Err(Obstacle::unknown("its bitmap calls its own tables free"));
        }
    }
    let mut free = Free::default();
    free.label = root.label;
    let bytes = |bits: Range<u64>| {
        volume.heap + bits.start * volume.cluster_bytes
            ..volume.heap + bits.end * volume.cluster_bytes
    };
    map.clear(&mut |bits| free.push(bytes(bits)))?;
    // Excess space, whose content the specification leaves undefined (table 1).
    let heap_end = bytes(0..u64::from(volume.clusters)).end;
    free.push(heap_end..volume.volume_bytes);
    Ok(free)
}

impl<'a> Volume<'a> {
    fn open(view: &'a dyn ReadAt) -> Result<Volume<'a>, Obstacle> {
        let boot = read_array::<512>(view, 0)?.unwrap_or([0; 512]);
        let fields = Fields(&boot);
        let volume = Volume::parse(view, fields).ok_or_else(|| {
            Obstacle::unknown("its boot sector contradicts itself or the partition")
        })?;
        if !boot_sum_is_right(view, 1 << fields.u8(108))? {
            return Err(Obstacle::unknown(
                "the checksum of its boot sectors is wrong",
            ));
        }
        let flags = fields.u16(106);
        if fields.u8(110) != 1 || flags & FLAG_SECOND_FAT != 0 {
            return Err(Obstacle::unknown("it keeps a second FAT (TexFAT)"));
        }
        if flags & FLAG_DIRTY != 0 {
            return Err(Obstacle::unsafe_until(
                "unmount it, or run `fsck.exfat` or `chkdsk /f` on it",
                "it is mounted or was not unmounted cleanly",
            ));
        }
        Ok(volume)
    }

    fn parse(view: &'a dyn ReadAt, fields: Fields<'_>) -> Option<Volume<'a>> {
        let (sector_shift, cluster_shift) = (fields.u8(108), fields.u8(109));
        if !(9..=12).contains(&sector_shift) || cluster_shift > 25 - sector_shift {
            return None;
        }
        let bytes = |sectors: u64| sectors.checked_mul(1 << sector_shift);
        let volume_bytes = bytes(fields.u64(72))?;
        let boot_end = bytes(2 * (BOOT_SECTORS + 1))?;
        let table = bytes(fields.u32(80).into())?;
        let table = table..table.checked_add(bytes(fields.u32(84).into())?)?;
        let heap = bytes(fields.u32(88).into())?;
        let (clusters, root) = (fields.u32(92), fields.u32(96));
        let cluster_bytes = 1u64 << (sector_shift + cluster_shift);
        let sane = fields.u16(510) == 0xaa55
            && fields.bytes(11, 53).iter().all(|&byte| byte == 0)
            && fields.u16(104) >> 8 == 1
            && volume_bytes <= view.raw_bytes()
            && (1..=CLUSTERS_MAX).contains(&clusters)
            && table.start >= boot_end
            && table.end - table.start >= (u64::from(clusters) + u64::from(FIRST_CLUSTER)) * 4
            && table.end <= heap
            && heap.checked_add(u64::from(clusters).checked_mul(cluster_bytes)?)? <= volume_bytes
            && root >= FIRST_CLUSTER
            && root - FIRST_CLUSTER < clusters;
        sane.then_some(Volume {
            view,
            cluster_bytes,
            clusters,
            table: table.start,
            volume_bytes,
            heap,
            root,
        })
    }

    /// The cluster after `cluster` in its chain; none at the end.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Obstacle> {
        let mut entry = [0; 4];
        self.view
            .read_exact_at(self.table + u64::from(cluster) * 4, &mut entry)?;
        match u32::from_le_bytes(entry) {
            END_OF_CHAIN => Ok(None),
            next if self.has(next) => Ok(Some(next)),
            _ => Err(Obstacle::unknown("a chain of its FAT leads nowhere")),
        }
    }

    fn has(&self, cluster: u32) -> bool {
        cluster >= FIRST_CLUSTER && cluster - FIRST_CLUSTER < self.clusters
    }

    /// Most clusters of a chain: one that goes round in circles ends here.
    fn chain_max(&self) -> u64 {
        CHAIN_MAX.min(self.clusters.into())
    }

    /// The clusters of a file of `bytes`, whose chain must be as long as that.
    fn chain(&self, first: u32, bytes: u64) -> Result<Vec<u32>, Obstacle> {
        let count = bytes.div_ceil(self.cluster_bytes);
        if bytes == 0 || !self.has(first) || count > self.chain_max() {
            return Err(Obstacle::unknown("its root directory is damaged"));
        }
        let mut clusters = vec![first];
        let mut last = first;
        while let Some(next) = self.next(last)? {
            if clusters.len() as u64 == count {
                return Err(Obstacle::unknown("a chain of its FAT is too long"));
            }
            clusters.push(next);
            last = next;
        }
        if clusters.len() as u64 != count {
            return Err(Obstacle::unknown("a chain of its FAT is too short"));
        }
        Ok(clusters)
    }

    /// Fills `buffer` from `offset` of the file that lies in `clusters`.
    fn read(&self, clusters: &[u32], offset: u64, buffer: &mut [u8]) -> Result<(), Obstacle> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let cluster = clusters
                .get((at / self.cluster_bytes) as usize)
                .ok_or_else(|| Obstacle::unknown("a chain of its FAT is too short"))?;
            let inside = at % self.cluster_bytes;
            let count = (buffer.len() - done).min((self.cluster_bytes - inside) as usize);
            self.view.read_exact_at(
                self.place(*cluster) + inside,
                &mut buffer[done..done + count],
            )?;
            done += count;
        }
        Ok(())
    }

    fn place(&self, cluster: u32) -> u64 {
        self.heap + u64::from(cluster - FIRST_CLUSTER) * self.cluster_bytes
    }

    fn read_root(&self) -> Result<Root, Obstacle> {
        let mut root = Root::default();
        let mut cluster = self.root;
        let mut content = vec![0; self.cluster_bytes.min(ROOT_BYTES_MAX) as usize];
        let mut looked = 0;
        let mut ended = false;
        // The chain is followed to its end: that much of the directory must be taken.
        loop {
            root.clusters.push(cluster);
            if !ended && looked < ROOT_BYTES_MAX {
                self.view.read_exact_at(self.place(cluster), &mut content)?;
                looked += content.len() as u64;
                ended = root.note(&content);
            }
            match self.next(cluster)? {
                None => return Ok(root),
                Some(_) if root.clusters.len() as u64 == self.chain_max() => {
                    return Err(Obstacle::unknown("its root directory is too large"));
                }
                Some(next) => cluster = next,
            }
        }
    }
}

impl Root {
    /// Takes what the entries of one cluster say; whether the directory ends there.
    fn note(&mut self, content: &[u8]) -> bool {
        for entry in content.chunks_exact(ENTRY_BYTES) {
            let fields = Fields(entry);
            let file = File {
                first: fields.u32(20),
                bytes: fields.u64(24),
            };
            match entry[0] {
                ENTRY_END => return true,
                // A second one is refused, and no third is needed for that.
                ENTRY_BITMAP if self.bitmaps.len() < 2 => self.bitmaps.push(file),
                ENTRY_UPCASE => self.upcase = Some(file),
                ENTRY_LABEL => {
                    let units = (0..usize::from(entry[1].min(11))).map(|n| fields.u16(2 + 2 * n));
                    let label = String::from_utf16_lossy(&units.collect::<Vec<u16>>());
                    self.label = Some(label).filter(|label| !label.is_empty());
                }
                _ => {}
            }
        }
        false
    }
}

/// Whether the sum over the first eleven sectors is the one that fills the twelfth.
fn boot_sum_is_right(view: &dyn ReadAt, sector_bytes: usize) -> Result<bool, Obstacle> {
    let mut boot = vec![0; (BOOT_SECTORS as usize + 1) * sector_bytes];
    view.read_exact_at(0, &mut boot)?;
    let (summed, stored) = boot.split_at(BOOT_SECTORS as usize * sector_bytes);
    let sum = summed
        .iter()
        .enumerate()
        .filter(|(at, _)| !NOT_SUMMED.contains(at))
        .fold(0u32, |sum, (_, &byte)| {
            sum.rotate_right(1).wrapping_add(byte.into())
        });
    Ok(stored.chunks_exact(4).all(|word| word == sum.to_le_bytes()))
}

#[cfg(test)]
mod tests;
