//! A distribution's packages: where they come from, and what is in that of the kernel.
//!
//! Debian's `linux-image-amd64` is empty and depends on the package of the current kernel. That one is downloaded by
//! `apt-get download`, so that apt's own signature checks stand between the archive and the appliance. Nothing is
//! installed, and no root is needed.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use thiserror::Error;

/// The package whose dependency is the kernel of the day.
const META_PACKAGE: &str = "linux-image-amd64";

/// Why there is no kernel.
#[derive(Debug, Error)]
pub enum PackageError {
    /// A program that is needed cannot be started.
    #[error("starting {program}; is it installed?")]
    Start {
        /// Its name.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// The last line of what it said.
        message: String,
    },
    /// apt does not know the kernel package.
    #[error("apt knows no {META_PACKAGE}; run apt-get update, or give a package by --kernel-deb")]
    Unknown,
    /// apt does not know another package.
    #[error("apt knows no package {0}; run apt-get update")]
    Absent(&'static str),
    /// The package holds no kernel, or more than one.
    #[error("{package} holds no kernel of the form boot/vmlinuz-VERSION with lib/modules/VERSION")]
    NoKernel {
        /// The package's file.
        package: PathBuf,
    },
    /// A file or directory cannot be read or made.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An unpacked kernel package. Its files vanish with it.
#[derive(Debug)]
pub(crate) struct KernelPackage {
    /// `Package` and `Version` of the package, and the source package it was built from.
    pub(crate) name: String,
    pub(crate) package_version: String,
    pub(crate) source: String,
    /// What `uname -r` will say.
    pub(crate) version: String,
    pub(crate) vmlinuz: PathBuf,
    /// `lib/modules/VERSION`.
    pub(crate) modules: PathBuf,
    /// The copyright file, if the package has one.
    pub(crate) copyright: Option<PathBuf>,
    _unpacked: Unpacked,
}

/// An unpacked package. Its files vanish with it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    package: PathBuf,
    directory: TempDir,
}

impl Unpacked {
    /// Unpacks a `.deb`.
    pub(crate) fn open(package: &Path) -> Result<Self, PackageError> {
        let directory = tempfile::tempdir().map_err(|source| PackageError::File {
            path: env::temp_dir(),
            source,
        })?;
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--extract").arg(package).arg(directory.path());
        run(&mut dpkg, "dpkg-deb")?;
        Ok(Self {
            package: package.to_owned(),
            directory,
        })
    }

    /// Where its files are.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A field of what it says about itself; empty when it has none of that name.
    pub(crate) fn field(&self, name: &str) -> Result<String, PackageError> {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--field").arg(&self.package).arg(name);
        Ok(run(&mut dpkg, "dpkg-deb")?.trim().to_owned())
    }
}

impl KernelPackage {
    /// Unpacks a `.deb`.
    pub(crate) fn unpack(package: &Path) -> Result<Self, PackageError> {
        let unpacked = Unpacked::open(package)?;
        let name = unpacked.field("Package")?;
        let package_version = unpacked.field("Version")?;
        let source = match unpacked.field("Built-Using")? {
            built_using if !built_using.is_empty() => built_using,
            _ => unpacked.field("Source")?,
        };
        let root = unpacked.root();
        let version = kernel_version(&root.join("boot")).ok_or_else(|| no_kernel(package))?;
        let modules = ["lib/modules", "usr/lib/modules"]
            .iter()
            .map(|place| root.join(place).join(&version))
            .find(|path| path.is_dir())
            .ok_or_else(|| no_kernel(package))?;
        let copyright = Some(root.join("usr/share/doc").join(&name).join("copyright"))
            .filter(|path| path.is_file());
        Ok(Self {
            vmlinuz: root.join("boot").join(format!("vmlinuz-{version}")),
            name,
            package_version,
            source,
            version,
            modules,
            copyright,
            _unpacked: unpacked,
        })
    }
}

/// The package of the host's current kernel series, downloaded into `cache` unless it is there already.
pub(crate) fn download_kernel(cache: &Path) -> Result<PathBuf, PackageError> {
    let record = show(META_PACKAGE)?.ok_or(PackageError::Unknown)?;
    let (name, version) = dependency(&record).ok_or(PackageError::Unknown)?;
    download(cache, name, version)
}

/// The version that apt would install.
pub(crate) fn version(name: &'static str) -> Result<String, PackageError> {
    let record = show(name)?.ok_or(PackageError::Absent(name))?;
    let version = record
        .lines()
        .find_map(|line| line.strip_prefix("Version: "));
    version.map(str::to_owned).ok_or(PackageError::Absent(name))
}

/// What apt knows of a package, if it knows it.
fn show(name: &str) -> Result<Option<String>, PackageError> {
    let mut apt = Command::new("apt-cache");
    match run(apt.args(["show", "--no-all-versions", name]), "apt-cache") {
        Ok(record) => Ok(Some(record)),
        Err(PackageError::Failed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A package, downloaded into `cache` unless it is there already.
pub(crate) fn download(cache: &Path, name: &str, version: &str) -> Result<PathBuf, PackageError> {
    // apt writes the epoch's colon as %3a in file names.
    let file_name = format!("{name}_{}_amd64.deb", version.replace(':', "%3a"));
    let package = cache.join(&file_name);
    if package.is_file() {
        return Ok(package);
    }
    let failed = |source| PackageError::File {
        path: cache.to_owned(),
        source,
    };
    fs::create_dir_all(cache).map_err(failed)?;
    let partial = tempfile::Builder::new()
        .prefix("download-")
        .tempdir_in(cache)
        .map_err(failed)?;
    log::info!("package={name} version={version} state=downloading");
    let mut apt = Command::new("apt-get");
    // As root, apt would hand over to a user who may not write here, and warn about it.
    apt.args(["download", "--quiet=2", "-o", "APT::Sandbox::User=root"])
        .args(["-o", "Acquire::Retries=3"])
        .arg(format!("{name}={version}"));
    run(apt.current_dir(partial.path()), "apt-get")?;
    let downloaded = partial.path().join(&file_name);
    fs::rename(&downloaded, &package).map_err(|source| PackageError::File {
        path: downloaded,
        source,
    })?;
    Ok(package)
}

/// `${XDG_CACHE_HOME:-~/.cache}/netflash/kernel`
pub(crate) fn default_cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let home = || {
        env::var_os("HOME").map_or_else(env::temp_dir, |home| PathBuf::from(home).join(".cache"))
    };
    base.unwrap_or_else(home).join("netflash/kernel")
}

/// From `Depends: linux-image-6.1.0-56-amd64 (= 6.1.192-2)`: name and version.
fn dependency(record: &str) -> Option<(&str, &str)> {
    let depends = record
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "))?;
    depends.split(", ").find_map(|one| {
        let (name, version) = one.split_once(" (= ")?;
        Some((name, version.strip_suffix(')')?))
            .filter(|(name, _)| name.starts_with("linux-image-"))
    })
}

/// The one `vmlinuz-VERSION` of a directory.
fn kernel_version(boot: &Path) -> Option<String> {
    let names = fs::read_dir(boot)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut versions = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned));
    versions.next().filter(|_| versions.next().is_none())
}

fn no_kernel(package: &Path) -> PackageError {
    PackageError::NoKernel {
        package: package.to_owned(),
    }
}

/// What a program wrote on standard output.
pub(crate) fn run(command: &mut Command, program: &'static str) -> Result<String, PackageError> {
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| PackageError::Start { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let message = stderr
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("no reason given");
    Err(PackageError::Failed {
        program,
        message: message.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let record = "Package: linux-image-amd64\nDepends: linux-base, linux-image-6.1.0-56-amd64 (= 6.1.192-2)\nSize: 1\n";
        assert_eq!(
            dependency(record),
            Some(("linux-image-6.1.0-56-amd64", "6.1.192-2"))
        );
        assert_eq!(dependency("Package: linux-image-amd64\n"), None);
        assert_eq!(dependency("Depends: something (= 1)\n"), None);
    }

    #[test]
    fn a_file_that_is_no_package_is_an_error_with_dpkgs_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = KernelPackage::unpack(file.path()).unwrap_err();
        assert!(
            matches!(
                error,
                PackageError::Failed {
                    program: "dpkg-deb",
                    ..
                }
            ),
            "{error}"
        );
    }
}
