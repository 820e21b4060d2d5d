//! A controller that speaks IPMI 2.0: OpenIPMI's `ipmi_sim`, which is not ours, in front of a [`Board`].
//!
//! It knows cipher suite 3, three users, and forgets the flags beside the boot device. What it switches is asked of a
//! program of ours, [`hook`], each time.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Board;
use crate::lab::{First, wait_until};

/// Ports for simulators: below those that the kernel gives to whoever asks for any, so that one which is free stays so
/// until its simulator has started; for each process its own.
const PORTS_FROM: u16 = 20_000;
const PORTS_EACH: u16 = 120;

/// How long the simulator may take until it answers.
const STARTS: Duration = Duration::from_secs(20);

/// A port that nobody has; `ipmi_sim` takes no port 0.
fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = PORTS_FROM + (std::process::id() % 100) as u16 * PORTS_EACH;
    for _ in 0..PORTS_EACH {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS_EACH;
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free from {first} on");
}

/// A running simulator; it ends with this value.
pub struct IpmiSim {
    board: Board,
    port: u16,
    process: Child,
}

impl IpmiSim {
    /// The administrator's name.
    pub const USER: &'static str = "admin";
    /// Its password.
    pub const PASSWORD: &'static str = "Pa55-word";

    /// Starts a controller for the board in `directory`. `lab` is the program that knows `lab bmc`, and `within`
    /// begins the command, to run it in a namespace.
    pub fn start(directory: &Path, lab: &Path, mut within: Command) -> Result<IpmiSim> {
        fs::create_dir_all(directory.join("bmc-state"))?;
        let port = free_port()?;
        let at = |name: &str| directory.join(name);
        fs::write(at("bmc-lan.conf"), lan_conf(port, lab, directory))?;
        fs::write(at("bmc.emu"), EMULATION)?;
        let log = fs::File::create(at("bmc.log"))?;
        let process = within
            .arg("ipmi_sim")
            .arg("-c")
            .arg(at("bmc-lan.conf"))
            .arg("-f")
            .arg(at("bmc.emu"))
            .arg("-s")
            .arg(at("bmc-state"))
            .arg("-n")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting ipmi_sim (package openipmi): run ./scripts/setup")?;
        Ok(IpmiSim {
            board: Board::at(directory),
            port,
            process,
        })
    }

    /// Waits until it answers to somebody else's client. `within` begins that command.
    pub fn await_answer(&mut self, within: impl Fn() -> Command) -> Result<()> {
        let port = self.port.to_string();
        wait_until("ipmi_sim to answer", STARTS, || {
            if let Some(ended) = self.process.try_wait()? {
                bail!("ipmi_sim ended: {ended}");
            }
            let output = within()
                .args(["ipmitool", "-I", "lanplus", "-C", "3", "-N", "1", "-R", "1"])
                .args(["-H", "127.0.0.1", "-p", &port, "-U", Self::USER, "-E"])
                .args(["chassis", "power", "status"])
                .env("IPMI_PASSWORD", Self::PASSWORD)
                .stdin(Stdio::null())
                .output()
                .context("starting ipmitool: run ./scripts/setup")?;
            Ok(String::from_utf8_lossy(&output.stdout).contains("Chassis Power is"))
        })
    }

    /// Its UDP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it switches.
    pub fn board(&self) -> &Board {
        &self.board
    }
}

impl Drop for IpmiSim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const EMULATION: &str = "\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
sel_enable 0x20 1000 0x0a
mc_enable 0x20
";

fn lan_conf(port: u16, lab: &Path, directory: &Path) -> String {
    let (lab, board) = (lab.display(), directory.display());
    let (user, password) = (IpmiSim::USER, IpmiSim::PASSWORD);
    format!(
        "name \"board\"\n\
         set_working_mc 0x20\n\
         startlan 1\n\
         addr 127.0.0.1 {port}\n\
         priv_limit admin\n\
         allowed_auths_callback none md2 md5 straight\n\
         allowed_auths_user none md2 md5 straight\n\
         allowed_auths_operator none md2 md5 straight\n\
         allowed_auths_admin none md2 md5 straight\n\
         guid a123456789abcdefa123456789abcdef\n\
         endlan\n\
         chassis_control \"{lab} bmc {board}\"\n\
         user 1 true \"\" \"\" user 10 none md2 md5 straight\n\
         user 2 true \"{user}\" \"{password}\" admin 10 md5\n"
    )
}

/// Answers one question of `ipmi_sim` about the board in `directory`: `get NAME…` prints `NAME:VALUE` lines, `set
/// NAME VALUE…` does something, `check …` is content.
pub fn hook(directory: &Path, words: &[String]) -> Result<()> {
    let board = Board::at(directory);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["get", names @ ..] => names.iter().try_for_each(|name| show(&board, name)),
        ["set", pairs @ ..] => {
            ensure!(pairs.len().is_multiple_of(2), "a name without a value");
            pairs
                .chunks(2)
                .try_for_each(|pair| set(&board, pair[0], pair[1]))
        }
        ["check", ..] => Ok(()),
        _ => bail!("unknown question {words:?}"),
    }
}

fn show(board: &Board, name: &str) -> Result<()> {
    let value = match name {
        "power" => u8::from(board.is_on()?).to_string(),
        "boot" => match board.next()? {
            Some(First::Network) => "pxe".to_owned(),
            Some(First::Disk) => "default".to_owned(),
            None => "none".to_owned(),
        },
        _ => bail!("there is no {name}"),
    };
    println!("{name}:{value}");
    Ok(())
}

fn set(board: &Board, name: &str, value: &str) -> Result<()> {
    match (name, value) {
        ("power", "1") => board.on(),
        ("power", "0") => board.off(),
        ("reset", "1") => board.reset(),
        ("boot", "pxe") => board.choose(Some(First::Network)),
        ("boot", "default") => board.choose(Some(First::Disk)),
        ("boot", "none") => board.choose(None),
        _ => bail!("cannot set {name} to {value}"),
    }
}
