//! Power by IPMI 2.0 over the network (RMCP+), spoken by the program `ipmitool`.
//!
//! The password goes through the environment, never through the arguments. What `ipmitool -v` says on its standard
//! error tells a wrong password from a wrong user from a host that is not there; without `-v` all three are
//! "Unable to establish IPMI v2 / RMCP+ session".

use super::address::Host;
use super::child::{self, Ended};
use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::login::Login;
use super::profile::{Firmware, Privilege};
use super::{NextBoot, Power, PowerState};

const PROGRAM: &str = "ipmitool";
/// RMCP's port (IPMI 2.0, section 13.1.2).
const PORT: u16 = 623;
/// Tried in this order: SHA-256 with AES, then SHA-1 with AES (IPMI 2.0, table 22-20; suite 17 by errata 5).
const SUITES: [u8; 2] = [17, 3];
/// Seconds without an answer until a packet is sent again, and how often. Three unanswered ones take 12 s in all.
const RETRY: [&str; 4] = ["-N", "1", "-R", "3"];
/// Set System Boot Options, parameter 3: a boot within 60 s need not follow (IPMI 2.0, table 28-14).
const KEEP_FLAGS: [&str; 5] = ["raw", "0x00", "0x08", "0x03", "0x08"];
/// Boot flags, first byte (IPMI 2.0, table 28-14, parameter 5): valid, and for UEFI.
const FLAG_VALID: u8 = 0x80;
const FLAG_EFI: u8 = 0x20;

/// A management controller.
pub(super) struct IpmiPower {
    host: Host,
    login: Login,
    privilege: Privilege,
    /// Cipher suites still to be tried; the first one is in use.
    suites: Vec<u8>,
    firmware: Firmware,
}

impl IpmiPower {
    /// The controller at `host`.
    pub(super) fn new(
        host: Host,
        login: Login,
        privilege: Privilege,
        suite: Option<u8>,
        firmware: Firmware,
    ) -> IpmiPower {
        IpmiPower {
            host,
            login,
            privilege,
            suites: suite.map_or_else(|| SUITES.to_vec(), |suite| vec![suite]),
            firmware,
        }
    }

    /// Run one command; its standard output.
    fn run(&mut self, command: &[&str], until: Deadline) -> Result<String, PowerError> {
        loop {
            let ended = child::run(
                PROGRAM,
                self.arguments(command),
                &[("IPMI_PASSWORD", self.login.password.text())],
                until,
            )?;
            if ended.code == Some(0) {
                return Ok(ended.stdout);
            }
            // Refused before any password was sent, so trying another suite is no second login.
            if self.suites.len() > 1 && refuses_suite(&ended.stderr) {
                self.suites.remove(0);
                continue;
            }
            return Err(failure(&ended));
        }
    }

    fn arguments(&self, command: &[&str]) -> Vec<String> {
        let level = match self.privilege {
            Privilege::Administrator => "ADMINISTRATOR",
            Privilege::Operator => "OPERATOR",
        };
        let port = self.host.port.unwrap_or(PORT).to_string();
        let suite = self.suites.first().unwrap_or(&SUITES[1]).to_string();
        let mut words = vec!["-v", "-I", "lanplus", "-E", "-H", &self.host.name];
        words.extend([
            "-p",
            &port,
            "-U",
            &self.login.user,
            "-L",
            level,
            "-C",
            &suite,
        ]);
        words.extend(RETRY);
        words.extend(command);
        words.into_iter().map(str::to_owned).collect()
    }

    fn power(&mut self, word: &str, until: Deadline) -> Result<(), PowerError> {
        self.run(&["chassis", "power", word], until).map(drop)
    }
}

impl Power for IpmiPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        parse_status(&self.run(&["chassis", "power", "status"], until)?)
    }

    fn on(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.power("on", until)
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.power("off", until)
    }

    fn shut_down(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.power("soft", until)
    }

    fn reset(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.power("reset", until)
    }

    fn boot_next(&mut self, boot: NextBoot, until: Deadline) -> Result<(), PowerError> {
        let device = match boot {
            NextBoot::Pxe => "pxe",
            NextBoot::Disk => "disk",
            NextBoot::Usual => "none",
            NextBoot::Http => {
                return Err(Failure::Unsupported.because("IPMI knows no UEFI HTTP boot"));
            }
        };
        match self.run(&KEEP_FLAGS, until) {
            // A controller without this parameter keeps the flags for 60 s, which is enough.
            Err(error) if error.failure != Failure::Refused => return Err(error),
            _ => {}
        }
        let mut command = vec!["chassis", "bootdev", device];
        if self.firmware == Firmware::Uefi && boot != NextBoot::Usual {
            command.push("options=efiboot");
        }
        self.run(&command, until).map(drop)
    }

    fn next_boot(&mut self, until: Deadline) -> Result<NextBoot, PowerError> {
        let said = self.run(&["chassis", "bootparam", "get", "5"], until)?;
        parse_boot_flags(&said, self.firmware)
    }
}

fn parse_status(said: &str) -> Result<PowerState, PowerError> {
    let mut lines = said.lines().map(str::trim);
    let state = lines.find_map(|line| line.strip_prefix("Chassis Power is "));
    match state {
        Some("on") => Ok(PowerState::On),
        Some("off") => Ok(PowerState::Off),
        _ => Err(Failure::Garbage.because(said)),
    }
}

/// The boot flags among what `chassis bootparam get 5` prints, as five bytes in hexadecimal.
///
/// Some controllers forget that the flags are valid and keep the device; so only flags that claim to be valid are
/// held to the kind of firmware they are for.
fn parse_boot_flags(said: &str, firmware: Firmware) -> Result<NextBoot, PowerError> {
    let garbage = || Failure::Garbage.because(said);
    let mut lines = said.lines().map(str::trim);
    let data = lines
        .find_map(|line| line.strip_prefix("Boot parameter data: "))
        .ok_or_else(garbage)?;
    let byte = |at: usize| {
        let digits = data.get(2 * at..2 * at + 2).ok_or_else(garbage)?;
        u8::from_str_radix(digits, 16).map_err(|_| garbage())
    };
    let (flags, device) = (byte(0)?, (byte(1)? >> 2) & 0xf);
    let for_uefi = flags & FLAG_EFI != 0;
    if flags & FLAG_VALID != 0 && device != 0 && for_uefi != (firmware == Firmware::Uefi) {
        let noted = if for_uefi { "UEFI" } else { "BIOS" };
        let text = format!("the device has noted a boot for {noted}; see the profile's firmware");
        return Err(Failure::NotConfirmed.because(text));
    }
    match device {
        0 => Ok(NextBoot::Usual),
        1 => Ok(NextBoot::Pxe),
        2 => Ok(NextBoot::Disk),
        other => {
            Err(Failure::NotConfirmed.because(format!("the device has noted boot device {other}")))
        }
    }
}

/// What `ipmitool` prints, whatever a device made it print.
#[cfg(feature = "fuzzing")]
pub(super) fn read_as_output(said: &str) {
    let _ = parse_status(said);
    let _ = parse_boot_flags(said, Firmware::Uefi);
    let _ = refuses_suite(said);
}

fn refuses_suite(said: &str) -> bool {
    [
        "invalid authentication algorithm",
        "invalid integrity algorithm",
        "invalid confidentiality algorithm",
        "no matching authentication",
        "no matching integrity",
        "no cipher suite match",
        "no matching cipher suite",
    ]
    .iter()
    .any(|mark| said.contains(mark))
}

/// What ipmitool's standard error means. The first mark that is found decides: later lines only follow from it.
fn failure(ended: &Ended) -> PowerError {
    const MARKS: [(&str, Failure, &str); 14] = [
        ("HMAC is invalid", Failure::WrongPassword, "wrong password"),
        (
            "invalid integrity check value",
            Failure::WrongPassword,
            "wrong password",
        ),
        ("unauthorized name", Failure::WrongPassword, "no such user"),
        (
            "invalid role",
            Failure::WrongPassword,
            "the user may not have this privilege",
        ),
        (
            "unauthorized role",
            Failure::WrongPassword,
            "the user may not have this privilege",
        ),
        (
            "insufficient resources",
            Failure::Busy,
            "it has no session left",
        ),
        ("Node busy", Failure::Busy, "node busy"),
        (
            "Insufficient privilege level",
            Failure::Refused,
            "the user lacks the privilege",
        ),
        (
            "Invalid command",
            Failure::Unsupported,
            "it has no such command",
        ),
        (
            "not supported in present state",
            Failure::Refused,
            "not in its present state",
        ),
        (
            "Parameter not supported",
            Failure::Refused,
            "it has no such parameter",
        ),
        (
            "Get Auth Capabilities error",
            Failure::Unreachable,
            "no answer to RMCP",
        ),
        (
            "Address lookup for",
            Failure::Unreachable,
            "its name has no address",
        ),
        (
            "Unable to establish IPMI v2",
            Failure::TimedOut,
            "no session; silent since the login began",
        ),
    ];
    let said = ended.stderr.as_str();
    if refuses_suite(said) {
        return Failure::Refused.because("it takes none of our cipher suites; see cipher_suite");
    }
    for (mark, failure, words) in MARKS {
        if said.contains(mark) {
            return failure.because(words);
        }
    }
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    Failure::Refused.because(format!("{PROGRAM} {}: {}", ended.how(), last.unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::{Failure, Firmware, Host, IpmiPower, Login, NextBoot, PowerState, Privilege};
    use super::{parse_boot_flags, parse_status};
    use crate::power::Password;

    fn controller(host: &str) -> IpmiPower {
        let login = Login {
            user: "admin".to_owned(),
            password: Password::new("hunter2".to_owned()),
            stamp: 1,
        };
        let host: Host = host.parse().unwrap();
        IpmiPower::new(host, login, Privilege::Operator, None, Firmware::Uefi)
    }

    #[test]
    fn the_password_is_in_no_argument() {
        let words = controller("10.0.0.1:9623").arguments(&["chassis", "power", "status"]);
        assert!(words.iter().all(|word| !word.contains("hunter2")));
        let line = words.join(" ");
        assert!(
            line.contains("-E -H 10.0.0.1 -p 9623 -U admin -L OPERATOR -C 17"),
            "{line}"
        );
    }

    #[test]
    fn a_state_is_read_among_the_noise() {
        let said = "Set Session Privilege Level to OPERATOR\nChassis Power is on\n";
        assert_eq!(parse_status(said), Ok(PowerState::On));
        assert_eq!(parse_status("Chassis Power is off"), Ok(PowerState::Off));
        for garbage in ["", "Chassis Power is", "on", "Chassis Power is maybe"] {
            assert_eq!(parse_status(garbage).unwrap_err().failure, Failure::Garbage);
        }
    }

    #[test]
    fn boot_flags_are_read_back_for_the_right_firmware() {
        let flags = |data: &str, firmware| {
            parse_boot_flags(
                &format!("Boot parameter data: {data}\n Boot Flags :"),
                firmware,
            )
        };
        assert_eq!(flags("a004000000", Firmware::Uefi), Ok(NextBoot::Pxe));
        assert_eq!(flags("8004000000", Firmware::Bios), Ok(NextBoot::Pxe));
        assert_eq!(flags("a008000000", Firmware::Uefi), Ok(NextBoot::Disk));
        assert_eq!(flags("8000000000", Firmware::Uefi), Ok(NextBoot::Usual));
        assert_eq!(
            flags("0004000000", Firmware::Uefi),
            Ok(NextBoot::Pxe),
            "flags forgotten"
        );
        let wrong = flags("8004000000", Firmware::Uefi).unwrap_err();
        assert_eq!(wrong.failure, Failure::NotConfirmed);
        for garbage in ["", "a", "zz04", "a0", "\u{fc}\u{fc}04"] {
            assert_eq!(
                flags(garbage, Firmware::Uefi).unwrap_err().failure,
                Failure::Garbage
            );
        }
    }
}
