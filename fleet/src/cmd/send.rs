//! `netflash send`: images to everybody who listens, one after the other.

mod outcome;
mod spool;
mod view;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use netflash_imager::Image;
use netflash_multicast::{
    Audience, Family, Interface, InterfaceChoice, MAX_NAME_BYTES, Rate, SendConfig, SendError,
    SigningKey, random_session, send,
};

use crate::{
    Exit, ExitError,
    adapter::ImageSource,
    cmd::transfer::SharedKeys,
    fallback::{Desk, Hatch},
    interrupt::stop_on_signal,
    units::{DEFAULT_GROUP, parse_duration, parse_group, parse_rate, rate_on},
};

use view::View;

/// Machines served over HTTP at a time; the others queue.
const HTTP_PLACES: usize = 4;
/// How long the sender listens after the last machine was done.
const LINGER: Duration = Duration::from_secs(1);

/// Send images to every machine that listens
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash send debian.img.zst --iface eth0 --receivers 8
  netflash send debian.img.zst --machines lab1,lab2 --wait 5m
  ssh lab1 cat /dev/sda | netflash send - --spool /var/tmp
  netflash send debian.img.zst --http 10.0.0.1:9079
  netflash send debian.img.zst --group ff15::1 --iface eth0     over IPv6
  netflash send a.img.zst b.img.zst --rate 400M --json")]
pub(crate) struct SendArgs {
    /// Images made by `netflash image create`, sent one after the other; `-` is
    /// standard input, a raw disk or an image
    #[arg(value_name = "IMG", required = true)]
    images: Vec<PathBuf>,
    /// Interface to send from, by name or address; needed when there are several
    #[arg(long, value_name = "IF", default_value = "auto")]
    iface: String,
    /// Begin when this many machines are ready; 0 sends once to whoever listens
    #[arg(long, value_name = "N", default_value_t = 1)]
    receivers: u32,
    /// Begin when the machines of these names are ready, end when they are done
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        conflicts_with = "receivers",
        value_parser = parse_name
    )]
    machines: Vec<String>,
    /// Begin at the latest this long after the first machine was heard
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    wait: Duration,
    /// Bits per second on the wire, such as 400M, or less while most machines
    /// do not keep up; `auto` is what the room takes
    #[arg(long, value_name = "RATE", default_value = "auto")]
    rate: String,
    /// Multicast group and port; one of IPv6, such as ff15::1, makes it a session
    /// by IPv6
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = DEFAULT_GROUP.into(), value_parser = parse_group)]
    group: SocketAddr,
    /// Routers that may be passed, plus one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    ttl: u32,
    /// Secret shared with the receivers: everything is sealed with it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Answer over HTTP here too, for machines that multicast does not reach
    #[arg(long, value_name = "IP:PORT", conflicts_with = "key_file")]
    http: Option<SocketAddr>,
    /// Bits per second of all that is answered over HTTP
    #[arg(long, value_name = "RATE", default_value = "100M", value_parser = parse_rate)]
    http_rate: u64,
    /// Where standard input is kept while it is sent [default: $TMPDIR, or /tmp]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
}

/// Sends each image until every machine that was heard is done.
pub(crate) fn run(args: &SendArgs, json: bool) -> anyhow::Result<Exit> {
    let standard_input = args.images.iter().filter(|path| is_standard_input(path));
    if standard_input.count() > 1 {
        return Err(usage("standard input can be sent once"));
    }
    let choice = args.iface.parse::<InterfaceChoice>()?;
    let interface = Interface::choose(&choice, Family::of(&args.group))?;
    let rate =
        rate_on(&args.rate, &interface).map_err(|error| usage(&format!("--rate: {error}")))?;
    let stop = stop_on_signal()?;
    let images = match spool::open_all(&args.images, args.spool.as_deref(), &stop) {
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(Exit::Interrupted),
        other => other?,
    };
    let mut failures = Vec::new();
    for (image, path) in images.into_iter().zip(&args.images) {
        match send_one(args, image, &interface, rate, json, &stop) {
            Ok(Exit::Done) => {}
            Ok(other) => return Ok(other),
            Err(error) => failures.push(error.context(format!("sending {}", path.display()))),
        }
    }
    // Those before the last are told as they would have been alone.
    let last = failures.pop();
    for failure in failures {
        eprintln!("netflash: {failure:#}");
    }
    last.map_or(Ok(Exit::Done), Err)
}

/// One session.
fn send_one(
    args: &SendArgs,
    image: Arc<Image>,
    interface: &Interface,
    rate: Rate,
    json: bool,
    stop: &AtomicBool,
) -> anyhow::Result<Exit> {
    let image_id = image.id();
    let keys = args.key_file.as_deref().map(SharedKeys::of_file);
    let keys = keys.transpose()?;
    let seal = keys.as_ref().map(SharedKeys::seal).transpose()?;
    let hatch = match args.http {
        Some(address) => Some(open_hatch(address, args.http_rate, Arc::clone(&image))?),
        None => None,
    };
    let source = ImageSource::new(image).context("planning the session")?;
    let named: BTreeSet<String> = args.machines.iter().cloned().collect();
    let config = SendConfig {
        interface: InterfaceChoice::Chosen(interface.clone()),
        group: args.group,
        ttl: args.ttl,
        loopback: true,
        rate,
        budget: None,
        symbol_bytes: None,
        session: random_session()?,
        object_id: source.object_id(),
        signing_key: keys.map_or_else(SigningKey::generate, |keys| Ok(keys.signing))?,
        seal,
        audience: match named.is_empty() {
            true => Audience::of(args.receivers),
            false => Audience::Named(named.clone()),
        },
        wait: args.wait,
        linger: LINGER,
    };
    let mut view = View::new(args.group, rate, source.block_count(), named.clone());
    let observer = |event| {
        if let Some(hatch) = &hatch {
            hatch.see(&event);
        }
        view.show(event);
    };
    let report = match send(config, source, observer, stop) {
        Err(SendError::Interrupted) => return Ok(Exit::Interrupted),
        other => other?,
    };
    view.close();
    let over_http = hatch.map(|hatch| hatch.finish(&outcome::addresses_done(&report), stop));
    outcome::finish(&report, &image_id.to_string(), &named, over_http, json)?;
    Ok(Exit::Done)
}

fn open_hatch(address: SocketAddr, rate_bits: u64, image: Arc<Image>) -> anyhow::Result<Hatch> {
    let desk = Desk::open(HTTP_PLACES, rate_bits).context("the hatch has no place")?;
    Hatch::open(address, desk, image)
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

/// A name as machines give it in their reports.
fn parse_name(text: &str) -> Result<String, String> {
    match text.len() {
        1..=MAX_NAME_BYTES => Ok(text.to_owned()),
        length => Err(format!(
            "a name has 1 to {MAX_NAME_BYTES} bytes, this has {length}"
        )),
    }
}

fn usage(message: &str) -> anyhow::Error {
    ExitError::new(Exit::Usage, message).into()
}
