//! Facts about the partitions of a disk, for people and for pre-flight checks.

use serde::{Deserialize, Serialize};

use crate::bytes::{Malformed, Reader, Writer};

/// Longest text of a fact, bytes of UTF-8.
const TEXT_MAX: usize = 256;
/// Smallest encoding of a partition: the fixed fields and five empty texts.
const ENCODED_MIN: usize = 4 + 3 * 8 + 1 + 5 * 2;

const BOOT_BIOS: u8 = 1;
const BOOT_UEFI: u8 = 2;
const LEFT_OUT: u8 = 4;

/// How firmware may start a disk, or one partition of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootModes {
    /// There is boot code for BIOS firmware.
    pub bios: bool,
    /// There is an EFI system partition.
    pub uefi: bool,
}

impl BootModes {
    /// The modes of either.
    pub fn union(self, other: BootModes) -> BootModes {
        BootModes {
            bios: self.bios || other.bios,
            uefi: self.uefi || other.uefi,
        }
    }
}

/// One partition, or the whole disk as number 0 when a file system lies on it without a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The number the Linux kernel gives it; 0 is the whole disk.
    pub number: u32,
    /// Where it begins on the raw disk, bytes.
    pub start_bytes: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// How much of it is allocated, bytes; all of it when its file system is not understood.
    pub used_bytes: u64,
    /// Type in its table: a GUID for GPT, `0x83` and the like for MBR, empty without a table.
    #[serde(rename = "type")]
    pub kind: String,
    /// File system, in the words of `blkid`; empty when unknown.
    pub fs: String,
    /// Label of the file system, else the partition's name.
    pub label: String,
    /// UUID of the file system, empty when unknown.
    pub uuid: String,
    /// Operating system found on it, when that could be told.
    pub os: Option<String>,
    /// What firmware may start from it.
    pub boot: BootModes,
    /// Whether its content was left out on request when the image was made.
    #[serde(default)]
    pub left_out: bool,
}

impl Partition {
    /// Where it ends on the raw disk, bytes.
    pub fn end_bytes(&self) -> u64 {
        self.start_bytes.saturating_add(self.bytes)
    }

    fn write(&self, writer: &mut Writer) {
        let flags = u8::from(self.boot.bios) * BOOT_BIOS
            + u8::from(self.boot.uefi) * BOOT_UEFI
            + u8::from(self.left_out) * LEFT_OUT;
        writer
            .u32(self.number)
            .u64(self.start_bytes)
            .u64(self.bytes)
            .u64(self.used_bytes)
            .u8(flags);
        let os = self.os.as_deref().unwrap_or_default();
        for text in [&self.kind, &self.fs, &self.label, &self.uuid, os] {
            writer.text(text, TEXT_MAX);
        }
    }

    fn read(reader: &mut Reader<'_>, raw_bytes: u64) -> Result<Partition, Malformed> {
        let number = reader.u32("partition number")?;
        let start_bytes = reader.u64("partition start")?;
        let bytes = reader.u64("partition size")?;
        let used_bytes = reader.u64("used bytes of a partition")?;
        if start_bytes
            .checked_add(bytes)
            .is_none_or(|end| end > raw_bytes)
            || used_bytes > bytes
        {
            return Err(reader.refuse(24, format!("partition {number} does not fit the disk")));
        }
        let flags = reader.u8("flags of a partition")?;
        if flags & !(BOOT_BIOS | BOOT_UEFI | LEFT_OUT) != 0 {
            return Err(reader.refuse(1, format!("unknown flags {flags:#x} of a partition")));
        }
        let mut text = |what| reader.text(TEXT_MAX, what);
        Ok(Partition {
            number,
            start_bytes,
            bytes,
            used_bytes,
            boot: BootModes {
                bios: flags & BOOT_BIOS != 0,
                uefi: flags & BOOT_UEFI != 0,
            },
            left_out: flags & LEFT_OUT != 0,
            kind: text("partition type")?,
            fs: text("file system")?,
            label: text("label")?,
            uuid: text("uuid")?,
            os: Some(text("operating system")?).filter(|os| !os.is_empty()),
        })
    }
}

pub(crate) fn write_all(partitions: &[Partition], writer: &mut Writer) {
    writer.u32(partitions.len() as u32);
    partitions
        .iter()
        .for_each(|partition| partition.write(writer));
}

pub(crate) fn read_all(
    reader: &mut Reader<'_>,
    raw_bytes: u64,
) -> Result<Vec<Partition>, Malformed> {
    let count = reader.u32("number of partitions")? as usize;
    if count > reader.left() / ENCODED_MIN {
        return Err(reader.refuse(4, format!("{count} partitions in {} bytes", reader.left())));
    }
    (0..count)
        .map(|_| Partition::read(reader, raw_bytes))
        .collect()
}
