//! Power of virtual machines: QEMU's machine protocol on a Unix socket, one JSON document a line.
//!
//! `off` ends the QEMU process (`quit`), so a machine that is off has no socket; what starts it again is the
//! profile's `start` command.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::command::run;
use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::{Power, PowerState};

/// Longest line accepted from QEMU, in bytes.
const LINE_MAX: usize = 1 << 20;
/// Events that may come before an answer.
const EVENTS_MAX: usize = 256;

/// Shortest wait for QEMU: a socket's time-out cannot be zero.
const WAIT_MIN: Duration = Duration::from_millis(1);

pub(super) struct QmpPower {
    pub(super) socket: PathBuf,
    pub(super) start: Vec<String>,
}

impl QmpPower {
    /// A greeted connection; `None` when no QEMU listens.
    fn connect(&self, until: Deadline) -> Result<Option<Qmp>, PowerError> {
        let stream = match UnixStream::connect(&self.socket) {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                let text = format!("{}: {error}", self.socket.display());
                return Err(Failure::Unreachable.because(text));
            }
        };
        let left = Some(until.left().max(WAIT_MIN));
        stream.set_write_timeout(left).map_err(unreachable)?;
        let mut qmp = Qmp {
            reader: BufReader::new(stream.try_clone().map_err(unreachable)?),
            writer: stream,
            until,
        };
        qmp.line()?;
        qmp.execute("qmp_capabilities")?;
        Ok(Some(qmp))
    }

    fn connected(&self, until: Deadline) -> Result<Qmp, PowerError> {
        self.connect(until)?.ok_or_else(|| {
            let text = format!("{}: no QEMU listens", self.socket.display());
            Failure::Unreachable.because(text)
        })
    }
}

impl Power for QmpPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        let Some(mut qmp) = self.connect(until)? else {
            return Ok(PowerState::Off);
        };
        let answer = match qmp.execute("query-status") {
            // It went between the greeting and the question.
            Err(error) if error.failure == Failure::Unreachable => return Ok(PowerState::Off),
            answer => answer?,
        };
        match answer.get("status").and_then(Value::as_str) {
            Some("shutdown" | "guest-panicked") => Ok(PowerState::Off),
            Some(_) => Ok(PowerState::On),
            None => Err(Failure::Garbage.because(answer.to_string())),
        }
    }

    fn on(&mut self, until: Deadline) -> Result<(), PowerError> {
        if let Some(mut qmp) = self.connect(until)? {
            // A QEMU kept by -no-shutdown.
            qmp.execute("system_reset")?;
            return qmp.execute("cont").map(drop);
        }
        if self.start.is_empty() {
            let text = "no QEMU runs, and the profile has no start command";
            return Err(Failure::Unsupported.because(text));
        }
        run(&self.start, until).map(drop)
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        match self.connected(until)?.execute("quit") {
            // QEMU may be gone before its answer is.
            Err(error) if error.failure != Failure::Unreachable => Err(error),
            _ => Ok(()),
        }
    }

    fn shut_down(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.connected(until)?.execute("system_powerdown").map(drop)
    }

    fn reset(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.connected(until)?.execute("system_reset").map(drop)
    }

    fn cycle(&mut self, until: Deadline) -> Result<(), PowerError> {
        // Without a start command, a QEMU that was ended would not come back.
        if self.start.is_empty() {
            return self.reset(until);
        }
        Err(Failure::Unsupported.because("QEMU knows off and on only"))
    }
}

struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    until: Deadline,
}

impl Qmp {
    fn execute(&mut self, command: &str) -> Result<Value, PowerError> {
        let request = format!("{}\n", json!({ "execute": command }));
        self.writer
            .write_all(request.as_bytes())
            .map_err(unreachable)?;
        for _ in 0..EVENTS_MAX {
            let answer = self.line()?;
            if let Some(result) = answer.get("return") {
                return Ok(result.clone());
            }
            if let Some(error) = answer.get("error") {
                let text = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given");
                return Err(Failure::Refused.because(text));
            }
        }
        let text = format!("no answer to {command} among {EVENTS_MAX} events");
        Err(Failure::Garbage.because(text))
    }

    fn line(&mut self) -> Result<Value, PowerError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            // Anew for each piece: what drips has no more time than what flows.
            if self.until.is_over() {
                return Err(self.until.passed("QEMU does not answer"));
            }
            let left = Some(self.until.left().max(WAIT_MIN));
            self.writer.set_read_timeout(left).map_err(unreachable)?;
            let bytes = self.reader.fill_buf().map_err(unreachable)?;
            if bytes.is_empty() {
                return Err(Failure::Unreachable.because("QEMU closed the connection"));
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |end| end + 1);
            line.extend_from_slice(&bytes[..taken]);
            self.reader.consume(taken);
            if line.len() > LINE_MAX {
                return Err(Failure::Garbage.because("a line without an end"));
            }
        }
        serde_json::from_slice(&line)
            .map_err(|_| Failure::Garbage.because(String::from_utf8_lossy(&line)))
    }
}

fn unreachable(error: std::io::Error) -> PowerError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            Failure::TimedOut.because("QEMU does not answer")
        }
        _ => Failure::Unreachable.because(error.to_string()),
    }
}
