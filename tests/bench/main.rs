//! Measures netflash beside udpcast and UFTP: the same bytes, the same namespaces, one after the other.
//!
//! Each cell of the table runs in a world of its own (see `cell`), so that nothing of one is left in the next.

mod cell;
mod report;
mod tool;

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tests::{
    lab::enter,
    net::{GenerousBuffers, Payload},
};

use cell::{Cell, Measured};
use tool::Tool;

/// What udpcast is given as receive buffer, and may have.
const BUFFER_BYTES: u32 = 8 << 20;

/// Measure netflash, udpcast and UFTP and write a table
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Example:\n  sudo -E bench --out docs/benchmarks.md"
)]
struct Options {
    /// File for the table; standard output without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Random bytes to send, in MiB
    #[arg(long, default_value_t = 64, value_name = "N")]
    mebibytes: usize,
    /// Numbers of receivers
    #[arg(long, default_value = "1,4,8", value_delimiter = ',')]
    receivers: Vec<usize>,
    /// Losses towards each receiver, in per cent
    #[arg(long, default_value = "0,1,5", value_delimiter = ',')]
    loss: Vec<f64>,
    /// Runs of each cell; the table has the median
    #[arg(long, default_value_t = 3, value_name = "N")]
    runs: usize,
    /// Pace of every sender, in Mbit/s
    #[arg(long, default_value_t = 900, value_name = "N")]
    rate: u32,
    /// One cell, in the world it is started in: for itself
    #[arg(long, hide = true, value_name = "JSON")]
    cell: Option<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(cell) = &options.cell {
        enter()?;
        let measured = cell::measure(&serde_json::from_str(cell)?)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    ensure!(options.runs > 0, "--runs must be at least 1");
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root: sudo -E ./scripts/bench"
    );
    let directory = tempfile::tempdir().context("making room for the payload")?;
    let payload = Payload::random(directory.path(), options.mebibytes)?;
    let _buffers = GenerousBuffers::allow(BUFFER_BYTES)?;
    let mut cells = Vec::new();
    for &receivers in &options.receivers {
        for &loss_percent in &options.loss {
            for tool in Tool::ALL {
                let cell = Cell {
                    tool,
                    receivers,
                    loss_percent,
                    rate_megabits: options.rate,
                    raw: payload.raw.clone(),
                    image: payload.image.clone(),
                    payload_bytes: payload.bytes,
                };
                let runs = (0..options.runs).map(|_| in_a_world(&cell));
                let measured = Measured::median(runs.collect::<Result<_>>()?);
                eprintln!("{tool} to {receivers} at {loss_percent} %: {measured}");
                cells.push((cell, measured));
            }
        }
    }
    let text = report::render(&cells, options.mebibytes, options.runs, options.rate)?;
    match &options.out {
        Some(path) => fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// Runs one cell in a process of its own.
fn in_a_world(cell: &Cell) -> Result<Measured> {
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program)
        .args(["--cell", &serde_json::to_string(cell)?])
        .output()
        .context("starting a cell")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{cell:?}: {said}");
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("reading the cell's figures; it said {said}"))
}
