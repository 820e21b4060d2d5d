//! Power of virtual machines: QEMU's machine protocol on a Unix socket, one JSON document a line.
//!
//! `off` ends the QEMU process (`quit`), so a machine that is off has no socket; what starts it again is the
//! profile's `start` command.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use netflash_pxe::plain;

use super::command::run;
use super::{Power, PowerError, PowerState};

/// Longest line accepted from QEMU, in bytes.
const LINE_MAX: u64 = 1 << 20;
/// Events that may come before an answer.
const EVENTS_MAX: usize = 256;

pub(super) struct QmpPower {
    socket: PathBuf,
    start: Vec<String>,
    deadline: Duration,
}

impl QmpPower {
    pub(super) fn new(socket: PathBuf, start: Vec<String>, deadline: Duration) -> QmpPower {
        QmpPower {
            socket,
            start,
            deadline,
        }
    }

    /// A greeted connection; `None` when no QEMU listens.
    fn connect(&self) -> Result<Option<Qmp>, PowerError> {
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
                return Err(PowerError::Unreachable(text));
            }
        };
        stream
            .set_read_timeout(Some(self.deadline))
            .map_err(unreachable)?;
        stream
            .set_write_timeout(Some(self.deadline))
            .map_err(unreachable)?;
        let mut qmp = Qmp {
            reader: BufReader::new(stream.try_clone().map_err(unreachable)?),
            writer: stream,
        };
        qmp.line()?;
        qmp.execute("qmp_capabilities")?;
        Ok(Some(qmp))
    }

    fn connected(&self) -> Result<Qmp, PowerError> {
        self.connect()?.ok_or_else(|| {
            PowerError::Unreachable(format!("{}: no QEMU listens", self.socket.display()))
        })
    }
}

impl Power for QmpPower {
    fn status(&mut self) -> Result<PowerState, PowerError> {
        let Some(mut qmp) = self.connect()? else {
            return Ok(PowerState::Off);
        };
        let answer = match qmp.execute("query-status") {
            // It went between the greeting and the question.
            Err(PowerError::Unreachable(_)) => return Ok(PowerState::Off),
            answer => answer?,
        };
        match answer.get("status").and_then(Value::as_str) {
            Some("shutdown" | "guest-panicked") => Ok(PowerState::Off),
            Some(_) => Ok(PowerState::On),
            None => Err(PowerError::Protocol(plain(&answer.to_string(), 200))),
        }
    }

    fn on(&mut self) -> Result<(), PowerError> {
        if let Some(mut qmp) = self.connect()? {
            // A QEMU kept by -no-shutdown.
            qmp.execute("system_reset")?;
            return qmp.execute("cont").map(drop);
        }
        if self.start.is_empty() {
            let text = "no QEMU runs, and the profile has no start command".to_owned();
            return Err(PowerError::Unsupported(text));
        }
        run(&self.start, self.deadline).map(drop)
    }

    fn off(&mut self) -> Result<(), PowerError> {
        match self.connected()?.execute("quit") {
            // QEMU may be gone before its answer is.
            Ok(_) | Err(PowerError::Unreachable(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn reset(&mut self) -> Result<(), PowerError> {
        self.connected()?.execute("system_reset").map(drop)
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }
}

struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
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
                return Err(PowerError::Refused(plain(text, 200)));
            }
        }
        Err(PowerError::Protocol(format!(
            "no answer to {command} among {EVENTS_MAX} events"
        )))
    }

    fn line(&mut self) -> Result<Value, PowerError> {
        let mut line = String::new();
        let read = (&mut self.reader)
            .take(LINE_MAX)
            .read_line(&mut line)
            .map_err(unreachable)?;
        if read == 0 {
            return Err(PowerError::Unreachable(
                "QEMU closed the connection".to_owned(),
            ));
        }
        serde_json::from_str(&line).map_err(|_| PowerError::Protocol(plain(&line, 200)))
    }
}

fn unreachable(error: std::io::Error) -> PowerError {
    PowerError::Unreachable(error.to_string())
}
