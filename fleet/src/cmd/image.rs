//! `netflash image create|info|verify|extract|diff`: images as files, without a server.

use std::time::Instant;

use clap::Subcommand;

use crate::Exit;
use crate::progress::StatusLine;

mod create;
mod diff;
mod extract;
mod info;
mod verify;

pub(crate) use create::UsedOnly;

/// What is done with image files.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    Create(create::CreateArgs),
    Info(info::InfoArgs),
    Verify(verify::VerifyArgs),
    Extract(extract::ExtractArgs),
    Diff(diff::DiffArgs),
}

/// Runs one of the commands.
pub(crate) fn run(command: &ImageCommand, json: bool) -> anyhow::Result<Exit> {
    match command {
        ImageCommand::Create(args) => create::run(args, json),
        ImageCommand::Info(args) => info::run(args, json),
        ImageCommand::Verify(args) => verify::run(args, json),
        ImageCommand::Extract(args) => extract::run(args, json),
        ImageCommand::Diff(args) => diff::run(args, json),
    }
}

/// Compressing or checking threads: one for each processor.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Megabytes, as people count them.
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// How far a command is, how fast, and how long it will still take.
pub(crate) struct Pace {
    line: StatusLine,
    started: Instant,
}

impl Pace {
    pub(crate) fn new() -> Pace {
        Pace {
            line: StatusLine::new(),
            started: Instant::now(),
        }
    }

    /// Shows that `done` bytes of `total` are done; `more` follows on the line.
    pub(crate) fn show(&mut self, done: u64, total: Option<u64>, more: &str) {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = done as f64 / seconds;
        let text = match total.filter(|&total| total > 0) {
            Some(total) => {
                let left =
                    (total.saturating_sub(done) as f64 / rate.max(1.0)).min(359_999.0) as u64;
                format!(
                    "{:3} %  {:.0} of {:.0} MB  {:.0} MB/s  ETA {}:{:02}:{:02}{more}",
                    done * 100 / total,
                    megabytes(done),
                    megabytes(total),
                    rate / 1e6,
                    left / 3600,
                    left / 60 % 60,
                    left % 60,
                )
            }
            None => format!("{:.0} MB  {:.0} MB/s{more}", megabytes(done), rate / 1e6),
        };
        self.line.show(&text);
    }

    /// Seconds since the start.
    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
