//! Kernel modules as distributions pack them: plain, `.xz` (Debian 13) or `.zst` (Ubuntu, Arch).

use std::io::{self, Read};

use thiserror::Error;

/// The largest module unpacked, in bytes; the biggest graphics driver is a third of it.
const MODULE_BYTES_MAX: u64 = 64 << 20;

/// Why a module cannot be unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// The compressed data is damaged.
    #[error("compressed data is damaged")]
    Damaged(#[source] io::Error),
    /// It unpacks to more than any module has.
    #[error("it unpacks to more than {MODULE_BYTES_MAX} bytes")]
    TooLarge,
    /// The compression is none of those known here.
    #[error("{0:?} is packed in a way not known here; .ko, .ko.xz and .ko.zst are")]
    Unknown(String),
}

/// The module itself. `name` tells by its ending how it is packed.
pub(crate) fn unpack(name: &str, packed: Vec<u8>) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = Vec::new();
    let damaged = UnpackError::Damaged;
    match name.rsplit('.').next() {
        Some("ko") => return Ok(packed),
        Some("xz") => lzma_rust2::XzReader::new(&packed[..], true)
            .take(MODULE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(damaged)?,
        Some("zst") => zstd::stream::read::Decoder::new(&packed[..])
            .map_err(damaged)?
            .take(MODULE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(damaged)?,
        _ => return Err(UnpackError::Unknown(name.to_owned())),
    };
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        Err(UnpackError::TooLarge)
    } else {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packing_gives_the_module_back() {
        let module = b"module ".repeat(99);
        assert_eq!(unpack("a.ko", module.clone()).unwrap(), module);
        let zst = zstd::encode_all(&module[..], 3).unwrap();
        assert_eq!(unpack("a.ko.zst", zst).unwrap(), module);
        // printf module | xz --check=crc32
        let xz = b"\xfd\x37\x7a\x58\x5a\x00\x00\x01\x69\x22\xde\x36\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x05\x6d\x6f\x64\x75\x6c\x65\x00\
            \x00\x00\x28\x26\x24\x0c\x00\x01\x1a\x06\xc5\xea\xc8\x79\x90\x42\x99\x0d\x01\x00\x00\x00\x00\x01\x59\x5a";
        assert_eq!(unpack("a.ko.xz", xz.to_vec()).unwrap(), b"module");
    }

    #[test]
    fn damage_and_bombs_are_errors() {
        assert!(matches!(
            unpack("a.ko.xz", b"\xfd7zXZ\0garbage".to_vec()),
            Err(UnpackError::Damaged(_))
        ));
        assert!(matches!(
            unpack("a.ko.zst", b"garbage".to_vec()),
            Err(UnpackError::Damaged(_))
        ));
        assert!(matches!(
            unpack("a.ko.br", Vec::new()),
            Err(UnpackError::Unknown(_))
        ));
        let bomb = zstd::encode_all(io::repeat(0).take(MODULE_BYTES_MAX + 1), 1).unwrap();
        assert!(matches!(
            unpack("a.ko.zst", bomb),
            Err(UnpackError::TooLarge)
        ));
    }
}
