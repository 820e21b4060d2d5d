//! What a simulated management controller switches, and the journal of its starts.
//!
//! ```text
//!            on (next boot or the usual one)
//!   Off ────────────────────────────────────▶ On ──┐ reset: starts again
//!    ▲                                         │ ◀─┘
//!    └───────────────── off ───────────────────┘
//! ```
//!
//! A machine usually boots its disk, unless its firmware is set otherwise; what was chosen for the next boot is booted
//! once. All of it is in files of one directory, because some controllers are programs that are started for every
//! question.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::{Chassis, First, MachineSpec, Power, PowerState};

/// Files of a board.
const LAMP: &str = "bmc-lamp";
const NEXT: &str = "bmc-next";
const USUAL: &str = "bmc-usual";
const STARTS: &str = "bmc-starts";

/// A lamp, or a machine of the lab.
#[derive(Clone, Debug)]
pub struct Board {
    directory: PathBuf,
}

impl Board {
    /// The board in a directory: a machine where a chassis answers, else a lamp.
    pub fn at(directory: &Path) -> Board {
        Board {
            directory: directory.to_owned(),
        }
    }

    /// Whether it is on.
    pub fn is_on(&self) -> Result<bool> {
        match self.chassis() {
            Some(socket) => Ok(Power::Status.press(&socket)?.power == PowerState::On),
            None => Ok(self.directory.join(LAMP).exists()),
        }
    }

    /// Switches it on; nothing happens when it is on.
    pub fn on(&self) -> Result<()> {
        if self.is_on()? {
            return Ok(());
        }
        let next = self.next()?;
        self.choose(None)?;
        let first = next.or(self.chosen(USUAL)?).unwrap_or(First::Disk);
        let mut journal = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.directory.join(STARTS))
            .context("opening the journal of starts")?;
        writeln!(journal, "{}", word(first))?;
        match self.chassis() {
            Some(socket) => {
                let mut spec = MachineSpec::load(&self.directory)?;
                spec.first = first;
                spec.save(&self.directory)?;
                Power::On.press(&socket).map(drop)
            }
            None => Ok(fs::write(self.directory.join(LAMP), "")?),
        }
    }

    /// Cuts its power; nothing happens when it is off.
    pub fn off(&self) -> Result<()> {
        match self.chassis() {
            Some(socket) => Power::Off.press(&socket).map(drop),
            None => remove(&self.directory.join(LAMP)),
        }
    }

    /// Starts it again.
    pub fn reset(&self) -> Result<()> {
        self.off()?;
        self.on()
    }

    /// Chooses what it boots next, once; `None` is its usual order, the disk.
    pub fn choose(&self, next: Option<First>) -> Result<()> {
        self.note(NEXT, next)
    }

    /// What it boots when nothing is chosen; its disk unless said otherwise.
    pub fn usually(&self, first: First) -> Result<()> {
        self.note(USUAL, Some(first))
    }

    fn note(&self, file: &str, next: Option<First>) -> Result<()> {
        let file = self.directory.join(file);
        match next {
            Some(first) => Ok(fs::write(file, word(first))?),
            None => remove(&file),
        }
    }

    /// What was chosen.
    pub fn next(&self) -> Result<Option<First>> {
        self.chosen(NEXT)
    }

    fn chosen(&self, file: &str) -> Result<Option<First>> {
        Ok(match read(&self.directory.join(file))?.as_deref() {
            Some("network") => Some(First::Network),
            Some(_) => Some(First::Disk),
            None => None,
        })
    }

    /// What it booted from at each start so far: `network` or `disk`.
    pub fn starts(&self) -> Result<Vec<String>> {
        let journal = read(&self.directory.join(STARTS))?.unwrap_or_default();
        Ok(journal.lines().map(str::to_owned).collect())
    }

    fn chassis(&self) -> Option<PathBuf> {
        let socket = Chassis::socket(&self.directory);
        socket.exists().then_some(socket)
    }
}

fn word(first: First) -> &'static str {
    match first {
        First::Network => "network",
        First::Disk => "disk",
    }
}

fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", file.display())),
    }
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, First};

    #[test]
    fn what_was_chosen_is_booted_once() {
        let scratch = tempfile::tempdir().unwrap();
        let board = Board::at(scratch.path());
        board.choose(Some(First::Network)).unwrap();
        board.on().unwrap();
        board.on().unwrap();
        board.reset().unwrap();
        assert!(board.is_on().unwrap());
        assert_eq!(board.starts().unwrap(), ["network", "disk"]);
        board.off().unwrap();
        assert!(!board.is_on().unwrap());
    }
}
