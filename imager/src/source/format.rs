//! What a source is: its first bytes decide, never its name.

use crate::source::unpack::Packing;
use crate::source::{ova, partclone, qcow2, vhd, vhdx, vmdk};

/// Bytes from the start of a source that tell its format.
pub(super) const HEAD_BYTES: usize = 512;

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Raw,
    Packed(Packing),
    Qcow2,
    Partclone,
    Vmdk,
    VmdkDescriptor,
    Vhdx,
    Vhd,
    Tar,
    Other(&'static str),
}

impl Format {
    /// What begins with `head`.
    pub(super) fn of(head: &[u8]) -> Format {
        const OTHERS: [(usize, &[u8], &str); 12] = [
            (0, &[0x04, 0x22, 0x4d, 0x18], "an lz4 file"),
            (0, b"\x89LZO\0", "an lzop file"),
            (0, b"LZIP\x01", "an lzip file"),
            (0, b"LRZI", "an lrzip file"),
            (0, b"PK\x03\x04", "a zip file"),
            (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip file"),
            (0, b"QED\0", "a QED image"),
            (0, b"COWD", "a snapshot of an ESX machine (COWD)"),
            (0, b"\0ntfsclone-image", "an ntfsclone image"),
            (0, b"PaRtImAgE-VoLuMe", "a partimage image"),
            (0, b"MSWIM\0\0\0", "a Windows image (WIM)"),
            (64, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image"),
        ];
        const KNOWN: [(usize, &[u8], Format); 7] = [
            (0, qcow2::MAGIC, Format::Qcow2),
            (0, partclone::MAGIC, Format::Partclone),
            (0, vmdk::MAGIC, Format::Vmdk),
            (0, vmdk::DESCRIPTOR_MAGIC, Format::VmdkDescriptor),
            (0, vhdx::MAGIC, Format::Vhdx),
            (0, vhd::MAGIC, Format::Vhd),
            (ova::MAGIC_AT, ova::MAGIC, Format::Tar),
        ];
        if let Some(packing) = Packing::of(head) {
            return Format::Packed(packing);
        }
        let is =
            |at: usize, magic: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(magic));
        let known = KNOWN.iter().find(|(at, magic, _)| is(*at, magic));
        let other = OTHERS.iter().find(|(at, magic, _)| is(*at, magic));
        match (known, other) {
            (Some(&(.., format)), _) => format,
            (None, Some(&(.., name))) => Format::Other(name),
            (None, None) => Format::Raw,
        }
    }

    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw disk",
            Format::Packed(packing) => packing.name(),
            Format::Qcow2 => "qcow2 image",
            Format::Partclone => "partclone image",
            Format::Vmdk | Format::VmdkDescriptor => "VMDK image",
            Format::Vhdx => "VHDX image",
            Format::Vhd => "VHD image",
            Format::Tar => "OVA file",
            Format::Other(name) => name,
        }
    }
}
