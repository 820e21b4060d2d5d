//! What a running command says about itself: one line redrawn on a terminal, a plain line now and then elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// How often a pipe or a log gets a line.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The status line of a command, on standard error.
#[derive(Debug)]
pub(crate) struct StatusLine {
    terminal: bool,
    drawn: bool,
    said: Option<Instant>,
}

impl StatusLine {
    /// A line that nobody has seen yet.
    pub(crate) fn new() -> StatusLine {
        StatusLine {
            terminal: io::stderr().is_terminal(),
            drawn: false,
            said: None,
        }
    }

    /// Shows how far it is. Elsewhere than on a terminal most of these are left out.
    pub(crate) fn show(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Nothing can be done about a closed terminal.
        if self.terminal {
            let _ = write!(stderr, "\r\x1b[K{text}");
            let _ = stderr.flush();
            self.drawn = true;
        } else if self
            .said
            .is_none_or(|said| said.elapsed() >= PLAIN_INTERVAL)
        {
            let _ = writeln!(stderr, "{text}");
            self.said = Some(Instant::now());
        }
    }

    /// Says something that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Removes the line from a terminal.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}
