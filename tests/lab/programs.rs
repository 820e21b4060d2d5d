//! The programs and files a room with a server is made of, and where they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

/// Where netflash is.
#[derive(Args, Clone, Debug)]
pub struct Programs {
    /// The program netflash; the one beside lab unless given
    #[arg(long, env = "NETFLASH_BIN", value_name = "PATH")]
    netflash: Option<PathBuf>,
    /// Directory with vmlinuz and initramfs.img
    #[arg(long, env = "NETFLASH_APPLIANCE", value_name = "DIR")]
    appliance: PathBuf,
    /// The program lab; filled in by whoever is not lab itself
    #[arg(skip)]
    lab: Option<PathBuf>,
}

impl Programs {
    /// For a test, which is not the program lab: everything by its path.
    pub fn new(netflash: PathBuf, appliance: PathBuf, lab: PathBuf) -> Programs {
        Programs {
            netflash: Some(netflash),
            appliance,
            lab: Some(lab),
        }
    }

    /// The program netflash.
    pub(super) fn netflash(&self) -> Result<PathBuf> {
        match &self.netflash {
            Some(path) => found(path),
            None => found(&own_path()?.with_file_name("netflash")),
        }
    }

    /// The program lab.
    pub(super) fn lab(&self) -> Result<PathBuf> {
        match &self.lab {
            Some(path) => found(path),
            None => own_path(),
        }
    }

    /// The directory of the appliance.
    pub(super) fn appliance(&self) -> Result<PathBuf> {
        found(&self.appliance.join("initramfs.img"))?;
        found(&self.appliance)
    }
}

fn own_path() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program")
}

/// The server and the chassis run elsewhere: a relative path would mislead them.
fn found(path: &Path) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} does not exist: run ./scripts/demo or ./scripts/test, which make it",
        path.display()
    );
    std::path::absolute(path).with_context(|| format!("following {}", path.display()))
}
