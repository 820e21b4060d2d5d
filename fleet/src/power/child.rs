//! A program run for a driver: no shell, bounded output, ended at the deadline with all it started.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};

/// Most bytes of a program's output that are read.
const OUTPUT_MAX: u64 = 64 << 10;
/// Pause between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);
/// A grandchild may keep the pipes open for ever, so they are not waited for longer than this.
const DRAIN: Duration = Duration::from_secs(1);

/// How a program ended, and what it said.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub(super) code: Option<i32>,
    status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ended {
    /// How it ended, in words.
    pub(super) fn how(&self) -> String {
        match self.status.signal() {
            Some(signal) => format!("ended by signal {signal}"),
            None => format!("ended with {}", self.code.unwrap_or(-1)),
        }
    }
}

/// Run `program` to its end, at most until the deadline. Secrets go into `environment`, never into `arguments`,
/// which everybody on the machine can read.
pub(super) fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
    until: Deadline,
) -> Result<Ended, PowerError> {
    let failed = |error: std::io::Error| Failure::Setting.because(format!("{program}: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let stdout = child.stdout.take().map(read_in_background);
    let stderr = child.stderr.take().map(read_in_background);
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if until.is_over() {
            end(&mut child);
            return Err(until.passed(&format!("{program}: no end")));
        }
        thread::sleep(LOOK);
    };
    Ok(Ended {
        code: status.code(),
        status,
        stdout: collect(stdout),
        stderr: collect(stderr),
    })
}

/// End a program and whatever it started.
fn end(child: &mut Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        // It leads a group of its own; a group that has ended already needs no signal.
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = child.wait();
}

fn read_in_background(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is as good as anything, and nobody may be waiting any more.
        let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

fn collect(reader: Option<mpsc::Receiver<String>>) -> String {
    reader
        .and_then(|reader| reader.recv_timeout(DRAIN).ok())
        .unwrap_or_default()
}
