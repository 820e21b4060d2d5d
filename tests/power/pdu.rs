//! A PDU: Debian's `snmpsim`, which is not ours, with outlets that give boards their current.
//!
//! It speaks versions 1, 2c and 3, is silent at a wrong community, and knows no outlet it does not have. Which object
//! means what is written down here a second time, from the vendors' MIBs.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tests::bmc::Board;
use tests::lab::wait_until;

use crate::desk::lab;

/// How long snmpsim may take until it answers.
const STARTS: Duration = Duration::from_secs(60);
/// Seconds until net-snmp asks again while the PDU starts, and how long it waits for an answer that must come.
const LOOK: &str = "1";
const ANSWER: &str = "60";
/// What everybody may ask (SNMPv2-MIB: sysDescr).
const DESCRIPTION: &str = "1.3.6.1.2.1.1.1.0";
/// The outlet all families have, and the board behind it.
const OUTLET: &str = "7";

/// A family of PDUs: its name in a profile, and an outlet's objects as `COLUMN INDEX SETTINGS`.
pub(crate) const FAMILIES: [(&str, &[&str]); 9] = [
    (
        "apc-rpdu",
        &["1.3.6.1.4.1.318.1.1.12.3.3.1.1.4.7 on=1,off=2,use=both"],
    ),
    (
        "apc-rpdu2",
        &["1.3.6.1.4.1.318.1.1.26.9.2.4.1.5.7 on=1,off=2,use=both"],
    ),
    (
        "apc-masterswitch",
        &["1.3.6.1.4.1.318.1.1.4.4.2.1.3.7 on=1,off=2,use=both"],
    ),
    (
        "cyberpower",
        &[
            "1.3.6.1.4.1.3808.1.1.3.3.3.1.1.4.7 on=1,off=2,use=control",
            "1.3.6.1.4.1.3808.1.1.3.3.5.1.1.4.7 on=1,off=2,use=state",
        ],
    ),
    (
        "raritan",
        &[
            "1.3.6.1.4.1.13742.6.4.1.2.1.2.1.7 on=1,off=0,use=control",
            "1.3.6.1.4.1.13742.6.4.1.2.1.3.1.7 on=7,off=8,use=state",
        ],
    ),
    (
        "raritan-px1",
        &["1.3.6.1.4.1.13742.4.1.2.2.1.3.7 on=1,off=0,use=both"],
    ),
    (
        "eaton",
        &[
            "1.3.6.1.4.1.534.6.6.7.6.6.1.2.0.7 on=1,off=0,use=state",
            "1.3.6.1.4.1.534.6.6.7.6.6.1.3.0.7 off=0,use=control",
            "1.3.6.1.4.1.534.6.6.7.6.6.1.4.0.7 on=0,use=control",
        ],
    ),
    (
        "sentry3",
        &[
            "1.3.6.1.4.1.1718.3.2.3.1.5.1.1.7 on=1,off=0,use=state",
            "1.3.6.1.4.1.1718.3.2.3.1.11.1.1.7 on=1,off=2,use=control",
        ],
    ),
    (
        "sentry4",
        &[
            "1.3.6.1.4.1.1718.4.1.8.3.1.1.1.1.7 on=1,off=2,use=state",
            "1.3.6.1.4.1.1718.4.1.8.5.1.2.1.1.7 on=1,off=2,use=control",
        ],
    ),
];

/// The object of an outlet of the simplest family, `apc-rpdu`.
pub(crate) const SIMPLE: &str = "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4";

/// A running PDU; it ends with this value.
pub(crate) struct Pdu {
    process: Child,
    port: u16,
}

impl Pdu {
    /// The community that may switch.
    pub(crate) const COMMUNITY: &'static str = "rack 12 \"B\" #7";
    /// The user of version 3.
    pub(crate) const USER: &'static str = "operator";
    /// Its password, proved by SHA-256.
    pub(crate) const PASSWORD: &'static str = "opens the door";
    /// What it encrypts with, by AES.
    pub(crate) const PRIVACY: &'static str = "draws the curtain";

    /// A PDU on 127.0.0.1 in front of the boards in `boards`: outlet 7 of each family gives current to board `a`,
    /// outlet 8 of the simplest one to board `b`. What is switched takes effect after `delay`, and `busy` writes are
    /// refused first. `within` begins the command, to run it in a namespace.
    pub(crate) fn start(
        boards: &Path,
        delay: Duration,
        busy: u32,
        mut within: Command,
    ) -> Result<Pdu> {
        let data = boards.join("pdu/data");
        fs::create_dir_all(&data)?;
        fs::create_dir_all(boards.join("pdu/cache"))?;
        let mut outlets: Vec<String> = FAMILIES
            .iter()
            .flat_map(|(_, objects)| objects.iter().copied())
            .map(|object| record(object, "a"))
            .collect::<Option<_>>()
            .context("an object without settings")?;
        outlets.extend(record(&format!("{SIMPLE}.8 on=1,off=2,use=both"), "b"));
        let reading: Vec<String> = outlets
            .iter()
            .map(|line| line.replace("use=both", "use=state"))
            .collect();
        let simple = |settings: &str| {
            let line = record(&format!("{SIMPLE}.{OUTLET} {settings}"), "a");
            line.into_iter().collect()
        };
        write(&data, Self::COMMUNITY, outlets.clone())?;
        write(&data, "public", reading)?;
        // Where snmpsim looks for a question of version 3 without a context, by IPv4.
        write(&data, "1.3.6.1.6.1.1.0", outlets)?;
        write(&data, "slow", simple("on=1,off=2,use=both,wait=1"))?;
        write(&data, "unclear", simple("on=4,off=4,use=both"))?;
        let words = format!("{SIMPLE}.{OUTLET}|4|maybe");
        write(&data, "garbage", vec![words])?;

        // Free at this moment; snmpsim takes no port 0.
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = fs::File::create(boards.join("pdu/log"))?;
        let process = within
            .arg("snmpsimd")
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--cache-dir={}/pdu/cache", boards.display()))
            .arg(concat!(
                "--variation-modules-dir=",
                env!("CARGO_MANIFEST_DIR"),
                "/judge/pdu"
            ))
            .arg(format!("--agent-udpv4-endpoint=127.0.0.1:{port}"))
            .args(["--process-user=root", "--process-group=root"])
            .arg(format!("--v3-user={}", Self::USER))
            .arg(format!("--v3-auth-key={}", Self::PASSWORD))
            .arg("--v3-auth-proto=SHA256")
            .arg(format!("--v3-priv-key={}", Self::PRIVACY))
            .arg("--v3-priv-proto=AES")
            .env("PDU_LAB", lab())
            .env("PDU_BOARDS", boards)
            .env("PDU_DELAY", delay.as_secs_f64().to_string())
            .env("PDU_BUSY", busy.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting snmpsimd (package snmpsim): run ./scripts/setup")?;
        Ok(Pdu { process, port })
    }

    /// Waits until it answers to somebody else's client. `within` begins that command.
    pub(crate) fn await_answer(&mut self, within: impl Fn() -> Command) -> Result<()> {
        wait_until("snmpsim to answer", STARTS, || {
            if let Some(ended) = self.process.try_wait()? {
                bail!("snmpsimd ended: {ended}");
            }
            let said = self.ask(within(), "snmpget", "public", &[DESCRIPTION], LOOK)?;
            Ok(said.contains("a rack's PDU"))
        })
    }

    /// What a program of net-snmp says, asked as its manual has it.
    pub(crate) fn net_snmp(
        &self,
        within: Command,
        program: &str,
        community: &str,
        words: &[&str],
    ) -> Result<String> {
        self.ask(within, program, community, words, ANSWER)
    }

    /// Whether a community is answered by silence.
    pub(crate) fn is_silent(&self, within: Command, community: &str) -> Result<bool> {
        let said = self.ask(within, "snmpget", community, &[DESCRIPTION], LOOK)?;
        Ok(said.contains("No Response"))
    }

    fn ask(
        &self,
        mut within: Command,
        program: &str,
        community: &str,
        words: &[&str],
        seconds: &str,
    ) -> Result<String> {
        let output = within
            .args([
                program, "-v2c", "-c", community, "-Oqv", "-t", seconds, "-r", "0",
            ])
            .arg(format!("127.0.0.1:{}", self.port))
            .args(words)
            .env("MIBS", "")
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {program} (package snmp): run ./scripts/setup"))?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// The address of an outlet of it.
    pub(crate) fn outlet(&self, outlet: &str) -> String {
        format!("127.0.0.1:{}/{outlet}", self.port)
    }
}

impl Drop for Pdu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A line of snmpsim's data for an outlet in front of a board.
fn record(object: &str, board: &str) -> Option<String> {
    let (object, settings) = object.split_once(' ')?;
    Some(format!("{object}|2:outlet|board={board},{settings}"))
}

/// What a community, or a context, sees: in the order of objects.
fn write(data: &Path, name: &str, mut lines: Vec<String>) -> Result<()> {
    lines.push(format!("{DESCRIPTION}|4|a rack's PDU"));
    lines.sort_by_key(|line| {
        let object = line.split('|').next().unwrap_or_default();
        let numbers: Vec<u32> = object.split('.').flat_map(str::parse).collect();
        numbers
    });
    let file = data.join(format!("{name}.snmprec"));
    fs::write(&file, lines.join("\n") + "\n").with_context(|| file.display().to_string())
}

/// The boards of a PDU.
pub(crate) fn boards(directory: &Path) -> Result<[Board; 2]> {
    let board = |name: &str| {
        let directory = directory.join(name);
        fs::create_dir_all(&directory)?;
        anyhow::Ok(Board::at(&directory))
    };
    Ok([board("a")?, board("b")?])
}
