//! The loaders that firmware with Secure Boot starts: a shim signed by Microsoft, and the GRUB it believes.
//!
//! Both come from the distribution whose kernel the appliance has: its shim carries the certificate that GRUB and the
//! kernel are signed with, and nothing else is started. They are only unpacked here, never installed: the packages
//! would set up the machine that builds.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::package::{PackageError, Unpacked, download, version};

/// What a package has that is needed: its name, and each file by its name in the appliance and in the package.
const PACKAGES: [(&str, &[(&str, &str)]); 2] = [
    (
        "shim-signed",
        &[(SignedLoaders::SHIM, "usr/lib/shim/shimx64.efi.signed")],
    ),
    (
        "grub-efi-amd64-signed",
        &[
            (
                SignedLoaders::GRUB_NET,
                "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
            ),
            (
                SignedLoaders::GRUB_DISK,
                "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
            ),
        ],
    ),
];

/// A package that a loader came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoaderPackage {
    /// Its name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// Its source package.
    pub source: String,
}

/// The signed loaders, by the names they have in an appliance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedLoaders {
    /// Name and content of each.
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
    /// Where they came from.
    pub(crate) packages: Vec<LoaderPackage>,
}

impl SignedLoaders {
    /// What firmware loads first.
    pub const SHIM: &str = "shimx64.efi";
    /// What the shim loads over the network; the name is its choice.
    pub const GRUB_NET: &str = "grubx64.efi";
    /// The GRUB that reads its configuration from the disk it came from.
    pub const GRUB_DISK: &str = "grubx64-disk.efi";

    /// Take the loaders from the packages that apt has; they are kept in `cache`.
    pub(crate) fn download(cache: &Path) -> Result<SignedLoaders, PackageError> {
        let mut loaders = SignedLoaders::default();
        for (name, files) in PACKAGES {
            let version = version(name)?;
            let package = download(cache, name, &version)?;
            loaders.take(&package, name, files)?;
        }
        Ok(loaders)
    }

    fn take(
        &mut self,
        package: &Path,
        name: &str,
        files: &[(&'static str, &str)],
    ) -> Result<(), PackageError> {
        let unpacked = Unpacked::open(package)?;
        for (loader, path) in files {
            let path: PathBuf = unpacked.root().join(path);
            let content = fs::read(&path).map_err(|source| PackageError::File { path, source })?;
            self.files.push((loader, content));
        }
        let source = unpacked.field("Source")?;
        self.packages.push(LoaderPackage {
            package: name.to_owned(),
            version: unpacked.field("Version")?,
            source: if source.is_empty() {
                name.to_owned()
            } else {
                source
            },
        });
        Ok(())
    }
}
