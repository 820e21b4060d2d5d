//! What a partclone file says of itself.

use crate::read_at::Fields;
use crate::source::fault::Fault;
use crate::source::partclone::checksum::{ChecksumKind, CrcState};
use crate::source::partclone::{Input, MAGIC};

/// Bytes of a header of format 0002, its checksum included.
const HEADER_BYTES: usize = 110;
/// Bytes of a header of format 0001: 64 that say something, 4096 for options it never had.
const OLD_HEADER_BYTES: usize = 4160;
/// Smallest block, that of a raw copy.
const BLOCK_BYTES_MIN: u32 = 512;
/// Largest block: NTFS has clusters of up to 2 MiB.
const BLOCK_BYTES_MAX: u32 = 16 << 20;
/// How a little-endian writer marks its files.
const LITTLE_ENDIAN: u16 = 0xc0de;

/// How the image says which blocks it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    /// It has all.
    Whole,
    /// A bit for each.
    Bits,
    /// A byte for each.
    Bytes,
}

/// The header, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) device_bytes: u64,
    pub(super) blocks: u64,
    pub(super) block_bytes: u32,
    pub(super) map: Map,
    pub(super) checksum: ChecksumKind,
    /// 0: there are no checksums.
    pub(super) blocks_per_strip: u32,
    /// Whether a checksum covers its own strip only, not all before it.
    pub(super) reseed: bool,
    /// Whether four stray bytes may follow each checksum.
    pub(super) may_stray: bool,
}

impl Header {
    pub(super) fn read(input: &mut Input) -> Result<Header, Fault> {
        let bytes: [u8; HEADER_BYTES] = input.array()?;
        let fields = Fields(&bytes);
        if fields.bytes(0, MAGIC.len()) != MAGIC {
            return Err(Fault::at(0, "it is no partclone image"));
        }
        let header = match fields.bytes(30, 4) {
            b"0002" => Header::current(fields)?,
            b"0001" => {
                let mut rest = [0; OLD_HEADER_BYTES - HEADER_BYTES];
                input.fill(&mut rest)?;
                Header::old(fields)
            }
            other => {
                let version = String::from_utf8_lossy(other).into_owned();
                let version = version.escape_default();
                return Err(Fault::at(30, format!("format {version} is not known")));
            }
        };
        header.check()
    }

    fn current(fields: Fields) -> Result<Header, Fault> {
        let mut crc = CrcState::default();
        crc.update(fields.bytes(0, HEADER_BYTES - 4));
        if fields.u16(34) != LITTLE_ENDIAN {
            return Err(Fault::refuse(
                "it was made on a big-endian machine, whose images partclone reads on such only",
            ));
        }
        if crc.value() != fields.u32(106) {
            return Err(Fault::at(106, "the checksum of its header is wrong"));
        }
        let checksum = ChecksumKind::of(fields.u16(96))
            .ok_or_else(|| Fault::at(96, format!("checksum {} is not known", fields.u16(96))))?;
        if usize::from(fields.u16(98)) != checksum.bytes() {
            return Err(Fault::at(98, "its checksums have an odd size"));
        }
        let blocks_per_strip = fields.u32(100);
        if (checksum == ChecksumKind::None) != (blocks_per_strip == 0) {
            return Err(Fault::at(100, "checksums of no blocks, or blocks of none"));
        }
        let map = match fields.bytes(105, 1) {
            [0] => Map::Whole,
            [1] => Map::Bits,
            _ => return Err(Fault::at(105, "a kind of block map that is not known")),
        };
        Ok(Header {
            device_bytes: fields.u64(52),
            blocks: fields.u64(60),
            block_bytes: fields.u32(84),
            map,
            checksum,
            blocks_per_strip,
            reseed: fields.bytes(104, 1) != [0],
            may_stray: false,
        })
    }

    fn old(fields: Fields) -> Header {
        Header {
            device_bytes: fields.u64(40),
            blocks: fields.u64(48),
            block_bytes: fields.u32(36),
            map: Map::Bytes,
            checksum: ChecksumKind::FirstByte,
            blocks_per_strip: 1,
            reseed: false,
            may_stray: true,
        }
    }

    fn check(mut self) -> Result<Header, Fault> {
        let bytes = self.block_bytes;
        if !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes) {
            return Err(Fault::at(84, format!("blocks of {bytes} bytes")));
        }
        let blocks_bytes = self.blocks.checked_mul(u64::from(self.block_bytes));
        let Some(bytes) = blocks_bytes.filter(|&bytes| bytes > 0) else {
            return Err(Fault::at(60, "a file system of no size"));
        };
        self.device_bytes = self.device_bytes.max(bytes);
        Ok(self)
    }
}
