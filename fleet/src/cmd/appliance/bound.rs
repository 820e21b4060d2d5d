//! An appliance bound to one server: what media and kexec have in common.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::config::Config;
use crate::data_dir::DataDir;

#[derive(Debug, Args)]
pub(super) struct BoundArgs {
    /// Directory of the appliance [default: that of the server]
    #[arg(long, value_name = "DIR")]
    appliance: Option<PathBuf>,
    /// Whom to believe [default: trust.img of the server]
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Where the server is, instead of the address in trust.img
    #[arg(long, value_name = "IP:PORT")]
    server: Option<SocketAddr>,
    /// More kernel parameters for the agent
    #[arg(long, value_name = "TEXT")]
    parameters: Option<String>,
}

/// What the arguments name, read.
pub(super) struct Bound {
    /// The directory of the appliance.
    pub(super) appliance: PathBuf,
    /// The archive with the server's authority and address.
    pub(super) trust: Vec<u8>,
    /// The agent's kernel command line, as the server would give it.
    pub(super) command_line: String,
}

impl BoundArgs {
    /// Fill in what a server's directory says.
    pub(super) fn read(&self, dir: &Path) -> anyhow::Result<Bound> {
        let dir = DataDir::open(dir)?;
        let config = match dir.config().exists() {
            true => Config::load(&dir.config())?,
            false => Config::default(),
        };
        let own = || dir.path(&config.boot.appliance);
        let appliance = self.appliance.clone().unwrap_or_else(own);
        let trust = self.trust.clone().unwrap_or_else(|| dir.path("trust.img"));
        let trust = fs::read(&trust).with_context(|| {
            format!(
                "reading {}; netflash serve writes it at its first start",
                trust.display()
            )
        })?;
        netflash_appliance::check_trust(&trust).map_err(anyhow::Error::msg)?;
        let server = self.server.map(|at| format!("netflash.server={at}"));
        let words = [
            Some(config.boot.console.clone()),
            Some(config.boot.kernel_extra.clone()),
            server,
            self.parameters.clone(),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        let words: Vec<&str> = words
            .iter()
            .flat_map(|text| text.split_whitespace())
            .collect();
        Ok(Bound {
            appliance,
            trust,
            command_line: words.join(" "),
        })
    }
}
