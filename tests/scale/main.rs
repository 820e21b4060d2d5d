//! Measures how the transfer grows with the room, in simulated rooms of up to ten thousand machines.
//!
//! Everything is drawn from seeds: the same command writes the same page on any machine, but for the processor time.

mod grid;
mod hard;
mod page;
mod plot;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

use grid::Cell;
use hard::Day;

/// Simulate rooms of 1 to 10 000 machines and write a page with a plot
#[derive(Debug, Parser)]
#[command(
    name = "scale",
    after_help = "Example:\n  cargo run --release -p tests --bin scale -- --out docs"
)]
struct Options {
    /// Directory for scale.md and scale.svg; standard output without it
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Numbers of machines
    #[arg(long, default_value = "1,8,100,1000,10000", value_delimiter = ',')]
    machines: Vec<usize>,
    /// Losses of every machine, in per cent
    #[arg(long, default_value = "0.1,1,5,20", value_delimiter = ',')]
    loss: Vec<f64>,
    /// Blocks of 1000 symbols in a session
    #[arg(long, default_value_t = 128, value_name = "N")]
    blocks: u32,
    /// Leave the hard days out
    #[arg(long)]
    grid_only: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut cells = Vec::new();
    for &percent in &options.loss {
        for &machines in &options.machines {
            let cell = Cell::measure(machines, percent / 100.0, options.blocks);
            eprintln!("{cell}");
            cells.push(cell);
        }
    }
    let mut days = Vec::new();
    if !options.grid_only {
        for day in Day::all(&options.machines, options.blocks) {
            eprintln!("{day}");
            days.push(day);
        }
    }
    let page = page::render(&cells, &days, options.blocks)?;
    let Some(out) = &options.out else {
        print!("{page}");
        return Ok(());
    };
    for (name, text) in [("scale.md", page), ("scale.svg", plot::render(&cells)?)] {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
