//! Which blocks of an ext2, ext3 or ext4 file system are free.
//!
//! Only what is proved counts: a clean file system, with features whose meaning for the block
//! bitmaps is known, whose checksums hold, and whose every bitmap has exactly as many free blocks
//! as its group descriptor says. Anything else is a reason to take the whole partition as used.
//! The contents of swap files in its root directory are left out too.
//!
//! Layout: <https://docs.kernel.org/filesystems/ext4/>.

use crate::read_at::{Fields, ReadAt, read_array};
use crate::scan::checksum::crc32c;
use crate::scan::fs::{self, Facts};
use crate::scan::volume::{Free, Obstacle};

mod groups;
mod inode;
mod swap_file;

const SUPERBLOCK_AT: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const MAGIC: u16 = 0xef53;

const STATE_CLEAN: u16 = 1;
const STATE_ERRORS: u16 = 2;

const COMPAT_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
// filetype, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data,
// encrypt, casefold: none of them changes what a block bitmap says.
const INCOMPAT_KNOWN: u32 = 0x2
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
// sparse_super, large_file, btree_dir, huge_file, gdt_csum, dir_nlink, extra_isize, quota,
// metadata_csum, read-only, project, verity. Not bigalloc: its bitmaps count clusters.
const RO_COMPAT_KNOWN: u32 =
    0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x400 | 0x1000 | 0x2000 | 0x8000;

const BLOCK_LOG_MAX: u32 = 6;
const BLOCKS_PER_GROUP_MIN: u32 = 256;

/// Version, label and UUID, from the head of a volume.
pub(super) fn facts(head: Fields<'_>) -> Facts {
    let raw = head.bytes(SUPERBLOCK_AT as usize, SUPERBLOCK_BYTES);
    let superblock = Superblock {
        raw: raw.try_into().unwrap_or([0; SUPERBLOCK_BYTES]),
    };
    let fields = superblock.fields();
    fs::facts(
        superblock.version(),
        fields.text(0x78, 16),
        fields.uuid(0x68),
    )
}

/// The free blocks of an ext file system.
pub(super) fn free(volume: &dyn ReadAt) -> Result<Free, Obstacle> {
    let superblock = read_array::<SUPERBLOCK_BYTES>(volume, SUPERBLOCK_AT)?
        .map(|raw| Superblock { raw })
        .filter(|found| found.fields().u16(0x38) == MAGIC)
        .ok_or_else(|| Obstacle::unknown("it has no superblock"))?;
    groups::free(volume, &superblock.geometry(volume.raw_bytes())?)
}

struct Superblock {
    raw: [u8; SUPERBLOCK_BYTES],
}

impl Superblock {
    /// `ext2`, `ext3` or `ext4`, told apart as `blkid` does: by features.
    fn version(&self) -> &'static str {
        let ext3_incompat = 0x2 | INCOMPAT_RECOVER | INCOMPAT_META_BG;
        let ext3_ro_compat = 0x1 | 0x2 | 0x4;
        if self.incompat() & !ext3_incompat != 0 || self.ro_compat() & !ext3_ro_compat != 0 {
            "ext4"
        } else if self.compat() & COMPAT_JOURNAL != 0 {
            "ext3"
        } else {
            "ext2"
        }
    }

    fn fields(&self) -> Fields<'_> {
        Fields(&self.raw)
    }

    fn compat(&self) -> u32 {
        self.fields().u32(0x5c)
    }

    fn incompat(&self) -> u32 {
        self.fields().u32(0x60)
    }

    fn ro_compat(&self) -> u32 {
        self.fields().u32(0x64)
    }

    fn geometry(&self, partition_bytes: u64) -> Result<Geometry, Obstacle> {
        let fields = self.fields();
        let (incompat, ro_compat) = (self.incompat(), self.ro_compat());
        if incompat & INCOMPAT_RECOVER != 0 {
            return Err(Obstacle::unsafe_until(
                "unmount it, or mount and unmount it once",
                "its journal was not replayed: it is mounted or was not shut down cleanly",
            ));
        }
        if fields.u16(0x3a) & (STATE_CLEAN | STATE_ERRORS) != STATE_CLEAN {
            return Err(Obstacle::unsafe_until(
                "unmount it and run `e2fsck -f` on it",
                "it is mounted, was not unmounted cleanly, or has errors",
            ));
        }
        let unknown = (incompat & !INCOMPAT_KNOWN, ro_compat & !RO_COMPAT_KNOWN);
        if unknown != (0, 0) {
            return Err(Obstacle::Unknown(format!(
                "it has unknown features (incompat {:#x}, ro_compat {:#x})",
                unknown.0, unknown.1
            )));
        }
        let checksums = match ro_compat & (RO_COMPAT_METADATA_CSUM | RO_COMPAT_GDT_CSUM) {
            0 => Checksums::None,
            RO_COMPAT_GDT_CSUM => Checksums::Crc16 {
                uuid: fields.bytes(0x68, 16).to_vec(),
            },
            RO_COMPAT_METADATA_CSUM => {
                if crc32c(!0, &self.raw[..0x3fc]) != fields.u32(0x3fc) {
                    return Err(Obstacle::unknown("the checksum of its superblock is wrong"));
                }
                let stored_seed = incompat & INCOMPAT_CSUM_SEED != 0;
                let seed = if stored_seed {
                    fields.u32(0x270)
                } else {
                    crc32c(!0, fields.bytes(0x68, 16))
                };
                Checksums::Crc32c { seed }
            }
            _ => return Err(Obstacle::unknown("it has two kinds of checksums at once")),
        };
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = |at| {
            if wide {
                u64::from(fields.u32(at)) << 32
            } else {
                0
            }
        };
        let block_log = fields.u32(0x18);
        let descriptor_bytes = if wide {
            usize::from(fields.u16(0xfe))
        } else {
            32
        };
        let geometry = Geometry {
            block_bytes: 1024 << block_log.min(BLOCK_LOG_MAX),
            blocks: u64::from(fields.u32(0x04)) | high(0x150),
            free_blocks: u64::from(fields.u32(0x0c)) | high(0x158),
            first_block: u64::from(fields.u32(0x14)),
            blocks_per_group: fields.u32(0x20),
            inodes_per_group: fields.u32(0x28),
            inode_bytes: if fields.u32(0x4c) == 0 {
                128
            } else {
                u32::from(fields.u16(0x58))
            },
            descriptor_bytes,
            reserved_descriptor_blocks: u64::from(fields.u16(0xce)),
            first_meta_group: (incompat & INCOMPAT_META_BG != 0)
                .then(|| u64::from(fields.u32(0x104))),
            backups: if self.compat() & COMPAT_SPARSE_SUPER2 != 0 {
                Backups::Two([u64::from(fields.u32(0x24c)), u64::from(fields.u32(0x250))])
            } else if ro_compat & RO_COMPAT_SPARSE_SUPER != 0 {
                Backups::Powers
            } else {
                Backups::Every
            },
            checksums,
        };
        let sane = block_log <= BLOCK_LOG_MAX
            && (32..=1024).contains(&descriptor_bytes)
            && descriptor_bytes.is_power_of_two()
            && (!wide || descriptor_bytes >= 64)
            && (128..=geometry.block_bytes as u32).contains(&geometry.inode_bytes)
            && (BLOCKS_PER_GROUP_MIN..=8 * geometry.block_bytes as u32)
                .contains(&geometry.blocks_per_group)
            && geometry.blocks_per_group.is_multiple_of(8)
            && (1..=8 * geometry.block_bytes as u32).contains(&geometry.inodes_per_group)
            && geometry.first_block == u64::from(block_log == 0)
            && geometry.first_block < geometry.blocks
            && geometry
                .blocks
                .checked_mul(geometry.block_bytes)
                .is_some_and(|bytes| bytes <= partition_bytes);
        sane.then_some(geometry)
            .ok_or_else(|| Obstacle::unknown("its superblock contradicts itself or the partition"))
    }
}

/// What of the superblock the group descriptors need; every value is in its valid range.
struct Geometry {
    block_bytes: u64,
    blocks: u64,
    free_blocks: u64,
    first_block: u64,
    blocks_per_group: u32,
    inodes_per_group: u32,
    inode_bytes: u32,
    descriptor_bytes: usize,
    reserved_descriptor_blocks: u64,
    first_meta_group: Option<u64>,
    backups: Backups,
    checksums: Checksums,
}

/// Which groups hold a copy of the superblock besides group 0.
enum Backups {
    Every,
    Powers,
    Two([u64; 2]),
}

enum Checksums {
    None,
    Crc16 { uuid: Vec<u8> },
    Crc32c { seed: u32 },
}
