//! Measures netflash beside udpcast and UFTP, the same bytes in the same namespaces, and beside partclone, the same
//! disk, one after the other.
//!
//! Each cell of a table runs in a world of its own (see `cell`), so that nothing of one is left in the next. A run
//! writes the sections of the cases it was asked for into the document and leaves the others as they are.

mod case;
mod cell;
mod code;
mod disk;
mod rate;
mod report;
mod tool;

use std::{
    fs,
    net::SocketAddrV4,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::{Serialize, de::DeserializeOwned};
use tests::{
    lab::enter,
    net::{GenerousBuffers, Payload},
};

use case::Case;
use cell::{Cell, Measured, World};
use tool::Tool;

/// What udpcast is given as receive buffer, and may have.
const BUFFER_BYTES: u32 = 8 << 20;
/// What the sealed cells share.
const SECRET: &[u8] = b"not a secret: it is in the source of the bench";

/// Measure netflash, udpcast and UFTP and write tables
#[derive(Debug, Parser)]
#[command(
    name = "bench",
    after_help = "Example:\n  sudo -E bench --case network,cpu --out docs/benchmarks.md"
)]
struct Options {
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "network,offload,steady,cpu,rooms,sealed,image,rate,code,capture,restore,again,delta,levels"
    )]
    case: Vec<Case>,
    /// Document to write the tables into; standard output without it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Random bytes to send, in MiB
    #[arg(long, default_value_t = 64, value_name = "N")]
    mebibytes: usize,
    /// The same for the case `steady`
    #[arg(long, default_value_t = 256, value_name = "N")]
    long_mebibytes: usize,
    /// Numbers of receivers
    #[arg(long, default_value = "8", value_delimiter = ',')]
    receivers: Vec<usize>,
    /// Losses towards each receiver, in per cent
    #[arg(long, default_value = "0,1,5", value_delimiter = ',')]
    loss: Vec<f64>,
    /// Runs of each cell; the table has the median and the mean
    #[arg(long, default_value_t = 3, value_name = "N")]
    runs: usize,
    /// Pace of every sender where the processors set the limit, in Mbit/s
    #[arg(long, default_value_t = 900, value_name = "N")]
    rate: u32,
    /// The same for netflash with segmentation offload
    #[arg(long, default_value_t = 2000, value_name = "N")]
    fast_rate: u32,
    /// Raw disk with an operating system, for the cases `image`, `delta` and `levels`
    #[arg(long, value_name = "DISK")]
    disk: Option<PathBuf>,
    /// Random bytes to send in the case `rate`, in MiB
    #[arg(long, default_value_t = 1024, value_name = "N")]
    rate_mebibytes: usize,
    /// One cell, in the world it is started in: for itself
    #[arg(long, hide = true, value_name = "JSON")]
    cell: Option<String>,
    /// The same for the case `rate`
    #[arg(long, hide = true, value_name = "JSON")]
    pace: Option<String>,
    /// The two ends of a TCP stream of that case
    #[arg(long, hide = true, value_name = "ADDRESS")]
    tcp_sink: Option<SocketAddrV4>,
    #[arg(long, hide = true, value_name = "ADDRESS")]
    tcp_source: Option<SocketAddrV4>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(cell) = &options.cell {
        enter()?;
        let measured = cell::measure(&serde_json::from_str(cell)?)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    if let Some(pace) = &options.pace {
        enter()?;
        let flow = rate::measure(&serde_json::from_str(pace)?)?;
        println!("{}", serde_json::to_string(&flow)?);
        return Ok(());
    }
    if let Some(address) = options.tcp_sink {
        return rate::sink(address);
    }
    if let Some(address) = options.tcp_source {
        return rate::source(address);
    }
    ensure!(options.runs > 0, "--runs must be at least 1");
    ensure!(
        nix::unistd::geteuid().is_root(),
        "needs root: sudo -E ./scripts/bench"
    );
    let directory = tempfile::tempdir().context("making room for the payload")?;
    let key = directory.path().join("key");
    fs::write(&key, SECRET).context("writing the key")?;
    let random = Payload::random(directory.path(), options.mebibytes)?;
    let _buffers = GenerousBuffers::allow(BUFFER_BYTES)?;
    for &case in &options.case {
        let section = match case {
            Case::Code => code::section()?,
            Case::Rate => rate_section(&options)?,
            Case::Capture | Case::Restore | Case::Again | Case::Delta | Case::Levels => {
                disk::section(case, options.runs, options.disk.as_deref())?
            }
            Case::Image => {
                let disk = options
                    .disk
                    .as_ref()
                    .context("the case image needs --disk; ./scripts/bench makes one")?;
                let directory = tempfile::tempdir().context("making room for the image")?;
                let payload = Payload::of_used(disk, directory.path())?;
                section(case, &options, &payload, &key)?
            }
            Case::Steady => {
                let directory = tempfile::tempdir().context("making room for the payload")?;
                let payload = Payload::random(directory.path(), options.long_mebibytes)?;
                section(case, &options, &payload, &key)?
            }
            _ => section(case, &options, &random, &key)?,
        };
        match &options.out {
            Some(path) => report::replace(path, case, &section)?,
            None => print!("{section}"),
        }
    }
    Ok(())
}

/// Measures the cells of a case.
fn section(case: Case, options: &Options, payload: &Payload, key: &Path) -> Result<String> {
    let base = Cell {
        tool: Tool::Netflash,
        world: World::default(),
        rate_megabits: options.rate,
        fast_megabits: options.fast_rate,
        merging: true,
        sample: false,
        sealed: false,
        raw: payload.raw.clone(),
        image: payload.image.clone(),
        key: key.to_path_buf(),
        payload_bytes: payload.bytes,
    };
    let mut cells = Vec::new();
    for cell in case.cells(&base, &options.receivers, &options.loss) {
        let runs = (0..options.runs).map(|_| in_a_world("--cell", &cell));
        let runs: Vec<Measured> = runs.collect::<Result<_>>()?;
        let measured = Measured::median(runs);
        let world = cell.world;
        eprintln!(
            "{case:?}: {cell} to {} at {} %: {measured}",
            world.receivers, world.loss_percent
        );
        cells.push((cell, measured));
    }
    report::section(case, &cells, options.runs)
}

/// Measures the case `rate`: each once, for each is long.
fn rate_section(options: &Options) -> Result<String> {
    let directory = tempfile::tempdir().context("making room for the payload")?;
    let payload = Payload::random(directory.path(), options.rate_mebibytes)?;
    let mut flows = Vec::new();
    for pace in rate::paces(&payload) {
        let flow: rate::Flow = in_a_world("--pace", &pace)?;
        eprintln!("rate {}: {flow:?}", pace.rate);
        flows.push((pace, flow));
    }
    report::frame(Case::Rate, &rate::table(&flows)?)
}

/// Runs one cell in a process of its own, which is told by `option` which.
fn in_a_world<T: DeserializeOwned>(option: &str, cell: &impl Serialize) -> Result<T> {
    let program = std::env::current_exe().context("finding this program")?;
    let cell = serde_json::to_string(cell)?;
    let output = Command::new(program)
        .args([option, &cell])
        .output()
        .context("starting a cell")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{cell}: {said}");
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("reading the cell's figures; it said {said}"))
}
