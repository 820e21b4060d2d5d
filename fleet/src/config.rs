//! The server's one configuration file, `netflash.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netflash_multicast::QuerierConfig;
use serde::Deserialize;

use crate::fallback::Desk;
use crate::power::PowerProfile;
use crate::session::Cipher;
use crate::units;

mod dhcp;

pub(crate) use dhcp::{DhcpConfig, DhcpMode};

/// What is written into an empty directory: every setting with its default.
pub(crate) const TEMPLATE: &str = include_str!("config/netflash.toml");

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file makes no sense.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, from the TOML parser.
        message: String,
    },
    /// A value makes no sense.
    #[error("{path}: {setting}: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Which setting.
        setting: String,
        /// What is wrong.
        problem: String,
    },
}

/// The whole file. Every setting has a default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: Listen,
    pub(crate) boot: BootConfig,
    pub(crate) dhcp: Option<DhcpConfig>,
    pub(crate) multicast: MulticastConfig,
    pub(crate) fallback: FallbackConfig,
    /// Power profiles by name, see [`PowerProfile`].
    pub(crate) power: BTreeMap<String, PowerProfile>,
}

/// Where the server answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Listen {
    /// TLS: agents and the command line. `[::]` is all addresses, of IPv4 too.
    pub(crate) https: SocketAddr,
    /// Plain HTTP: what firmware and iPXE load, one-time tokens of machines among it.
    pub(crate) http: SocketAddr,
    /// The address machines reach this server by. Without it: the one the machine used, as its request says.
    pub(crate) address: Option<Ipv4Addr>,
}

impl Default for Listen {
    fn default() -> Self {
        Listen {
            https: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8443)),
            http: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            address: None,
        }
    }
}

/// How the agent is booted.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BootConfig {
    /// Directory with `vmlinuz` and `initramfs.img`, relative to the data directory.
    pub(crate) appliance: PathBuf,
    /// Consoles of the agent's kernel; the last one becomes `/dev/console`.
    pub(crate) console: String,
    /// More kernel parameters.
    pub(crate) kernel_extra: String,
    /// Boots of the agent without progress after which a job fails.
    pub(crate) fruitless_boots_max: u32,
    /// Seconds a one-time token is good for.
    pub(crate) token_seconds: u64,
}

impl Default for BootConfig {
    fn default() -> Self {
        BootConfig {
            appliance: "appliance".into(),
            console: "console=tty0 console=ttyS0,115200".to_owned(),
            kernel_extra: String::new(),
            fruitless_boots_max: 5,
            token_seconds: 900,
        }
    }
}

/// How images are sent.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MulticastConfig {
    /// Interface to send on; `auto` takes the only candidate.
    pub(crate) interface: String,
    /// First group; each session takes the next address. One of IPv6 makes all of them sessions by IPv6.
    pub(crate) group: SocketAddr,
    /// Routers a datagram may pass, plus one.
    pub(crate) ttl: u32,
    /// Bits per second on the wire, such as `900M`, or `auto`.
    pub(crate) rate: String,
    /// Bits per second of all sessions together, or `auto`: nearly all of the interface's link.
    pub(crate) rate_total: String,
    /// Seconds to wait, after the first machine is ready, for the others.
    pub(crate) wait_seconds: u64,
    /// Whether receivers on the server itself hear the session.
    pub(crate) loopback: bool,
    /// Whether sessions are sealed: only machines with a job can read them.
    pub(crate) seal: bool,
    /// What they are sealed with.
    pub(crate) cipher: Cipher,
    /// Whether to ask as IGMP querier where nobody else does.
    pub(crate) querier: QuerierMode,
    /// Seconds between two queries.
    pub(crate) querier_seconds: u64,
}

/// Whether and how the server asks who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuerierMode {
    /// By IGMPv3, where nobody is heard asking.
    Auto,
    /// The same by IGMPv2, for switches that know no other.
    V2,
    /// Never.
    Off,
}

impl MulticastConfig {
    /// How to ask who listens, unless that is switched off.
    pub(crate) fn querier(&self) -> Option<QuerierConfig> {
        let version = match self.querier {
            QuerierMode::Auto => 3,
            QuerierMode::V2 => 2,
            QuerierMode::Off => return None,
        };
        Some(QuerierConfig {
            version,
            interval: Duration::from_secs(self.querier_seconds.max(1)),
        })
    }
}

impl Default for MulticastConfig {
    fn default() -> Self {
        MulticastConfig {
            interface: "auto".to_owned(),
            group: units::DEFAULT_GROUP.into(),
            ttl: 1,
            rate: "900M".to_owned(),
            rate_total: "auto".to_owned(),
            wait_seconds: 60,
            loopback: false,
            seal: true,
            cipher: Cipher::default(),
            querier: QuerierMode::Auto,
            querier_seconds: 125,
        }
    }
}

/// How machines that multicast does not reach are served over HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FallbackConfig {
    /// Machines served at a time; the others queue. 0 switches it off.
    pub(crate) machines: usize,
    /// Bits per second of all together, such as `100M`.
    pub(crate) rate: String,
}

impl Default for FallbackConfig {
    fn default() -> Self {
        FallbackConfig {
            machines: 4,
            rate: "100M".to_owned(),
        }
    }
}

impl FallbackConfig {
    /// The desk that serves them, unless it is switched off.
    pub(crate) fn desk(&self) -> Option<Arc<Desk>> {
        // Checked when the file was read.
        let rate_bits = units::parse_rate(&self.rate).unwrap_or(1);
        Desk::open(self.machines, rate_bits)
    }
}

impl Config {
    /// Read and check a file.
    pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        if let Err((setting, problem)) = config.check() {
            return Err(ConfigError::Value {
                path: path.to_owned(),
                setting: setting.to_owned(),
                problem,
            });
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if units::check_rate(&self.multicast.rate).is_err() {
            let rate = &self.multicast.rate;
            let problem = format!("{rate:?} is no rate; write it like 900M, or auto");
            return Err(("multicast.rate", problem));
        }
        if units::check_rate(&self.multicast.rate_total).is_err() {
            let rate = &self.multicast.rate_total;
            let problem = format!("{rate:?} is no rate; write it like 900M, or auto");
            return Err(("multicast.rate_total", problem));
        }
        if !units::is_group(self.multicast.group.ip()) {
            let problem = format!("{} is no multicast group", self.multicast.group.ip());
            return Err(("multicast.group", problem));
        }
        if units::parse_rate(&self.fallback.rate).is_err() {
            let problem = format!("{:?} is no rate; write it like 100M", self.fallback.rate);
            return Err(("fallback.rate", problem));
        }
        if self.boot.fruitless_boots_max == 0 {
            return Err(("boot.fruitless_boots_max", "must be at least 1".to_owned()));
        }
        if let Some(dhcp) = &self.dhcp {
            dhcp.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Config, TEMPLATE};
    use crate::power::PowerProfile;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("netflash.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_template_says_the_defaults() {
        let template = parse(TEMPLATE).expect("the template is valid");
        assert_eq!(format!("{template:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn the_examples_in_the_template_are_valid() {
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let config = parse(&uncommented).expect("the examples are valid");
        assert!(config.dhcp.is_some());
        assert!(matches!(config.power["vm"], PowerProfile::Qmp { .. }));
        assert!(matches!(config.power["plug"], PowerProfile::Command { .. }));
        assert!(matches!(config.power["bmc"], PowerProfile::Ipmi { .. }));
        assert!(matches!(config.power["desk"], PowerProfile::Amt { .. }));
        assert!(matches!(config.power["pdu"], PowerProfile::Snmp { .. }));
        assert!(matches!(
            config.power["idrac"],
            PowerProfile::Redfish { .. }
        ));
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        assert!(parse("[listen]\nport = 1").is_err_and(|e| e.contains("port")));
        assert!(parse("[multicast]\nrate = 'fast'").is_err_and(|e| e.contains("multicast.rate")));
        assert!(parse("[multicast]\ngroup = '10.0.0.1:5'").is_err());
        assert!(parse("[multicast]\ngroup = '[ff02::1]:5'").is_err());
        assert!(parse("[multicast]\ngroup = '[ff15::1]:5'").is_ok());
        assert!(parse("[listen]\nhttps = '[::]:8443'").is_ok());
        let injected = "[dhcp]\ninterface = \"eth0\\nport=53\"\nrange = ['10.0.0.1', '10.0.0.2']";
        assert!(parse(injected).is_err_and(|e| e.contains("dhcp.interface")));
    }
}
