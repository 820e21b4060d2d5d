//! The programs of net-snmp: what they are asked with, and what they mean by what they say.
//!
//! Community and passwords are in a file in a directory that only we can enter, and whose name is in the environment:
//! arguments can be read by everybody. No MIB is loaded, so objects are numbers and so are answers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::Deserialize;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::Host;
use crate::power::child::{self, Ended};
use crate::power::deadline::Deadline;
use crate::power::failure::{Failure, PowerError};
use crate::power::login::{Login, Password};

const GET: &str = "snmpget";
const SET: &str = "snmpset";
/// SNMP's port (RFC 3417, section 3.1).
const PORT: u16 = 161;
/// Seconds without an answer until it is asked again, and how often. Three unanswered ones take 9 s in all.
const RETRY: [&str; 4] = ["-t", "3", "-r", "2"];
/// Only the value, as a number.
const BARE: &str = "-Oqve";

/// A version of SNMP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Version {
    /// A community in the clear.
    #[serde(rename = "1")]
    One,
    /// The same, with more words for errors.
    #[default]
    #[serde(rename = "2c")]
    TwoC,
    /// Users with passwords.
    #[serde(rename = "3")]
    Three,
}

/// What version 3 proves a password with (RFC 3414, RFC 7860).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hash {
    Md5,
    #[default]
    Sha,
    #[serde(rename = "sha-256")]
    Sha256,
    #[serde(rename = "sha-512")]
    Sha512,
}

/// What version 3 encrypts with (RFC 3414, RFC 3826).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Privacy {
    None,
    Des,
    #[default]
    Aes,
}

/// What a PDU is asked with.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) version: Version,
    /// The password is the community in versions 1 and 2c.
    pub(crate) login: Login,
    pub(crate) hash: Hash,
    pub(crate) privacy: Privacy,
    /// Encrypts, in version 3.
    pub(crate) privacy_password: Password,
}

impl Credentials {
    /// The file net-snmp reads them from (snmp.conf(5)).
    fn configuration(&self) -> Zeroizing<String> {
        let password = self.login.password.text();
        let lines = match self.version {
            Version::One => format!("defVersion 1\ndefCommunity {}\n", *quoted(password)),
            Version::TwoC => format!("defVersion 2c\ndefCommunity {}\n", *quoted(password)),
            Version::Three => {
                let hash = match self.hash {
                    Hash::Md5 => "MD5",
                    Hash::Sha => "SHA",
                    Hash::Sha256 => "SHA-256",
                    Hash::Sha512 => "SHA-512",
                };
                let (level, cipher) = match self.privacy {
                    Privacy::None => ("authNoPriv", "AES"),
                    Privacy::Des => ("authPriv", "DES"),
                    Privacy::Aes => ("authPriv", "AES"),
                };
                format!(
                    "defVersion 3\ndefSecurityName {}\ndefSecurityLevel {level}\n\
                     defAuthType {hash}\ndefAuthPassphrase {}\n\
                     defPrivType {cipher}\ndefPrivPassphrase {}\n",
                    *quoted(&self.login.user),
                    *quoted(password),
                    *quoted(self.privacy_password.text())
                )
            }
        };
        Zeroizing::new(lines)
    }
}

/// A word of a configuration file. A login has no control characters.
fn quoted(text: &str) -> Zeroizing<String> {
    let escaped = Zeroizing::new(text.replace('\\', "\\\\").replace('"', "\\\""));
    Zeroizing::new(format!("\"{}\"", *escaped))
}

/// Questions with one set of credentials.
pub(super) struct Session {
    credentials: Credentials,
    /// Holds the credentials, from the first question on; removed with this value.
    directory: Option<TempDir>,
}

impl Session {
    pub(super) fn new(credentials: Credentials) -> Session {
        Session {
            credentials,
            directory: None,
        }
    }

    /// Read a number.
    pub(super) fn get(
        &mut self,
        host: &Host,
        object: &str,
        until: Deadline,
    ) -> Result<i32, PowerError> {
        let said = self.run(GET, host, &[object], until)?;
        read_number(&said)
    }

    /// Write a number.
    pub(super) fn set(
        &mut self,
        host: &Host,
        object: &str,
        value: i32,
        until: Deadline,
    ) -> Result<(), PowerError> {
        let value = value.to_string();
        let said = self.run(SET, host, &[object, "i", &value], until)?;
        read_number(&said).map(drop)
    }

    fn run(
        &mut self,
        program: &str,
        host: &Host,
        words: &[&str],
        until: Deadline,
    ) -> Result<String, PowerError> {
        let directory = match &self.directory {
            Some(directory) => directory,
            None => {
                let made = write_down(&self.credentials.configuration());
                let made = made.map_err(|error| {
                    Failure::Setting.because(format!("writing net-snmp's settings: {error}"))
                })?;
                self.directory.insert(made)
            }
        };
        let path = directory.path().to_string_lossy();
        let environment = [
            ("SNMPCONFPATH", path.as_ref()),
            ("SNMP_PERSISTENT_DIR", path.as_ref()),
            ("MIBS", ""),
        ];
        let ended = child::run(program, arguments(host, words), &environment, until)?;
        match ended.code {
            Some(0) => Ok(ended.stdout),
            _ => Err(failure(program, &ended)),
        }
    }
}

fn arguments(host: &Host, words: &[&str]) -> Vec<String> {
    let port = host.port.unwrap_or(PORT);
    let agent = match host.name.contains(':') {
        true => format!("udp6:[{}]:{port}", host.name),
        false => format!("udp:{}:{port}", host.name),
    };
    let mut all = vec![BARE];
    all.extend(RETRY);
    all.push(&agent);
    all.extend(words);
    all.into_iter().map(str::to_owned).collect()
}

/// A directory that only we can enter, with the configuration in it.
fn write_down(configuration: &str) -> std::io::Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("netflash-snmp-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()?;
    let path: &Path = directory.path();
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path.join("snmp.conf"))?
        .write_all(configuration.as_bytes())?;
    Ok(directory)
}

/// A value as the programs print it. They end with success when there is no such object.
fn read_number(said: &str) -> Result<i32, PowerError> {
    let said = said.trim();
    if said.starts_with("No Such") {
        return Err(Failure::Setting.because("the PDU has no such outlet"));
    }
    said.parse()
        .map_err(|_| Failure::Garbage.because(format!("{said:?} is no number")))
}

/// What the programs print, whatever a device made them print.
#[cfg(feature = "fuzzing")]
pub(in crate::power) fn read_as_output(said: &str) {
    let _ = read_number(said);
    let _ = meant(said);
}

fn failure(program: &str, ended: &Ended) -> PowerError {
    meant(&ended.stderr).unwrap_or_else(|| {
        let mut lines = ended.stderr.lines().map(str::trim);
        let last = lines.rfind(|line| !line.is_empty()).unwrap_or("");
        Failure::Refused.because(format!("{program} {}: {last}", ended.how()))
    })
}

/// The first mark that is found decides: later lines only follow from it.
fn meant(said: &str) -> Option<PowerError> {
    const MARKS: [(&str, Failure, &str); 16] = [
        (
            "passphrase chosen is below",
            Failure::Setting,
            "passwords of SNMPv3 have at least 8 characters",
        ),
        (
            "Authentication fail",
            Failure::WrongPassword,
            "wrong password, or another hash than the profile's",
        ),
        ("Unknown user name", Failure::WrongPassword, "no such user"),
        (
            "Decryption error",
            Failure::WrongPassword,
            "wrong password for privacy",
        ),
        (
            "Unsupported security level",
            Failure::Refused,
            "the user is set up for another privacy than the profile's",
        ),
        (
            "authorizationError",
            Failure::Refused,
            "the user may not do this",
        ),
        (
            "noAccess",
            Failure::Refused,
            "the community or user may only read",
        ),
        (
            "notWritable",
            Failure::Refused,
            "the community or user may only read",
        ),
        (
            "readOnly",
            Failure::Refused,
            "the community or user may only read",
        ),
        (
            "noSuchName",
            Failure::Setting,
            "the PDU has no such outlet, or the community may only read",
        ),
        ("noCreation", Failure::Setting, "the PDU has no such outlet"),
        (
            "resourceUnavailable",
            Failure::Busy,
            "the PDU has no resources for it now",
        ),
        (
            "Not in time window",
            Failure::Busy,
            "the PDU's clock has just changed",
        ),
        (
            "Unknown host",
            Failure::Unreachable,
            "its name has no address",
        ),
        (
            "No Response",
            Failure::Unreachable,
            "no answer; a wrong community, too, is answered by silence",
        ),
        (
            "Failure in sendto",
            Failure::Unreachable,
            "there is no way to it",
        ),
    ];
    let (_, failure, words) = MARKS.iter().find(|(mark, _, _)| said.contains(mark))?;
    Some(failure.because(words))
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Failure, Hash, Host, Login, Password, Privacy, Version};
    use super::{arguments, meant, read_number, write_down};
    use std::os::unix::fs::PermissionsExt;

    fn credentials(version: Version) -> Credentials {
        let password = |text: &str| Password::new(text.to_owned());
        Credentials {
            version,
            login: Login {
                user: "operator".to_owned(),
                password: password("a \"b\" \\ #c"),
                stamp: 1,
            },
            hash: Hash::Sha256,
            privacy: Privacy::Aes,
            privacy_password: password("for your eyes"),
        }
    }

    #[test]
    fn credentials_are_in_no_argument_and_in_a_file_only_we_can_read() {
        let host: Host = "10.0.0.9:1161".parse().unwrap();
        let line = arguments(&host, &["1.3.7", "i", "2"]).join(" ");
        assert_eq!(line, "-Oqve -t 3 -r 2 udp:10.0.0.9:1161 1.3.7 i 2");
        let configuration = credentials(Version::TwoC).configuration();
        assert!(configuration.contains("defCommunity \"a \\\"b\\\" \\\\ #c\"\n"));
        let directory = write_down(&configuration).unwrap();
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path().to_owned()), 0o700);
        assert_eq!(mode(directory.path().join("snmp.conf")), 0o600);
    }

    #[test]
    fn version_3_has_a_level_for_each_privacy() {
        let mut three = credentials(Version::Three);
        let written = three.configuration();
        for part in [
            "defSecurityName \"operator\"\n",
            "defSecurityLevel authPriv\n",
            "defAuthType SHA-256\n",
            "defPrivPassphrase \"for your eyes\"\n",
        ] {
            assert!(written.contains(part), "{}", *written);
        }
        three.privacy = Privacy::None;
        assert!(three.configuration().contains("authNoPriv"));
    }

    #[test]
    fn an_ipv6_address_is_told_from_its_port() {
        let host: Host = "fe80::1%eth0".parse().unwrap();
        assert!(arguments(&host, &[]).contains(&"udp6:[fe80::1%eth0]:161".to_owned()));
    }

    #[test]
    fn a_value_is_a_number_or_it_is_garbage() {
        assert_eq!(read_number("2\n"), Ok(2));
        assert_eq!(read_number("-1"), Ok(-1));
        let word = |said| read_number(said).unwrap_err().failure;
        for none in [
            "No Such Instance currently exists at this OID",
            "No Such Object available on this agent at this OID",
        ] {
            assert_eq!(word(none), Failure::Setting);
        }
        for garbage in ["", "\"PDU\"", "1 2", "99999999999"] {
            assert_eq!(word(garbage), Failure::Garbage);
        }
    }

    #[test]
    fn what_net_snmp_says_has_its_word() {
        let word = |said: &str| meant(said).map(|error| error.failure);
        let cases = [
            (
                "Timeout: No Response from udp:10.0.0.9:161.",
                Failure::Unreachable,
            ),
            (
                "snmpget: Unknown host (nosuch.invalid)",
                Failure::Unreachable,
            ),
            (
                "Authentication failed for operator\nTimeout: No Response from 10.0.0.9.",
                Failure::WrongPassword,
            ),
            ("snmpget: Unknown user name", Failure::WrongPassword),
            (
                "Error in packet.\nReason: notWritable (That object does not support modification)",
                Failure::Refused,
            ),
            (
                "Error in packet\nReason: (noSuchName) There is no such variable name in this MIB.",
                Failure::Setting,
            ),
            (
                "Error: passphrase chosen is below the length requirements of the USM (min=8).",
                Failure::Setting,
            ),
        ];
        for (said, failure) in cases {
            assert_eq!(word(said), Some(failure), "{said}");
        }
        assert_eq!(word("what?"), None);
    }
}
