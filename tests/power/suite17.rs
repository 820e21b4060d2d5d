//! IPMI against a controller of our own that is stricter than OpenIPMI's: cipher suite 17, boot flags to the last bit,
//! two sessions at most. Two clients of others prove it first.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::bmc::Board;
use tests::lab::wait_until;

use crate::desk::{Desk, lab};

/// How long the controller's words may take: they come by a pipe, and an answer may be quicker.
const WORDS: Duration = Duration::from_secs(10);
const USER: &str = "admin";
const PASSWORD: &str = "Pa55-word of 20 byte";
const PROFILE: &str = "[power.bmc]\ndriver = \"ipmi\"\n";

/// A running controller; it ends with this value.
struct Strict {
    process: Child,
    port: u16,
    board: Board,
    said: Arc<Mutex<Vec<String>>>,
}

impl Strict {
    /// A controller for the board in `directory`, whose machine boots by `firmware`.
    fn start(directory: &Path, firmware: &str, suites: &str, busy: u32) -> Result<Strict> {
        fs::create_dir_all(directory)?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/judge/ipmi_bmc.py");
        let mut process = Command::new("/usr/bin/python3")
            .args([script, "0", USER, PASSWORD, firmware, suites])
            .arg(lab())
            .arg(directory)
            .arg(busy.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting python3: run ./scripts/setup")?;
        let mut lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        let ready = lines.next().context("it ended")??;
        let port = ready.strip_prefix("ready ").context("no port")?.parse()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                heard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Strict {
            process,
            port,
            board: Board::at(directory),
            said,
        })
    }

    fn power(&self) -> String {
        format!("bmc:127.0.0.1:{}", self.port)
    }

    fn count(&self, word: &str) -> usize {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().filter(|line| *line == word).count()
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
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
        assert_eq!(desk.power(&["off", "a", "--soft"])?["state"], "off");
        wait_until("every session to be closed", WORDS, || {
            Ok(strict.count("login") == strict.count("closed"))
        })?;
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
    wait_until("every session to be closed", WORDS, || {
        Ok(strict.count("closed") > 0 && strict.count("login") == strict.count("closed"))
    })?;
    let before = strict.count("login");
    desk.login("bmc", USER, "wrong")?;
    for action in ["status", "on", "off"] {
        assert_eq!(desk.power(&[action, "a"])?["failure"], "wrong-password");
    }
    wait_until("the wrong login to be noted", WORDS, || {
        Ok(strict.count("login") > before)
    })?;
    assert_eq!(
        strict.count("login"),
        before + 1,
        "more tries would lock the account"
    );
    Ok(())
}
