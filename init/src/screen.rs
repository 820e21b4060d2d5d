//! What a person in front of the machine reads: pure text, no device.
//!
//! A VGA console gets the whole picture redrawn, a serial line gets plain lines. Both come
//! from the same [`Screen`], and everything that came from outside is stripped of control
//! characters before it is shown.

use std::collections::VecDeque;
use std::time::Duration;

use netflash_pxe::{Progress, plain};

/// Columns of the smallest console we draw for.
const WIDTH: usize = 79;
/// Longest line kept, for text from outside.
const LINE_MAX: usize = 400;
/// Log lines kept for the lower part of the picture.
const LOG_LINES: usize = 12;
/// Cells of the progress bar.
const BAR: usize = 40;

/// 0 to 100; 100 only when everything is done.
fn percent(progress: &Progress) -> u64 {
    match progress.total_bytes {
        0 => 100,
        total => {
            let percent = u128::from(progress.done_bytes) * 100 / u128::from(total);
            u64::try_from(percent).unwrap_or(100).min(100)
        }
    }
}

/// Time left at the present rate; none while nothing moves.
fn time_left(progress: &Progress) -> Option<Duration> {
    let left = progress.total_bytes.saturating_sub(progress.done_bytes);
    left.checked_div(progress.bytes_per_second)
        .map(Duration::from_secs)
}

/// Everything shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Screen {
    machine: String,
    phase: String,
    progress: Option<Progress>,
    trouble: Vec<String>,
    log: VecDeque<String>,
}

impl Screen {
    /// Sets the name the server knows this machine by.
    pub(crate) fn set_machine(&mut self, name: &str) {
        self.machine = plain(name, WIDTH);
    }

    /// Enters a phase; the progress and the trouble of the former one are forgotten.
    pub(crate) fn set_phase(&mut self, phase: &str) {
        self.phase = plain(phase, LINE_MAX);
        self.progress = None;
        self.trouble.clear();
    }

    /// Updates the bar.
    pub(crate) fn set_progress(&mut self, progress: Progress) {
        self.progress = Some(progress);
    }

    /// Says what went wrong, in lines that stay until the next phase.
    pub(crate) fn set_trouble(&mut self, lines: &[String]) {
        self.trouble = lines.iter().map(|line| plain(line, LINE_MAX)).collect();
    }

    /// Adds a line to the log part.
    pub(crate) fn push_log(&mut self, line: &str) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(plain(line, LINE_MAX));
    }

    /// The bar and its figures as one line; empty outside a flash.
    pub(crate) fn progress_line(&self) -> String {
        let Some(progress) = self.progress else {
            return String::new();
        };
        let percent = percent(&progress);
        let full = usize::try_from(percent).unwrap_or(100) * BAR / 100;
        format!(
            "[{}{}] {percent:3} %  {} MB/s  {} repairs  {}",
            "#".repeat(full),
            "-".repeat(BAR - full),
            progress.bytes_per_second / 1_000_000,
            progress.repair_symbols,
            match time_left(&progress) {
                Some(left) => format!("{}:{:02} left", left.as_secs() / 60, left.as_secs() % 60),
                None => "waiting".into(),
            },
        )
    }

    /// The whole picture for a VGA console: home, every line cleared to its end, rest cleared.
    pub(crate) fn picture(&self) -> String {
        let mut lines = vec![
            format!("netflash {}   {}", env!("CARGO_PKG_VERSION"), self.machine),
            String::new(),
            self.phase.clone(),
            self.progress_line(),
        ];
        lines.extend(self.trouble.iter().cloned());
        lines.push(String::new());
        lines.extend(self.log.iter().cloned());
        let mut picture = String::from("\x1b[H");
        for line in &lines {
            picture.extend(line.chars().take(WIDTH));
            picture.push_str("\x1b[K\r\n");
        }
        picture.push_str("\x1b[J");
        picture
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let mut screen = Screen::default();
        screen.set_machine("lab\x1b[2J\n1");
        assert!(screen.picture().contains("lab [2J 1"));
    }

    #[test]
    fn a_new_phase_forgets_the_bar_and_the_trouble() {
        let mut screen = Screen::default();
        screen.set_progress(Progress {
            total_bytes: 4,
            ..Progress::default()
        });
        screen.set_trouble(&["disk is gone".into()]);
        screen.set_phase("waiting for a job");
        assert!(screen.progress_line().is_empty());
        assert!(!screen.picture().contains("disk is gone"));
    }

    #[test]
    fn the_bar_is_full_only_at_the_end() {
        let mut screen = Screen::default();
        for (done, full) in [(0, false), (999, false), (1000, true), (2000, true)] {
            screen.set_progress(Progress {
                done_bytes: done,
                total_bytes: 1000,
                bytes_per_second: 1,
                ..Progress::default()
            });
            assert_eq!(!screen.progress_line().contains('-'), full, "{done}");
        }
    }

    #[test]
    fn an_empty_job_is_done_and_a_stalled_one_has_no_eta() {
        assert_eq!(percent(&Progress::default()), 100);
        assert_eq!(time_left(&Progress::default()), None);
    }

    #[test]
    fn the_log_is_bounded() {
        let mut screen = Screen::default();
        for n in 0..100 {
            screen.push_log(&n.to_string());
        }
        assert_eq!(screen.log.len(), LOG_LINES);
        assert_eq!(screen.log.back().map(String::as_str), Some("99"));
    }
}
