//! The chassis: a small process that owns one QEMU and answers the power button.
//!
//! ```text
//!            on                        guest reboots or powers off
//!   Off ------------> On (QEMU lives) ------------------------------+
//!    ^                 |  off, cycle: QEMU is killed, a power cut    |
//!    +-----------------+<--------------------------------------------+
//! ```
//!
//! Control socket: one line in (`on`, `off`, `cycle`, `status`), one line of
//! JSON out ([`ChassisStatus`], or `{"error": …}`). Each run has its own serial
//! log and its CPU seconds, so that a test can say what an installation costs.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use log::info;
use serde::{Deserialize, Serialize};

use super::{qemu, spec::MachineSpec};

/// How often QEMU and the control socket are looked at.
const TICK: Duration = Duration::from_millis(50);

/// A client that says nothing for this long is hung up on.
const CLIENT_SILENCE: Duration = Duration::from_secs(2);

/// A command line is never longer.
const COMMAND_BYTES_MAX: u64 = 64;

/// USER_HZ, the unit of times in `/proc/*/stat`; 100 on every x86 Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A button of the chassis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Switch on; nothing happens when it is on.
    On,
    /// Cut the power; nothing happens when it is off.
    Off,
    /// Cut the power, then switch on.
    Cycle,
    /// Only look.
    Status,
}

/// Is there current?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// QEMU lives.
    On,
    /// No QEMU.
    Off,
}

/// What the chassis answers to every command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChassisStatus {
    /// State after the command.
    pub power: PowerState,
    /// All runs, the present one last.
    pub runs: Vec<Run>,
}

/// One run of QEMU, from power-on to off.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Counted from 1.
    pub number: u32,
    /// CPU seconds used, user and system.
    pub cpu_seconds: f64,
    /// Wall seconds.
    pub seconds: f64,
    /// How it ended: `None` while it lives.
    pub end: Option<RunEnd>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunEnd {
    /// The power button.
    Cut,
    /// The guest rebooted or powered itself off.
    Guest,
    /// QEMU failed; its log says why.
    Failed,
}

impl std::str::FromStr for Power {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Power> {
        Ok(match word {
            "on" => Power::On,
            "off" => Power::Off,
            "cycle" => Power::Cycle,
            "status" => Power::Status,
            other => bail!("unknown power command {other:?}; known: on, off, cycle, status"),
        })
    }
}

impl std::fmt::Display for Power {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Power::On => "on",
            Power::Off => "off",
            Power::Cycle => "cycle",
            Power::Status => "status",
        })
    }
}

impl Power {
    /// Presses the button of the chassis behind the socket.
    pub fn press(self, socket: &Path) -> Result<ChassisStatus> {
        let mut stream = UnixStream::connect(socket)
            .with_context(|| format!("no chassis at {}", socket.display()))?;
        writeln!(stream, "{self}").context("asking the chassis")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("waiting for the chassis")?;
        serde_json::from_str(&answer).with_context(|| format!("the chassis says {answer:?}"))
    }
}

/// The process that owns one machine.
pub struct Chassis {
    spec: MachineSpec,
    directory: PathBuf,
    runs: Vec<Run>,
    qemu: Option<(Child, Instant)>,
}

impl Chassis {
    /// Reads the machine's specification in the directory.
    pub fn open(directory: &Path) -> Result<Chassis> {
        Ok(Chassis {
            spec: MachineSpec::load(directory)?,
            directory: directory.to_owned(),
            runs: Vec::new(),
            qemu: None,
        })
    }

    /// Where the chassis of a directory listens.
    pub fn socket(directory: &Path) -> PathBuf {
        directory.join("chassis.sock")
    }

    /// Serves the control socket until `stop`; the machine is off afterwards.
    pub fn serve(mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        let socket = Chassis::socket(&self.directory);
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("listening at {}", socket.display()))?;
        listener
            .set_nonblocking(true)
            .context("making the control socket non-blocking")?;
        while !stop.load(Ordering::Relaxed) {
            self.notice_end()?;
            match listener.accept() {
                Ok((client, _)) => self.answer(client),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
                Err(error) => return Err(error).context("accepting at the control socket"),
            }
        }
        self.cut()
    }

    fn answer(&mut self, client: UnixStream) {
        if let Err(error) = self.converse(&client) {
            let message = serde_json::json!({ "error": format!("{error:#}") });
            // The client may be gone; the machine stays what it is.
            let _ = writeln!(&client, "{message}");
        }
    }

    fn converse(&mut self, client: &UnixStream) -> Result<()> {
        client.set_nonblocking(false)?;
        client.set_read_timeout(Some(CLIENT_SILENCE))?;
        client.set_write_timeout(Some(CLIENT_SILENCE))?;
        let mut line = String::new();
        BufReader::new(client.take(COMMAND_BYTES_MAX)).read_line(&mut line)?;
        match line.trim().parse()? {
            Power::On => self.switch_on()?,
            Power::Off => self.cut()?,
            Power::Cycle => {
                self.cut()?;
                self.switch_on()?;
            }
            Power::Status => self.notice_end()?,
        }
        let answer = serde_json::to_string(&self.status())?;
        writeln!(&mut &*client, "{answer}")?;
        Ok(())
    }

    fn status(&self) -> ChassisStatus {
        let mut runs = self.runs.clone();
        if let (Some((child, begun)), Some(run)) = (&self.qemu, runs.last_mut()) {
            run.seconds = begun.elapsed().as_secs_f64();
            run.cpu_seconds = cpu_times(&child.id().to_string()).map_or(0.0, |times| times.own);
        }
        ChassisStatus {
            power: match self.qemu {
                Some(_) => PowerState::On,
                None => PowerState::Off,
            },
            runs,
        }
    }

    fn switch_on(&mut self) -> Result<()> {
        self.notice_end()?;
        if self.qemu.is_some() {
            return Ok(());
        }
        // Somebody may have opened the case since.
        self.spec = MachineSpec::load(&self.directory)?;
        let number = self.runs.len() as u32 + 1;
        // QEMU would take a socket left by a killed predecessor for a live one.
        let _ = fs::remove_file(qemu::qmp_path(&self.directory));
        let child = qemu::command(&self.spec, &self.directory, number)?
            .spawn()
            .context("starting QEMU (packages qemu-system-x86 and util-linux)")?;
        info!("machine={} run={number} state=on", self.spec.name);
        self.qemu = Some((child, Instant::now()));
        self.runs.push(Run {
            number,
            cpu_seconds: 0.0,
            seconds: 0.0,
            end: None,
        });
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        self.notice_end()?;
        let Some((child, _)) = &mut self.qemu else {
            return Ok(());
        };
        child.kill().context("killing QEMU")?;
        self.close_run(Some(RunEnd::Cut))
    }

    fn notice_end(&mut self) -> Result<()> {
        let Some((child, _)) = &self.qemu else {
            return Ok(());
        };
        if is_ended(child.id()) {
            self.close_run(None)?;
        }
        Ok(())
    }

    /// Reaps QEMU and books its time. `how` is decided by its status when `None`.
    fn close_run(&mut self, how: Option<RunEnd>) -> Result<()> {
        let Some((mut child, begun)) = self.qemu.take() else {
            return Ok(());
        };
        let before = cpu_times("self").map_or(0.0, |times| times.children);
        let status = child.wait().context("waiting for QEMU's end")?;
        let after = cpu_times("self").map_or(before, |times| times.children);
        let end = how.unwrap_or(if status.success() {
            RunEnd::Guest
        } else {
            RunEnd::Failed
        });
        info!("machine={} state=off end={end:?}", self.spec.name);
        if let Some(run) = self.runs.last_mut() {
            run.cpu_seconds = after - before;
            run.seconds = begun.elapsed().as_secs_f64();
            run.end = Some(end);
        }
        Ok(())
    }
}

struct CpuTimes {
    own: f64,
    children: f64,
}

fn cpu_times(process: &str) -> Option<CpuTimes> {
    parse_cpu_times(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

fn parse_cpu_times(stat: &str) -> Option<CpuTimes> {
    // The second field is the name in parentheses, and a name may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let seconds = |field: usize| Some(fields.get(field)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some(CpuTimes {
        own: seconds(11)? + seconds(12)?,
        children: seconds(13)? + seconds(14)?,
    })
}

/// A zombie has ended but not been waited for, and still has its times.
fn is_ended(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| {
        stat.rfind(')')
            .is_some_and(|at| stat[at + 1..].trim_start().starts_with('Z'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_button_is_read_as_it_is_shown() {
        for power in [Power::On, Power::Off, Power::Cycle, Power::Status] {
            assert_eq!(power.to_string().parse::<Power>().unwrap(), power);
        }
        assert!("explode".parse::<Power>().is_err());
    }

    #[test]
    fn times_are_found_behind_a_hostile_process_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4 1 2 3 4 250 50 1000 500 20 0 1 0 9";
        let times = parse_cpu_times(stat).unwrap();
        assert_eq!((times.own, times.children), (3.0, 15.0));
    }
}
