//! Where a machine's power is switched: `PROFILE:ADDRESS`, and the ladder of several.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::failure::{Failure, PowerError};
use super::profile::PowerProfile;

/// Longest power setting, in bytes.
const SETTING_MAX: usize = 512;

/// `PROFILE:ADDRESS`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PowerAddress {
    /// Names a `[power.NAME]` table.
    pub(crate) profile: String,
    /// What the profile's driver makes of it.
    pub(crate) address: String,
}

impl FromStr for PowerAddress {
    type Err = PowerError;

    fn from_str(text: &str) -> Result<Self, PowerError> {
        let (profile, address) = text.split_once(':').unwrap_or((text, ""));
        if profile.is_empty() || text.len() > SETTING_MAX || text.chars().any(char::is_control) {
            return Err(Failure::Setting.because(format!("{text:?} is no PROFILE:ADDRESS")));
        }
        Ok(PowerAddress {
            profile: profile.to_owned(),
            address: address.to_owned(),
        })
    }
}

impl fmt::Display for PowerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.profile, self.address)
    }
}

/// The profile a power setting names. `qmp` needs no entry in the configuration.
pub(crate) fn find(
    profiles: &BTreeMap<String, PowerProfile>,
    power: &str,
) -> Result<PowerProfile, PowerError> {
    let wanted: PowerAddress = power.parse()?;
    if let Some(profile) = profiles.get(&wanted.profile) {
        profile.check(&wanted.address)?;
        return Ok(profile.clone());
    }
    if wanted.profile == "qmp" {
        return Ok(PowerProfile::qmp());
    }
    let text = format!(
        "no power profile {:?}; netflash.toml has [power.NAME] tables",
        wanted.profile
    );
    Err(Failure::Setting.because(text))
}

/// A network address of a device: a name or an IP address, and a port where it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// A name, or an IP address without brackets.
    pub(crate) name: String,
    /// The port, if one was given.
    pub(crate) port: Option<u16>,
}

impl Host {
    /// Longest name of a host, in bytes (RFC 1035, section 2.3.4).
    const NAME_MAX: usize = 253;
}

impl FromStr for Host {
    type Err = PowerError;

    /// `HOST`, `HOST:PORT`, `IPV6` or `[IPV6]:PORT`. A name never begins with `-`: programs would take it for an option.
    fn from_str(text: &str) -> Result<Host, PowerError> {
        let wrong = || Failure::Setting.because(format!("{text:?} is no HOST or HOST:PORT"));
        let port = |digits: &str| digits.parse().map(Some).map_err(|_| wrong());
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']').ok_or_else(wrong)? {
                (name, "") => (name, None),
                (name, after) => (name, port(after.strip_prefix(':').ok_or_else(wrong)?)?),
            },
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.split_once(':') {
                Some((name, digits)) => (name, port(digits)?),
                None => (text, None),
            },
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:%".contains(&b);
        let long = name.len() > Self::NAME_MAX;
        if name.is_empty() || long || name.starts_with('-') || !name.bytes().all(allowed) {
            return Err(wrong());
        }
        Ok(Host {
            name: name.to_owned(),
            port,
        })
    }
}

/// What is put into a profile's command lines.
pub(super) struct Words<'a> {
    pub(super) name: &'a str,
    pub(super) address: &'a str,
    pub(super) mac: &'a str,
}

impl Words<'_> {
    /// The words of a command line with every placeholder filled.
    pub(super) fn fill(&self, template: &[String]) -> Vec<String> {
        template.iter().map(|word| self.fill_word(word)).collect()
    }

    /// One pass: a name that looks like a placeholder is not replaced again.
    fn fill_word(&self, word: &str) -> String {
        let mut filled = String::new();
        let mut rest = word;
        'next: while let Some(start) = rest.find('{') {
            filled.push_str(&rest[..start]);
            rest = &rest[start..];
            for (mark, value) in [
                ("{name}", self.name),
                ("{address}", self.address),
                ("{mac}", self.mac),
            ] {
                if let Some(after) = rest.strip_prefix(mark) {
                    filled.push_str(value);
                    rest = after;
                    continue 'next;
                }
            }
            filled.push('{');
            rest = &rest[1..];
        }
        filled + rest
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Words};

    #[test]
    fn placeholders_are_filled_once() {
        let words = Words {
            name: "{address}",
            address: "a b",
            mac: "m",
        };
        let template = ["x{name}y", "{address}{mac}", "{other}", "{"].map(str::to_owned);
        assert_eq!(
            words.fill(&template),
            ["x{address}y", "a bm", "{other}", "{"]
        );
    }

    #[test]
    fn hosts_are_names_and_addresses_with_and_without_port() {
        let host = |text: &str| {
            let host: Host = text.parse().unwrap();
            (host.name, host.port)
        };
        assert_eq!(host("bmc-1.lan"), ("bmc-1.lan".to_owned(), None));
        assert_eq!(host("10.0.0.1:9623"), ("10.0.0.1".to_owned(), Some(9623)));
        assert_eq!(host("fe80::1%eth0"), ("fe80::1%eth0".to_owned(), None));
        assert_eq!(host("[fe80::1]:623"), ("fe80::1".to_owned(), Some(623)));
    }

    #[test]
    fn what_a_program_could_take_for_an_option_is_no_host() {
        for bad in [
            "",
            "-oProxyCommand=x",
            "a b",
            "a:0x1",
            "a:99999",
            "[::1",
            "[::1]x",
            "a;b",
            "a@b",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }
}
