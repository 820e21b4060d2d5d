//! Putting one module file into the kernel: plain, `.xz` or `.zst`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};

/// The largest module we unpack; the biggest drivers are a tenth of this.
const MODULE_BYTES_MAX: u64 = 64 << 20;

/// Why a module is not in the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("reading module {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("module {path} is larger than {MODULE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("the kernel refused module {path}: {source}")]
    Refused { path: PathBuf, source: Errno },
}

/// Loads one file; a module that is already there is as good as loaded.
///
/// # Errors
/// When the file cannot be read or unpacked, or the kernel does not take it (`ENODEV`, wrong
/// version, missing symbol).
pub(crate) fn load(path: &Path) -> Result<(), LoadError> {
    let read = |source| LoadError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let outcome = match path.extension().and_then(OsStr::to_str) {
        Some("xz") => {
            let image = unpack(path, lzma_rust2::XzReader::new(file, true))?;
            init_module(&image, c"")
        }
        Some("zst") => {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(read)?;
            init_module(&unpack(path, decoder)?, c"")
        }
        _ => finit_module(&file, c"", ModuleInitFlags::empty()),
    };
    match outcome {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(source) => Err(LoadError::Refused {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Unpacks into memory, never more than the bound.
fn unpack(path: &Path, reader: impl Read) -> Result<Vec<u8>, LoadError> {
    let mut image = Vec::new();
    reader
        .take(MODULE_BYTES_MAX + 1)
        .read_to_end(&mut image)
        .map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
    if image.len() as u64 > MODULE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_at_the_bound() {
        let result = unpack(Path::new("bomb.ko"), io::repeat(0));
        assert!(matches!(result, Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn a_zst_module_unpacks_to_what_was_packed() {
        let packed = zstd::encode_all(&b"module"[..], 3).unwrap();
        let decoder = zstd::stream::read::Decoder::new(&packed[..]).unwrap();
        assert_eq!(unpack(Path::new("a.ko.zst"), decoder).unwrap(), b"module");
    }

    #[test]
    fn a_broken_xz_module_is_an_error_with_its_name() {
        let broken = lzma_rust2::XzReader::new(&b"\xfd7zXZ\0garbage"[..], true);
        let error = unpack(Path::new("a.ko.xz"), broken).unwrap_err();
        assert!(error.to_string().contains("a.ko.xz"));
    }
}
