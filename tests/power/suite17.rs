//! IPMI against a controller of our own that is stricter than OpenIPMI's: cipher suite 17, boot flags to the last bit,
//! two sessions at most. Two clients of others prove it first.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tests::bmc::Board;

use crate::desk::{Desk, lab};
use crate::device::Device;

const USER: &str = "admin";
const PASSWORD: &str = "Pa55-word of 20 byte";
const PROFILE: &str = "[power.bmc]\ndriver = \"ipmi\"\n";

/// A running controller.
struct Strict {
    device: Device,
    port: u16,
    board: Board,
}

impl Strict {
    /// A controller for the board in `directory`, whose machine boots by `firmware`.
    fn start(directory: &Path, firmware: &str, suites: &str, busy: u32) -> Result<Strict> {
        fs::create_dir_all(directory)?;
        let words = ["0", USER, PASSWORD, firmware, suites].map(OsStr::new);
        let busy = busy.to_string();
        let places = [lab().as_os_str(), directory.as_os_str(), OsStr::new(&busy)];
        let device = Device::start("ipmi_bmc.py", words.into_iter().chain(places))?;
        Ok(Strict {
            port: device.port()?,
            device,
            board: Board::at(directory),
        })
    }

    fn power(&self) -> String {
        format!("bmc:127.0.0.1:{}", self.port)
    }

    fn count(&self, word: &str) -> usize {
        self.device.count(word)
    }
}

fn desk(profile: &str) -> Result<Desk> {
    let desk = Desk::open(profile)?;
    desk.login("bmc", USER, PASSWORD)?;
    Ok(desk)
}

/// Runs a client of somebody else; what it printed.
fn judge(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(words)
        .env("IPMI_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}: run ./scripts/setup"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {words:?}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn clients_of_others_can_drive_the_controller() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let strict = Strict::start(scratch.path(), "uefi", "3,17", 0)?;
    let port = strict.port.to_string();
    for suite in ["3", "17"] {
        let ipmitool = |words: &[&str]| {
            let way = [
                "-I",
                "lanplus",
                "-H",
                "127.0.0.1",
                "-p",
                &port,
                "-U",
                USER,
                "-E",
                "-C",
                suite,
            ];
            judge("ipmitool", &[&way[..], words].concat())
        };
        assert!(ipmitool(&["chassis", "power", "status"])?.contains("off"));
        ipmitool(&["chassis", "bootdev", "pxe", "options=efiboot"])?;
        assert!(ipmitool(&["chassis", "bootparam", "get", "5"])?.contains("a004000000"));
        ipmitool(&["chassis", "power", "on"])?;
        ipmitool(&["chassis", "power", "reset"])?;
        assert!(ipmitool(&["chassis", "bootparam", "get", "5"])?.contains("0000000000"));
        let address = format!("127.0.0.1:{port}");
        let way = [
            "-D", "LAN_2_0", "-h", &address, "-u", USER, "-p", PASSWORD, "-I", suite,
        ];
        let ipmipower =
            |word: &str| judge("ipmipower", &[&way[..], &["-l", "OPERATOR", word]].concat());
        assert!(ipmipower("--stat")?.contains("on"));
        ipmipower("--off")?;
        assert!(ipmipower("--stat")?.contains("off"));
    }
    assert_eq!(
        strict.board.starts()?,
        ["network", "disk", "network", "disk"]
    );
    Ok(())
}

#[test]
fn suite_17_boots_a_uefi_machine_from_the_network_once() -> Result<()> {
    for suites in ["17", "3"] {
        let desk = desk(PROFILE)?;
        let strict = Strict::start(&desk.scratch.path().join("a"), "uefi", suites, 0)?;
        desk.add("a", 1, &[&strict.power()])?;
        desk.ask(&["power", "bootdev", "pxe", "a"])?;
        assert_eq!(desk.power(&["on", "a"])?["state"], "on");
        assert_eq!(desk.power(&["reset", "a"])?["state"], "on");
        desk.ask(&["power", "bootdev", "disk", "a"])?;
        assert_eq!(desk.power(&["cycle", "a"])?["state"], "on");
        assert_eq!(strict.board.starts()?, ["network", "disk", "disk"]);
        // A lamp hears nothing, so soft takes the whole deadline: once is enough.
        let how: &[&str] = if suites == "17" {
            &["off", "a", "--soft"]
        } else {
            &["off", "a"]
        };
        assert_eq!(desk.power(how)?["state"], "off");
        strict
            .device
            .await_that(|_| strict.count("login") == strict.count("closed"))?;
        assert_eq!(strict.count("wrong"), 0);
    }
    Ok(())
}

#[test]
fn flags_for_another_firmware_are_the_profiles_to_choose() -> Result<()> {
    let desk = desk(&format!(
        "{PROFILE}firmware = \"bios\"\nprivilege = \"operator\"\n"
    ))?;
    let strict = Strict::start(&desk.scratch.path().join("a"), "bios", "17", 0)?;
    desk.add("a", 1, &[&strict.power()])?;
    desk.ask(&["power", "bootdev", "pxe", "a"])?;
    desk.power(&["on", "a"])?;
    assert_eq!(strict.board.starts()?, ["network"]);
    Ok(())
}

#[test]
fn busy_is_asked_again_and_a_wrong_password_is_not() -> Result<()> {
    let desk = desk(PROFILE)?;
    let strict = Strict::start(&desk.scratch.path().join("a"), "uefi", "17", 2)?;
    desk.add("a", 1, &[&strict.power()])?;
    assert_eq!(
        desk.power(&["status", "a"])?["state"],
        "off",
        "busy is not for ever"
    );
    strict.device.await_that(|_| {
        strict.count("closed") > 0 && strict.count("login") == strict.count("closed")
    })?;
    let before = strict.count("login");
    desk.login("bmc", USER, "wrong")?;
    for action in ["status", "on", "off"] {
        assert_eq!(desk.power(&[action, "a"])?["failure"], "wrong-password");
    }
    strict
        .device
        .await_that(|_| strict.count("login") > before)?;
    assert_eq!(
        strict.count("login"),
        before + 1,
        "more tries would lock the account"
    );
    Ok(())
}
