//! The builder: package and agent in, an appliance directory out.
//!
//! ```text
//! kernel package ── unpack ──► vmlinuz ─────────────────────────────────► vmlinuz
//!                        └───► modules ── select ──► index ──┐
//! agent ── check: static, x86-64 ────────────────► /init ────┼─ newc ─ zstd ─ pad ──► initramfs.img
//! trust.img (for USB sticks) ────────────────────────────────┴─ appended, as a boot loader would
//! shim, GRUB (signed packages, on demand) ──────────────────────────────────► shimx64.efi, grubx64.efi, …
//! ```
//!
//! The same inputs give the same bytes: no time, no host name, no directory order gets into any file.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ring::digest;
use serde::Serialize;
use thiserror::Error;

use crate::agent::{self, AgentError};
use crate::cpio::{Cpio, CpioError, archive_paths, pad};
use crate::firmware::{self, Firmware, FirmwareError};
use crate::index;
use crate::modules::{ModuleTree, ModulesError, Selection};
use crate::package::{self, KernelPackage, PackageError};
use crate::signed::{LoaderPackage, SignedLoaders};
use crate::third_party;
use crate::wanted::wanted;

/// What one server needs inside an appliance; the other files of a trust image are its own affair.
const TRUST_PATHS: &[&str] = &["netflash/ca.pem", "netflash/server"];

/// What to build from, and where to.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Directory the files are written to; made when it is not there.
    pub out: PathBuf,
    /// The agent: a static x86-64 program.
    pub agent: PathBuf,
    /// A kernel package; without one, the host's apt is asked for Debian's `linux-image-amd64`.
    pub kernel_deb: Option<PathBuf>,
    /// Directory laid out like `/lib/firmware`; without one, no firmware is carried.
    pub firmware: Option<PathBuf>,
    /// A `trust.img` to bake in: the appliance then belongs to one server.
    pub trust: Option<PathBuf>,
    /// Whether to add the loaders that firmware with Secure Boot starts, from the packages that apt has.
    pub secure_boot: bool,
    /// zstd level of the initramfs, 1 to 22.
    pub level: i32,
}

impl BuildOptions {
    /// The zstd level that makes the initramfs small; it takes about 20 seconds.
    pub const LEVEL: i32 = 19;
}

/// What was built. It is also written as `appliance.json`, so it holds nothing that differs from build to build.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Report {
    /// What `uname -r` says in the appliance.
    pub kernel_version: String,
    /// Name of the kernel's package.
    pub kernel_package: String,
    /// Version of the kernel's package.
    pub kernel_package_version: String,
    /// Size of the agent in bytes.
    pub agent_bytes: u64,
    /// Size of the kernel in bytes.
    pub vmlinuz_bytes: u64,
    /// Size of the initramfs in bytes, compressed and padded.
    pub initramfs_bytes: u64,
    /// Whether a server's trust is baked in.
    pub trusted: bool,
    /// Packages of the signed loaders, when they were asked for.
    pub loaders: Vec<LoaderPackage>,
    /// Modules carried, by name.
    pub modules: Vec<String>,
    /// Modules that the kernel does not have.
    pub missing_modules: Vec<String>,
    /// Firmware carried, by path below `lib/firmware`.
    pub firmware: Vec<String>,
    /// Firmware that carried modules may ask for, and that is not there.
    pub missing_firmware: Vec<String>,
}

/// Why no appliance was built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The agent cannot run as `/init`.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// There is no kernel package, or it cannot be unpacked.
    #[error("getting the kernel's package")]
    Package(#[from] PackageError),
    /// The kernel's modules cannot be read.
    #[error("choosing modules")]
    Modules(#[from] ModulesError),
    /// A firmware file cannot be read.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// Something does not fit into the archive.
    #[error("packing the initramfs")]
    Pack(#[from] CpioError),
    /// The file given as trust image is none.
    #[error("{path} is no trust image: {reason}; the server writes one as trust.img")]
    Trust {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{doing} {path}")]
    File {
        /// `reading` or `writing`.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Builds an appliance: `vmlinuz`, `initramfs.img`, `THIRD-PARTY`, `appliance.json` and `SHA256SUMS`.
///
/// Each file appears whole or not at all, `SHA256SUMS` last.
///
/// # Errors
/// When an input is missing or unfit; nothing is written then.
pub fn build(options: &BuildOptions) -> Result<Report, BuildError> {
    let agent = agent::read(&options.agent)?;
    let trust = options.trust.as_deref().map(read_trust).transpose()?;
    let package = match &options.kernel_deb {
        Some(file) => file.clone(),
        None => package::download_kernel(&package::default_cache())?,
    };
    let kernel = KernelPackage::unpack(&package)?;
    let loaders = match options.secure_boot {
        true => SignedLoaders::download(&package::default_cache())?,
        false => SignedLoaders::default(),
    };
    let tree = ModuleTree::open(&kernel.modules)?;
    let selection = tree.select(wanted())?;
    let firmware = firmware::collect(&selection, options.firmware.as_deref())?;
    log::info!(
        "appliance kernel={} modules={} state=packing",
        kernel.version,
        selection.modules.len()
    );

    let archive = pack(
        &agent,
        &kernel.version,
        &selection,
        &tree.builtin_list,
        &firmware,
    )?;
    let mut initramfs = compress(&archive, options.level).map_err(|source| BuildError::File {
        doing: "compressing",
        path: "initramfs.img".into(),
        source,
    })?;
    pad(&mut initramfs);
    initramfs.extend_from_slice(trust.as_deref().unwrap_or_default());
    let vmlinuz = read(&kernel.vmlinuz)?;
    let copyright = kernel
        .copyright
        .as_deref()
        .map(read)
        .transpose()?
        .unwrap_or_default();

    let report = Report {
        kernel_version: kernel.version.clone(),
        kernel_package: kernel.name.clone(),
        kernel_package_version: kernel.package_version.clone(),
        agent_bytes: agent.len() as u64,
        vmlinuz_bytes: vmlinuz.len() as u64,
        initramfs_bytes: initramfs.len() as u64,
        trusted: trust.is_some(),
        loaders: loaders.packages,
        modules: selection.modules.into_keys().collect(),
        missing_modules: selection.missing.into_iter().collect(),
        firmware: firmware.files.into_keys().collect(),
        missing_firmware: firmware.missing.into_iter().collect(),
    };
    let mut json =
        serde_json::to_vec_pretty(&report).expect("strings and numbers always serialize");
    json.push(b'\n');
    let third_party = third_party::render(
        &kernel,
        &String::from_utf8_lossy(&copyright),
        &report.loaders,
        &report.firmware,
    );
    let mut files: Vec<(&str, &[u8])> = vec![
        ("vmlinuz", &vmlinuz),
        ("initramfs.img", &initramfs),
        ("THIRD-PARTY", third_party.as_bytes()),
        ("appliance.json", &json),
    ];
    for (name, content) in &loaders.files {
        files.push((name, content));
    }
    write_all(&options.out, &files)?;
    Ok(report)
}

fn pack(
    agent: &[u8],
    version: &str,
    selection: &Selection,
    builtin_list: &str,
    firmware: &Firmware,
) -> Result<Vec<u8>, CpioError> {
    let mut archive = Cpio::new();
    // The kernel opens it for PID 1's standard streams before anything is mounted.
    archive.character_device("dev/console", 0o600, 5, 1)?;
    archive.file("init", 0o755, agent)?;
    for (name, content) in &firmware.files {
        archive.file(&format!("lib/firmware/{name}"), 0o644, content)?;
    }
    for (name, text) in index::render(selection, builtin_list) {
        archive.file(
            &format!("lib/modules/{version}/{name}"),
            0o644,
            text.as_bytes(),
        )?;
    }
    for module in selection.modules.values() {
        archive.file(
            &format!("lib/modules/{version}/{}", module.path),
            0o644,
            &module.bytes,
        )?;
    }
    Ok(archive.finish())
}

/// One zstd frame with a checksum. Modules are packed plain: together they compress better than each alone.
fn compress(archive: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(archive.len() as u64))?;
    encoder.write_all(archive)?;
    encoder.finish()
}

/// Check that an archive tells an agent whom to believe and where the server is.
///
/// # Errors
/// In words what is wrong with it.
pub fn check_trust(bytes: &[u8]) -> Result<(), String> {
    let paths = archive_paths(bytes).map_err(|error| error.to_string())?;
    let absent = |wanted: &&&str| !paths.iter().any(|path| path == **wanted);
    match TRUST_PATHS.iter().find(absent) {
        Some(absent) => Err(format!("/{absent} is not in the trust image")),
        None => Ok(()),
    }
}

fn read_trust(path: &Path) -> Result<Vec<u8>, BuildError> {
    let refused = |reason: String| BuildError::Trust {
        path: path.to_owned(),
        reason,
    };
    let mut bytes = read(path)?;
    check_trust(&bytes).map_err(refused)?;
    pad(&mut bytes);
    Ok(bytes)
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    fs::read(path).map_err(|source| BuildError::File {
        doing: "reading",
        path: path.to_owned(),
        source,
    })
}

fn write_all(out: &Path, files: &[(&str, &[u8])]) -> Result<(), BuildError> {
    let failed = |source| BuildError::File {
        doing: "writing to",
        path: out.to_owned(),
        source,
    };
    let mut sums = String::new();
    for (name, content) in files {
        let digest = digest::digest(&digest::SHA256, content);
        let hex: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        sums += &format!("{hex}  {name}\n");
    }
    fs::create_dir_all(out).map_err(failed)?;
    let fresh = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(out)
        .map_err(failed)?;
    for (name, content) in files.iter().chain([&("SHA256SUMS", sums.as_bytes())]) {
        let path = fresh.path().join(name);
        let mut file = fs::File::create(&path).map_err(failed)?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
    }
    for (name, _) in files.iter().chain([&("SHA256SUMS", &[][..])]) {
        fs::rename(fresh.path().join(name), out.join(name)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
