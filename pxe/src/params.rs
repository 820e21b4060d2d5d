//! Kernel parameters the agent understands.
//!
//! Everything may be on that line, and nothing on it may stop PID 1: what cannot be understood becomes a warning for
//! the console and the server.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::{Bond, DiskSelector, Mac, StaticAddress, VlanId, plain};

/// A row of the table of kernel parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Name, with the prefix.
    pub name: &'static str,
    /// What its value looks like; empty when it takes none.
    pub value: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// Every kernel parameter there is; `docs/OPERATING.md` shows the same table, and a test compares the two.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "netflash.server",
        value: "IP:PORT",
        meaning: "address of the server instead of the one in trust.img; its certificate is checked all the same",
    },
    Parameter {
        name: "netflash.iface",
        value: "NAME or MAC",
        meaning: "network card to prefer; iPXE scripts name the one that was booted from",
    },
    Parameter {
        name: "netflash.vlan",
        value: "1 to 4094",
        meaning: "everything goes tagged with this VLAN (802.1Q)",
    },
    Parameter {
        name: "netflash.bond",
        value: "802.3ad or active-backup, then :CARD+CARD",
        meaning: "these cards, or all, as one; 802.3ad is LACP, and the switch must know of it",
    },
    Parameter {
        name: "netflash.ip",
        value: "ADDRESS/BITS",
        meaning: "the machine's address, instead of asking for one by DHCP",
    },
    Parameter {
        name: "netflash.gateway",
        value: "ADDRESS",
        meaning: "router beside netflash.ip",
    },
    Parameter {
        name: "netflash.disk",
        value: "auto, serial:…, wwn:…, /dev/…, size:A..B",
        meaning: "disk to flash, where the job says auto",
    },
    Parameter {
        name: "netflash.log",
        value: "error, warn, info, debug, trace",
        meaning: "how much the agent writes to the console; info unless given",
    },
    Parameter {
        name: "netflash.restart",
        value: "SECONDS",
        meaning: "delay before a machine whose agent died is rebooted; 30 unless given, 0 = never",
    },
];

/// How much the agent writes to the console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What a person must act on.
    Error,
    /// And what was recovered from.
    Warn,
    /// And every change of state.
    #[default]
    Info,
    /// And every block.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    const NAMES: [(&'static str, LogLevel); 5] = [
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];

    /// The name as written on the kernel command line.
    pub fn name(self) -> &'static str {
        let row = Self::NAMES.iter().find(|(_, level)| *level == self);
        row.map_or("info", |(name, _)| name)
    }
}

/// Network card to prefer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Iface {
    /// By permanent address.
    Mac(Mac),
    /// By the kernel's name.
    Name(String),
}

impl FromStr for Iface {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(mac) => Ok(Iface::Mac(mac)),
            Err(_) if is_iface_name(text) => Ok(Iface::Name(text.to_owned())),
            Err(_) => Err("is neither a MAC address nor a card's name"),
        }
    }
}

impl fmt::Display for Iface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Iface::Mac(mac) => mac.fmt(f),
            Iface::Name(name) => f.write_str(name),
        }
    }
}

/// A parameter that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamWarning {
    /// The parameter, fit to be shown.
    pub parameter: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ParamWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel parameter {}: {}", self.parameter, self.problem)
    }
}

/// The kernel parameters of this agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelParams {
    /// `netflash.server`
    pub server: Option<SocketAddr>,
    /// `netflash.iface`
    pub iface: Option<Iface>,
    /// `netflash.vlan`
    pub vlan: Option<VlanId>,
    /// `netflash.bond`
    pub bond: Option<Bond>,
    /// `netflash.ip`
    pub ip: Option<StaticAddress>,
    /// `netflash.gateway`; only beside an address, and of its network
    pub gateway: Option<Ipv4Addr>,
    /// `netflash.disk`
    pub disk: Option<DiskSelector>,
    /// `netflash.log`
    pub log: Option<LogLevel>,
    /// `netflash.restart`, in seconds
    pub restart_seconds: Option<u32>,
}

impl KernelParams {
    /// What all our parameters begin with.
    pub const PREFIX: &str = "netflash.";
    /// Most warnings kept.
    pub const WARNINGS_MAX: usize = 16;
    /// Longest delay before a reboot, in seconds.
    pub const RESTART_MAX: u32 = 86_400;

    /// Read a kernel command line. A parameter given twice counts the last time it is well formed.
    pub fn parse(line: &str) -> (KernelParams, Vec<ParamWarning>) {
        let mut params = KernelParams::default();
        let mut warnings = Vec::new();
        let mut warn = |parameter: &str, problem| {
            if warnings.len() < Self::WARNINGS_MAX {
                let parameter = plain(parameter, 80);
                warnings.push(ParamWarning { parameter, problem });
            }
        };
        for word in words(line) {
            let Some(rest) = word.strip_prefix(Self::PREFIX) else {
                continue;
            };
            let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
            if let Err(problem) = params.set(name, value) {
                warn(&word, problem);
            }
        }
        if let Some((gateway, problem)) = params.take_bad_gateway() {
            warn(&format!("{}gateway={gateway}", Self::PREFIX), problem);
        }
        (params, warnings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "server" => {
                let address = value.parse().map_err(|_| "is no IP:PORT".to_owned())?;
                self.server = Some(address);
            }
            "iface" => {
                self.iface = Some(value.parse::<Iface>()?);
            }
            "vlan" => self.vlan = Some(understood(value)?),
            "bond" => self.bond = Some(understood(value)?),
            "ip" => self.ip = Some(understood(value)?),
            "gateway" => {
                let gateway = value.parse().map_err(|_| "is no address".to_owned())?;
                self.gateway = Some(gateway);
            }
            "disk" => {
                self.disk = Some(understood(value)?);
            }
            "log" => {
                let row = LogLevel::NAMES.iter().find(|(name, _)| *name == value);
                let (_, level) = row.ok_or("is no log level")?;
                self.log = Some(*level);
            }
            "restart" => {
                let seconds = value.parse().ok().filter(|s| *s <= Self::RESTART_MAX);
                let seconds = seconds.ok_or("is no number of seconds up to a day")?;
                self.restart_seconds = Some(seconds);
            }
            _ => return Err("is not known".to_owned()),
        }
        Ok(())
    }

    /// A router without an address, or where the address cannot reach it, is none.
    fn take_bad_gateway(&mut self) -> Option<(Ipv4Addr, String)> {
        let gateway = self.gateway?;
        let problem = match self.ip {
            Some(ip) if ip.reaches(gateway) => return None,
            Some(ip) => format!("is not another machine of the network of {ip}"),
            None => "needs netflash.ip beside it".to_owned(),
        };
        self.gateway = None;
        Some((gateway, problem))
    }

    /// The parameters as they stand on a kernel command line, separated by spaces.
    pub fn render(&self) -> String {
        let mut words = Vec::new();
        let mut push = |name: &str, value: String| {
            let quote = if value.contains(char::is_whitespace) {
                "\""
            } else {
                ""
            };
            words.push(format!("{quote}{}{name}={value}{quote}", Self::PREFIX));
        };
        if let Some(server) = self.server {
            push("server", server.to_string());
        }
        if let Some(iface) = &self.iface {
            push("iface", iface.to_string());
        }
        if let Some(vlan) = self.vlan {
            push("vlan", vlan.to_string());
        }
        if let Some(bond) = &self.bond {
            push("bond", bond.to_string());
        }
        if let Some(ip) = self.ip {
            push("ip", ip.to_string());
        }
        if let Some(gateway) = self.gateway {
            push("gateway", gateway.to_string());
        }
        if let Some(disk) = &self.disk {
            push("disk", disk.to_string());
        }
        if let Some(level) = self.log {
            push("log", level.name().to_owned());
        }
        if let Some(seconds) = self.restart_seconds {
            push("restart", seconds.to_string());
        }
        words.join(" ")
    }
}

/// The value, or what is wrong with it.
fn understood<T: FromStr<Err: fmt::Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

/// The rules of the kernel's `dev_valid_name`, less those characters that would need quoting.
fn is_iface_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    (1..16).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// Split as the kernel does: white space separates, double quotes hold together and vanish.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Iface, KernelParams, LogLevel, PARAMETERS};

    #[test]
    fn a_usual_line_is_understood() {
        let line = "console=ttyS0 netflash.server=10.77.0.1:8443 netflash.iface=52:54:00:aa:00:01 quiet \
                    \"netflash.disk=serial:QM 0001\" netflash.log=debug netflash.restart=0\n";
        let (params, warnings) = KernelParams::parse(line);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(params.server, "10.77.0.1:8443".parse().ok());
        assert!(matches!(params.iface, Some(Iface::Mac(_))));
        assert_eq!(params.disk, "serial:QM 0001".parse().ok());
        assert_eq!(params.log, Some(LogLevel::Debug));
        assert_eq!(params.restart_seconds, Some(0));
    }

    #[test]
    fn a_malformed_value_is_a_warning_and_keeps_the_former_one() {
        let (params, warnings) =
            KernelParams::parse("netflash.log=warn netflash.log=loud netflash.nonsense netflash.");
        assert_eq!(params.log, Some(LogLevel::Warn));
        assert_eq!(warnings.len(), 3);
        assert_eq!(
            warnings[0].to_string(),
            "kernel parameter netflash.log=loud: is no log level"
        );
    }

    #[test]
    fn a_network_that_is_not_plain_is_understood() {
        let line = "netflash.gateway=10.0.0.1 netflash.ip=10.0.0.5/24 netflash.vlan=20 \
                    netflash.bond=802.3ad:eth0+eth1";
        let (params, warnings) = KernelParams::parse(line);
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(params.gateway, "10.0.0.1".parse().ok());
        assert_eq!(params.vlan.map(|vlan| vlan.number()), Some(20));
        assert_eq!(params.bond.as_ref().map(|bond| bond.cards.len()), Some(2));
        assert_eq!(KernelParams::parse(&params.render()), (params, vec![]));
    }

    #[test]
    fn a_router_that_cannot_be_reached_is_a_warning_and_left_out() {
        for (line, word) in [
            ("netflash.gateway=10.0.0.1", "needs netflash.ip"),
            (
                "netflash.gateway=10.0.1.1 netflash.ip=10.0.0.5/24",
                "10.0.0.5/24",
            ),
        ] {
            let (params, warnings) = KernelParams::parse(line);
            assert_eq!(params.gateway, None);
            assert!(warnings[0].to_string().contains(word), "{warnings:?}");
        }
    }

    #[test]
    fn warnings_are_bounded() {
        let (_, warnings) = KernelParams::parse(&"netflash.x ".repeat(1000));
        assert_eq!(warnings.len(), KernelParams::WARNINGS_MAX);
    }

    #[test]
    fn every_parameter_of_the_table_is_known() {
        for row in PARAMETERS {
            let (_, warnings) = KernelParams::parse(&format!("{}=\u{1}", row.name));
            assert_eq!(warnings.len(), 1, "{}", row.name);
            assert_ne!(warnings[0].problem, "is not known", "{}", row.name);
        }
    }

    proptest! {
        #[test]
        fn any_line_parses_and_renders_to_the_same_parameters(line in "(netflash\\.(server|iface|vlan|bond|ip|gateway|disk|log|restart)=?[ -~]{0,20} ?){0,6}") {
            let (params, _) = KernelParams::parse(&line);
            let (again, warnings) = KernelParams::parse(&params.render());
            prop_assert_eq!(params, again);
            prop_assert_eq!(warnings, vec![]);
        }

        #[test]
        fn no_line_is_fatal(line in any::<String>()) {
            KernelParams::parse(&line);
        }
    }
}
