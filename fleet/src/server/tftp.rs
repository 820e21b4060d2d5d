//! What TFTP serves: boot loaders, in a directory of the server's own.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use tempfile::NamedTempFile;

use super::tftpd;
use crate::data_dir::DataDir;

/// iPXE binaries by name, and where distributions put them.
pub(super) const LOADERS: [(&str, &[&str]); 4] = [
    ("undionly.kpxe", &["/usr/lib/ipxe/undionly.kpxe"]),
    ("ipxe.pxe", &["/usr/lib/ipxe/ipxe.pxe"]),
    (
        "snponly.efi",
        &[
            "/usr/lib/ipxe/snponly.efi",
            "/usr/lib/ipxe/snponly-x86_64.efi",
        ],
    ),
    (
        "ipxe.efi",
        &[
            "/usr/lib/ipxe/ipxe.efi",
            "/boot/ipxe.efi",
            "/usr/lib/ipxe/ipxe-x86_64.efi",
        ],
    ),
];

/// The directory that TFTP serves.
pub(super) fn root(dir: &DataDir) -> PathBuf {
    dir.path("tftp")
}

/// Make the directory that TFTP serves, and put into it what is installed; `needed` must be there in the end.
pub(super) fn prepare_root(dir: &DataDir, needed: [&String; 2]) -> anyhow::Result<()> {
    let root = &root(dir);
    fs::create_dir_all(root).with_context(|| format!("making {}", root.display()))?;
    for (name, sources) in LOADERS {
        let place = root.join(name);
        let source = sources.iter().map(PathBuf::from).find(|path| path.exists());
        match source {
            // The operator's own build is left alone.
            _ if place.exists() => {}
            Some(source) => {
                // Whole or not at all: what is there is never written again.
                let copying = || format!("copying {}", source.display());
                let copy = NamedTempFile::new_in(root).with_context(copying)?;
                fs::copy(&source, copy.path()).with_context(copying)?;
                copy.as_file().sync_all().with_context(copying)?;
                copy.persist(&place).with_context(copying)?;
            }
            None if needed.iter().any(|needed| *needed == name) => {
                anyhow::bail!(
                    "{name} is missing: install the package ipxe, or put one into {}",
                    root.display()
                );
            }
            None => {}
        }
    }
    for name in needed.into_iter().filter(|name| !tftpd::is_signed(name)) {
        anyhow::ensure!(
            root.join(name).exists(),
            "{} is not in {}",
            name,
            root.display()
        );
    }
    Ok(())
}
