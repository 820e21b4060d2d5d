//! Power by SSH: the operating system is asked to switch off or restart, by the program `ssh` and a key.
//!
//! A host that answers is on. One that was asked to switch off and no longer answers counts as off, where no other way
//! of the ladder can tell. A restart is proved by the boot's own mark, which is another one afterwards.

use std::path::PathBuf;

use super::address::Host;
use super::child;
use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::profile::OperatingSystem;
use super::{Power, PowerState};

const PROGRAM: &str = "ssh";
/// `ssh` ends with this when it is not the remote command that failed.
const NO_CONNECTION: i32 = 255;

/// A host with a key.
pub(super) struct SshPower {
    pub(super) host: Host,
    pub(super) user: String,
    pub(super) key: PathBuf,
    pub(super) known_hosts: PathBuf,
    pub(super) system: OperatingSystem,
    pub(super) asked: Asked,
}

/// What the host was asked, and not yet seen to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    Nothing,
    /// To switch off.
    Off,
    /// To restart; with the mark of the boot that is to end.
    Restart(String),
}

impl SshPower {
    fn run(&self, command: &str, until: Deadline) -> Result<String, PowerError> {
        let ended = child::run(PROGRAM, self.arguments(command), &[], until)?;
        match ended.code {
            Some(0) => Ok(ended.stdout),
            Some(NO_CONNECTION) => Err(failure(&ended.stderr)),
            _ => {
                let text = format!("{command:?} {}: {}", ended.how(), ended.stderr.trim());
                Err(Failure::Refused.because(text))
            }
        }
    }

    fn arguments(&self, command: &str) -> Vec<String> {
        let mut words: Vec<String> = [
            "BatchMode=yes",
            "ConnectTimeout=8",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "ControlPath=none",
        ]
        .iter()
        .flat_map(|option| ["-o".to_owned(), (*option).to_owned()])
        .collect();
        let known = format!("UserKnownHostsFile={}", self.known_hosts.display());
        words.extend(["-o".to_owned(), known]);
        words.extend(["-F".to_owned(), "none".to_owned()]);
        words.extend(["-i".to_owned(), self.key.display().to_string()]);
        if let Some(port) = self.host.port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend(["-l".to_owned(), self.user.clone(), "--".to_owned()]);
        words.extend([self.host.name.clone(), command.to_owned()]);
        words
    }

    /// The mark of the present boot.
    fn boot(&self, until: Deadline) -> Result<String, PowerError> {
        let said = self.run(self.system.boot_mark(), until)?;
        let mark = said.trim();
        if mark.is_empty() {
            return Err(Failure::Garbage.because("its boot has no mark"));
        }
        Ok(mark.to_owned())
    }

    /// Ask for something that may end the connection before its answer.
    fn order(&self, command: &str, until: Deadline) -> Result<(), PowerError> {
        match self.run(command, until) {
            Err(error)
                if error.failure == Failure::Unreachable && error.detail.contains("closed") =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

impl Power for SshPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        match (self.boot(until), &self.asked) {
            (Ok(mark), Asked::Restart(before)) if mark == *before => {
                Err(Failure::NotConfirmed.because("it has not restarted"))
            }
            (Ok(_), _) => Ok(PowerState::On),
            (Err(error), Asked::Off)
                if matches!(error.failure, Failure::Unreachable | Failure::TimedOut) =>
            {
                Ok(PowerState::Off)
            }
            (Err(error), _) => Err(error),
        }
    }

    fn tells_off(&self) -> bool {
        false
    }

    fn switches_on(&self) -> bool {
        false
    }

    fn on(&mut self, _until: Deadline) -> Result<(), PowerError> {
        Err(Failure::Unsupported.because("an operating system that is off hears nothing"))
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.order(self.system.power_off(), until)?;
        self.asked = Asked::Off;
        Ok(())
    }

    fn reset(&mut self, until: Deadline) -> Result<(), PowerError> {
        let mark = self.boot(until)?;
        self.order(self.system.restart(), until)?;
        self.asked = Asked::Restart(mark);
        Ok(())
    }
}

/// What ssh's standard error means.
fn failure(said: &str) -> PowerError {
    const MARKS: [(&str, Failure); 10] = [
        ("Host key verification failed", Failure::TlsMismatch),
        ("Permission denied", Failure::WrongPassword),
        ("invalid format", Failure::Garbage),
        ("could not read protocol version", Failure::Garbage),
        ("major versions differ", Failure::Garbage),
        ("Bad packet length", Failure::Garbage),
        // Something took the connection and then said nothing.
        ("timed out during banner exchange", Failure::TimedOut),
        ("Could not resolve", Failure::Unreachable),
        ("timed out", Failure::Unreachable),
        ("refused", Failure::Unreachable),
    ];
    let failure = MARKS.iter().find(|(mark, _)| said.contains(mark));
    let failure = failure.map_or(Failure::Unreachable, |(_, failure)| *failure);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    failure.because(last.unwrap_or("the connection was closed"))
}

#[cfg(test)]
mod tests {
    use super::{Asked, Failure, Host, OperatingSystem, SshPower, failure};

    #[test]
    fn the_command_line_trusts_nobody_by_itself() {
        let host: Host = "10.0.0.7:2222".parse().unwrap();
        let power = SshPower {
            host,
            user: "root".to_owned(),
            key: "/k".into(),
            known_hosts: "/h".into(),
            system: OperatingSystem::Linux,
            asked: Asked::Nothing,
        };
        let line = power.arguments("true").join(" ");
        for part in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "-F none",
            "-p 2222",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.ends_with("-l root -- 10.0.0.7 true"), "{line}");
    }

    #[test]
    fn what_ssh_says_has_its_word() {
        let word = |said: &str| failure(said).failure;
        assert_eq!(
            word("x@y: Permission denied (publickey)."),
            Failure::WrongPassword
        );
        assert_eq!(word("Host key verification failed."), Failure::TlsMismatch);
        assert_eq!(
            word("ssh: connect to host y port 22: Connection refused"),
            Failure::Unreachable
        );
        assert_eq!(
            word("Connection timed out during banner exchange\nConnection to y port 22 timed out"),
            Failure::TimedOut
        );
        assert_eq!(
            word(
                "kex_exchange_identification: banner line contains invalid characters\nbanner exchange: Connection to y port 22: invalid format"
            ),
            Failure::Garbage
        );
        assert_eq!(word(""), Failure::Unreachable);
    }
}
