//! A simulated device that is a Python program: its first line says that it is ready, each other one what it heard.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::lab::wait_until;

/// How long its words may take: they come by a pipe, and an answer may be quicker.
const WORDS: Duration = Duration::from_secs(10);

/// A running device; it ends with this value.
pub(crate) struct Device {
    process: Child,
    ready: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Device {
    /// Starts `judge/SCRIPT` with these words, and waits until it is ready.
    pub(crate) fn start<W: AsRef<OsStr>>(
        script: &str,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Device> {
        let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "judge", script]
            .iter()
            .collect();
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting python3: run ./scripts/setup")?;
        let mut lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        let ready = lines.next().context("it ended")??;
        let ready = ready.strip_prefix("ready").context("it is not ready")?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push(line);
            }
        });
        Ok(Device {
            process,
            ready: ready.trim().to_owned(),
            said,
        })
    }

    /// The port it said it listens at.
    pub(crate) fn port(&self) -> Result<u16> {
        self.ready.parse().context("it named no port")
    }

    /// What it has said.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    }

    /// How often it has said this.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.said().iter().filter(|line| *line == word).count()
    }

    /// Waits until it has said this many lines.
    pub(crate) fn await_lines(&self, lines: usize) -> Result<()> {
        self.await_that(|device| device.said().len() >= lines)
    }

    /// Waits until what it has said is enough.
    pub(crate) fn await_that(&self, enough: impl Fn(&Device) -> bool) -> Result<()> {
        wait_until("the device's words", WORDS, || Ok(enough(self)))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
