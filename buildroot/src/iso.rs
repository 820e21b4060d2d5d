//! A medium for machines that cannot boot over the network: one file that is a CD and a USB stick, for BIOS and UEFI.
//!
//! ```text
//!             BIOS: MBR or El Torito ──▶ GRUB (built here) ──┐
//!   UEFI: EFI system partition ──▶ shim ──▶ GRUB (signed) ───┴──▶ netflash/grub.cfg ──▶ vmlinuz, initramfs, trust.img
//! ```
//!
//! Under UEFI it is the signed chain, so that Secure Boot may stay on. The medium says whom to believe and where the
//! server is, and holds no token: it can be copied, so it must not open anything. All files of one medium are found
//! by a name of its own, or two media in one machine would mix.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use ring::digest;
use thiserror::Error;

use crate::package::{PackageError, run};
use crate::signed::SignedLoaders;

/// Where Debian's `grub-pc-bin` keeps the parts of a BIOS medium.
const GRUB_BIOS: &str = "/usr/lib/grub/i386-pc";
/// What the BIOS GRUB can do: enough to find the medium and to start a kernel from it.
const BIOS_MODULES: [&str; 12] = [
    "biosdisk",
    "iso9660",
    "part_gpt",
    "part_msdos",
    "search",
    "search_fs_file",
    "normal",
    "configfile",
    "linux",
    "echo",
    "sleep",
    "reboot",
];
/// Size of the EFI system partition, in sectors: three loaders and room.
const SYSTEM_SECTORS: u32 = 24 << 10;
/// Everything on the medium is as old as this, in seconds since 1970: the same inputs give the same bytes.
const EPOCH: &str = "1735689600";

/// What a medium is made of.
#[derive(Debug, Clone)]
pub struct IsoOptions {
    /// An appliance with signed loaders.
    pub appliance: PathBuf,
    /// The server's `trust.img`, or an archive of the same form.
    pub trust: Vec<u8>,
    /// The agent's kernel command line.
    pub command_line: String,
    /// The file to write.
    pub out: PathBuf,
}

/// A medium that was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct IsoReport {
    /// Its size in bytes.
    pub bytes: u64,
    /// The name its files are found by.
    pub id: String,
}

/// Why there is no medium.
#[derive(Debug, Error)]
pub enum IsoError {
    /// The appliance lacks a file.
    #[error("{0} is not there; netflash appliance build --secure-boot makes it")]
    Appliance(PathBuf),
    /// The machine that builds lacks a file of a package.
    #[error("{path} is not there; it is in the package {package}")]
    Package {
        /// The file.
        path: PathBuf,
        /// The package.
        package: &'static str,
    },
    /// The kernel command line would be more than parameters.
    #[error("{0:?} cannot stand on a kernel command line")]
    CommandLine(String),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] PackageError),
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes a medium; the file appears whole or not at all.
///
/// Needs the programs `grub-mkimage`, `mformat`, `mmd`, `mcopy` and `xorriso`.
///
/// # Errors
/// When an input or a program is missing.
pub fn iso(options: &IsoOptions) -> Result<IsoReport, IsoError> {
    let parts = Parts::read(options)?;
    let config = grub_config(&parts.id, &options.command_line)?;
    let directory = options.out.parent().unwrap_or(Path::new("."));
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let work = tempfile::Builder::new()
        .prefix(".iso-")
        .tempdir_in(directory)
        .map_err(failed(directory))?;
    let tree = work.path().join("tree");
    let files: [(&str, &[u8]); 6] = [
        ("netflash/vmlinuz", &parts.vmlinuz),
        ("netflash/initramfs.img", &parts.initramfs),
        ("netflash/trust.img", &options.trust),
        ("netflash/grub.cfg", config.as_bytes()),
        // As a CD, the signed GRUB takes the CD itself for its own partition.
        ("EFI/debian/grub.cfg", config.as_bytes()),
        (&format!("netflash/{}", parts.id), parts.id.as_bytes()),
    ];
    for (name, content) in files {
        write(&tree.join(name), content)?;
    }
    bios_image(work.path(), &tree, &parts.id)?;
    let system = system_partition(work.path(), &parts, &config)?;
    let made = work.path().join("medium.iso");
    master(&tree, &system, &made)?;
    let facts = fs::metadata(&made).map_err(failed(&made))?;
    fs::rename(&made, &options.out).map_err(failed(&options.out))?;
    Ok(IsoReport {
        bytes: facts.len(),
        id: parts.id,
    })
}

/// The files of an appliance that go on a medium.
struct Parts {
    vmlinuz: Vec<u8>,
    initramfs: Vec<u8>,
    shim: Vec<u8>,
    grub: Vec<u8>,
    id: String,
}

impl Parts {
    fn read(options: &IsoOptions) -> Result<Parts, IsoError> {
        let file = |name: &str| {
            let path = options.appliance.join(name);
            fs::read(&path).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => IsoError::Appliance(path),
                _ => IsoError::File { path, source },
            })
        };
        let mut parts = Parts {
            vmlinuz: file("vmlinuz")?,
            initramfs: file("initramfs.img")?,
            shim: file(SignedLoaders::SHIM)?,
            grub: file(SignedLoaders::GRUB_DISK)?,
            id: String::new(),
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        for content in [
            &parts.vmlinuz,
            &parts.initramfs,
            &options.trust,
            &parts.shim,
            &parts.grub,
        ] {
            hash.update(&(content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        hash.update(options.command_line.as_bytes());
        let digest = hash.finish();
        let hex = digest.as_ref().iter().take(8);
        parts.id = hex.map(|byte| format!("{byte:02x}")).collect();
        Ok(parts)
    }
}

/// What GRUB does on both roads, once it has found the medium.
fn grub_config(id: &str, command_line: &str) -> Result<String, IsoError> {
    const PUNCTUATION: &str = ".,:/=-_?@+%[]()";
    let allowed = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c) || c == ' ';
    if !command_line.chars().all(allowed) {
        return Err(IsoError::CommandLine(command_line.to_owned()));
    }
    let parameters: Vec<String> = command_line
        .split_whitespace()
        .map(|parameter| format!("'{parameter}'"))
        .collect();
    Ok(format!(
        "search --no-floppy --file --set=root /netflash/{id}\n\
         echo netflash: starting the agent from this medium\n\
         linux /netflash/vmlinuz {}\n\
         initrd /netflash/initramfs.img /netflash/trust.img\n\
         boot\n\
         echo netflash: the agent could not be loaded\n\
         sleep 30\n\
         reboot\n",
        parameters.join(" ")
    ))
}

/// GRUB for BIOS, which El Torito and the MBR both start: `boot/bios.img` in the tree.
fn bios_image(work: &Path, tree: &Path, id: &str) -> Result<(), IsoError> {
    let package = "grub-pc-bin";
    let mbr = hybrid_mbr();
    if !mbr.is_file() {
        return Err(IsoError::Package { path: mbr, package });
    }
    let early = work.join("early.cfg");
    let find = format!(
        "search.file /netflash/{id} root\nset prefix=($root)/netflash\n\
         configfile ($root)/netflash/grub.cfg\n"
    );
    write(&early, find.as_bytes())?;
    let image = tree.join("boot/bios.img");
    write(&image, b"")?;
    let mut grub = Command::new("grub-mkimage");
    grub.args(["--directory", GRUB_BIOS, "--prefix", "/netflash"])
        .args(["--format", "i386-pc-eltorito", "--compression", "auto"])
        .arg("--config")
        .arg(&early)
        .arg("--output")
        .arg(&image)
        .args(BIOS_MODULES);
    run(&mut grub, "grub-mkimage")?;
    Ok(())
}

fn hybrid_mbr() -> PathBuf {
    Path::new(GRUB_BIOS).join("boot_hybrid.img")
}

/// The EFI system partition: shim under the name that firmware looks for, and what it starts.
fn system_partition(work: &Path, parts: &Parts, config: &str) -> Result<PathBuf, IsoError> {
    let image = work.join("system.img");
    let mut format = Command::new("mformat");
    format.args(["-C", "-i"]).arg(&image).args([
        "-T",
        &SYSTEM_SECTORS.to_string(),
        "-N",
        "6e657466",
        "::",
    ]);
    run(format.env("SOURCE_DATE_EPOCH", EPOCH), "mformat")?;
    let mut folders = Command::new("mmd");
    folders
        .arg("-i")
        .arg(&image)
        .args(["::/EFI", "::/EFI/BOOT", "::/EFI/debian"]);
    run(folders.env("SOURCE_DATE_EPOCH", EPOCH), "mmd")?;
    for (name, content) in [
        ("EFI/BOOT/BOOTX64.EFI", &parts.shim[..]),
        ("EFI/BOOT/grubx64.efi", &parts.grub[..]),
        ("EFI/debian/grub.cfg", config.as_bytes()),
    ] {
        let file = work.join("part");
        write(&file, content)?;
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(&image).arg(&file);
        copy.arg(format!("::/{name}"));
        run(copy.env("SOURCE_DATE_EPOCH", EPOCH), "mcopy")?;
    }
    Ok(image)
}

/// Everything in one file: an ISO 9660 file system behind an MBR that BIOS starts from a stick, and a GPT that lists
/// the EFI system partition.
fn master(tree: &Path, system: &Path, out: &Path) -> Result<(), IsoError> {
    let mut xorriso = Command::new("xorriso");
    xorriso
        .args(["-no_rc", "-as", "mkisofs", "-quiet", "-rational-rock"])
        .args(["-volid", "NETFLASH", "-partition_offset", "16"])
        .args(["--set_all_file_dates", "set_to_mtime"])
        .arg("--modification-date=2025010100000000")
        .arg("--grub2-mbr")
        .arg(hybrid_mbr())
        .args(["--mbr-force-bootable", "-append_partition", "2", "0xef"])
        .arg(system)
        .arg("-appended_part_as_gpt")
        .args(["-eltorito-boot", "boot/bios.img", "-no-emul-boot"])
        .args([
            "-boot-load-size",
            "4",
            "-boot-info-table",
            "--grub2-boot-info",
        ])
        .args(["-eltorito-alt-boot", "-e"])
        .args(["--interval:appended_partition_2:all::", "-no-emul-boot"])
        .arg("-output")
        .arg(out)
        .arg(tree);
    run(xorriso.env("SOURCE_DATE_EPOCH", EPOCH), "xorriso")?;
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> Result<(), IsoError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed(directory))?;
    }
    fs::write(path, content).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> IsoError + '_ {
    |source| IsoError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::{IsoError, IsoOptions, grub_config, iso};

    #[test]
    fn the_command_line_cannot_add_a_command() {
        let config = grub_config("ab", "console=ttyS0,115200 netflash.server=10.0.0.1:8443");
        let config = config.unwrap();
        assert!(config.contains("'console=ttyS0,115200' 'netflash.server=10.0.0.1:8443'\n"));
        for line in ["a'b", "a\nb", "a;b", "$a", "a#b"] {
            let refused = grub_config("ab", line);
            assert!(matches!(refused, Err(IsoError::CommandLine(_))), "{line:?}");
        }
    }

    #[test]
    fn an_appliance_without_signed_loaders_makes_no_medium() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["vmlinuz", "initramfs.img"] {
            std::fs::write(scratch.path().join(name), name).unwrap();
        }
        let options = IsoOptions {
            appliance: scratch.path().to_owned(),
            trust: Vec::new(),
            command_line: String::new(),
            out: scratch.path().join("out.iso"),
        };
        let error = iso(&options).unwrap_err().to_string();
        assert!(error.contains("--secure-boot"), "{error}");
        assert!(!options.out.exists());
    }
}
