//! Power by programs of the operator: anything that can be scripted.

use std::io::{self, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use netflash_pxe::plain;

use super::{Power, PowerError, PowerState};

/// Most bytes of a program's output that are read.
const OUTPUT_MAX: u64 = 4096;

/// Command lines with everything filled in.
pub(super) struct CommandPower {
    pub(super) on: Vec<String>,
    pub(super) off: Vec<String>,
    pub(super) cycle: Vec<String>,
    pub(super) status: Vec<String>,
    pub(super) deadline: Duration,
}

impl Power for CommandPower {
    fn status(&mut self) -> Result<PowerState, PowerError> {
        let output = run(&self.status, self.deadline)?;
        match output.trim().to_ascii_lowercase().as_str() {
            "on" => Ok(PowerState::On),
            "off" => Ok(PowerState::Off),
            other => Err(PowerError::Protocol(format!(
                "{:?} is neither on nor off",
                plain(other, 80)
            ))),
        }
    }

    fn on(&mut self) -> Result<(), PowerError> {
        run(&self.on, self.deadline).map(drop)
    }

    fn off(&mut self) -> Result<(), PowerError> {
        run(&self.off, self.deadline).map(drop)
    }

    fn reset(&mut self) -> Result<(), PowerError> {
        if self.cycle.is_empty() {
            return Err(PowerError::Unsupported("no command for it".to_owned()));
        }
        run(&self.cycle, self.deadline).map(drop)
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }
}

/// Run a program to its end, at most until the deadline; its standard output, when it succeeds.
pub(super) fn run(argv: &[String], deadline: Duration) -> Result<String, PowerError> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| PowerError::Unsupported("no command for it".to_owned()))?;
    let failed = |error: io::Error| PowerError::Unreachable(format!("{program}: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take().map(read_in_background);
    let errors = child.stderr.take().map(read_in_background);
    let end = Instant::now() + deadline;
    let status: ExitStatus = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() >= end {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            let text = format!("{program}: no end after {} s", deadline.as_secs());
            return Err(PowerError::Unreachable(text));
        }
        thread::sleep(Duration::from_millis(20));
    };
    // A grandchild may keep the pipes open for ever, so they are not waited for once the program has ended well.
    let collect =
        |reader: Option<Reader>| reader.map(|reader| reader.collect()).unwrap_or_default();
    if status.success() {
        Ok(collect(output))
    } else {
        let said = plain(&collect(errors), 200);
        Err(PowerError::Refused(format!("{program}: {status}: {said}")))
    }
}

struct Reader(std::sync::mpsc::Receiver<String>);

impl Reader {
    fn collect(self) -> String {
        self.0
            .recv_timeout(Duration::from_secs(1))
            .unwrap_or_default()
    }
}

fn read_in_background(pipe: impl Read + Send + 'static) -> Reader {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is as good as anything.
        let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    Reader(receive)
}
