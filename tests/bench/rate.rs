//! One receiver behind a link of 1 Gbit/s: fixed rates, `auto`, and `auto` beside a TCP stream that wants everything.
//!
//! The link is a token bucket at the sender's interface, and so is what it carries: bytes are counted where they leave
//! it, Ethernet headers included. What the link could carry of payload is its rate over the size of a datagram.

use std::{
    io::{Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tests::{
    lab::wait_until,
    net::{Hall, Payload, Program},
};

use crate::cell::World;

/// The link, in Mbit/s.
pub(crate) const LINK_MEGABITS: u32 = 1000;
/// Fixed rates, in per cent of the link.
const PERCENTS: [u32; 4] = [90, 94, 96, 98];
/// Payload of a datagram, and the datagram on the wire, headers of Ethernet included, in bytes.
const SYMBOL: f64 = 1452.0;
const ON_WIRE: f64 = 1514.0;
/// A transfer that takes longer on an idle machine has failed.
const LIMIT: Duration = Duration::from_secs(180);
/// How often bytes are counted.
const TICK: Duration = Duration::from_millis(50);
/// The TCP stream flows for so long before the transfer begins.
const LEAD: Duration = Duration::from_secs(3);
/// So many bytes on the link, and the transfer has begun; so many before its end, it flows no more.
const EDGE: u64 = 2 << 20;
/// Over which TCP is judged, and how often its bytes are noted.
const SECOND: Duration = Duration::from_secs(1);
const NOTE: Duration = Duration::from_millis(100);
/// Where the TCP stream goes; the receiver is the first of the hall.
const SINK: &str = "10.78.0.11:5001";

/// What is measured: a transfer at a rate, alone or beside a TCP stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// As `--rate` takes it.
    pub(crate) rate: String,
    pub(crate) beside_tcp: bool,
    pub(crate) payload: Payload,
}

/// What came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// From the first data on the link to the last.
    seconds: f64,
    /// From the start of the sender until the disk is read back and verified.
    verified_seconds: f64,
    /// Payload, in Mbit/s, while it flowed.
    goodput: f64,
    /// Bytes on the link for each byte of payload; with TCP beside it, as the sender counts.
    wire: f64,
    equal: bool,
    /// When the rate changed, to what and why.
    changes: Vec<String>,
    /// What TCP carried meanwhile, in Mbit/s: its worst second, and the mean.
    tcp: Option<(f64, f64)>,
}

/// What is measured, in the order of the table.
pub(crate) fn paces(payload: &Payload) -> Vec<Pace> {
    let fixed = PERCENTS.map(|percent| (format!("{}M", LINK_MEGABITS * percent / 100), false));
    let auto = [false, true].map(|beside_tcp| ("auto".to_owned(), beside_tcp));
    let all = fixed.into_iter().chain(auto);
    all.map(|(rate, beside_tcp)| Pace {
        rate,
        beside_tcp,
        payload: payload.clone(),
    })
    .collect()
}

/// Runs it, in the world of this process.
pub(crate) fn measure(pace: &Pace) -> Result<Flow> {
    let world = World {
        receivers: 1,
        link_megabits: Some(LINK_MEGABITS),
        ..World::default()
    };
    let hall = world.build()?;
    let disk = crate::cell::disk_of("r1");
    let receiver = pace.payload.receive("r1", &disk, &[])?;
    let tcp = match pace.beside_tcp {
        true => Some(Stream::start(&hall)?),
        false => None,
    };
    let before = hall.carried()?;
    let options = ["--rate", &pace.rate, "--receivers", "1"];
    let (began, sender) = (moment(), pace.payload.send(hall.sender(), &options)?);
    let started = sender.started();
    let counts = match tcp.is_some() {
        true => Vec::new(),
        false => watch(&hall, &sender, before)?,
    };
    let sent = sender.succeed(LIMIT)?;
    let verified_seconds = receiver.succeed(LIMIT)?.ended.duration_since(started);
    let ended = moment();
    let result: Value = serde_json::from_str(&sent.stdout).context("reading the result")?;
    let number = |value: &Value| value.as_f64().context("a number of the result");
    let payload = pace.payload.bytes as f64;
    let (seconds, wire) = match span(&counts) {
        Some((seconds, bytes)) => (seconds, bytes as f64 / payload),
        // Beside TCP the link does not tell whose bytes it carries.
        None => (
            number(&result["receivers"][0]["seconds"])?,
            number(&result["wire_bytes"])? / payload,
        ),
    };
    Ok(Flow {
        seconds,
        verified_seconds: verified_seconds.as_secs_f64(),
        goodput: payload * 8e-6 / seconds,
        wire,
        equal: pace.payload.compare(&disk).is_ok(),
        changes: changes_of(&result),
        tcp: tcp.map(|stream| stream.end(began, ended)).transpose()?,
    })
}

/// Bytes on the link since `before`, over time, as long as the sender runs.
fn watch(hall: &Hall, sender: &Program, before: u64) -> Result<Vec<(Instant, u64)>> {
    let mut counts = Vec::new();
    while sender.peak_memory().is_some() && sender.started().elapsed() < LIMIT {
        counts.push((Instant::now(), hall.carried()? - before));
        thread::sleep(TICK);
    }
    Ok(counts)
}

/// How long the data flowed, scaled from what lies between both edges, and bytes in all.
fn span(counts: &[(Instant, u64)]) -> Option<(f64, u64)> {
    let (_, total) = *counts.last()?;
    let first = counts.iter().find(|(_, bytes)| *bytes >= EDGE)?;
    let last = counts.iter().find(|(_, bytes)| *bytes + EDGE >= total)?;
    let between = last.1.checked_sub(first.1).filter(|&bytes| bytes > 0)?;
    let seconds = last.0.duration_since(first.0).as_secs_f64();
    Some((seconds * total as f64 / between as f64, total))
}

fn changes_of(result: &Value) -> Vec<String> {
    let changes = result["rate_changes"].as_array();
    let said = changes.into_iter().flatten().map(|change| {
        let (at, bits) = (change["seconds"].as_f64(), change["bits"].as_f64());
        format!(
            "{:.1} s: {:.0} Mbit/s, {}",
            at.unwrap_or_default(),
            bits.unwrap_or_default() / 1e6,
            change["reason"].as_str().unwrap_or_default()
        )
    });
    said.collect()
}

/// The section of the document: a table, what holds, and what `auto` did.
pub(crate) fn table(flows: &[(Pace, Flow)]) -> Result<String> {
    let possible = f64::from(LINK_MEGABITS) * SYMBOL / ON_WIRE;
    let mut text = format!(
        "Possible: {possible:.0} Mbit/s of payload.\n\n\
         | rate | beside it | seconds | goodput, Mbit/s | of the possible | wire | verified after | TCP, worst second | \
         TCP, mean |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for (pace, flow) in flows {
        ensure!(flow.equal, "at {} the disk differs", pace.rate);
        let tcp = flow
            .tcp
            .map_or(["".to_owned(), "".to_owned()], |(worst, mean)| {
                [worst, mean].map(|megabits| format!("{megabits:.0} Mbit/s"))
            });
        text.push_str(&format!(
            "| {} | {} | {:.2} | {:.0} | {:.1} % | {:.3} | {:.2} s | {} | {} |\n",
            pace.rate,
            if pace.beside_tcp { "TCP" } else { "" },
            flow.seconds,
            flow.goodput,
            100.0 * flow.goodput / possible,
            flow.wire,
            flow.verified_seconds,
            tcp[0],
            tcp[1]
        ));
    }
    let best = |auto: bool| {
        let of = flows
            .iter()
            .filter(|(pace, _)| !pace.beside_tcp && (pace.rate == "auto") == auto);
        of.map(|(_, flow)| flow.goodput).reduce(f64::max)
    };
    if let Some((fixed, auto)) = best(false).zip(best(true)) {
        text.push_str(&format!(
            "\n- the best fixed rate reaches {:.1} % of the possible, `auto` {:.1} % of the best fixed rate.\n",
            100.0 * fixed / possible,
            100.0 * auto / fixed
        ));
    }
    for (pace, flow) in flows {
        if let Some((worst, _)) = flow.tcp {
            text.push_str(&format!(
                "- TCP beside it never had less than {:.1} % of the link in any second.\n",
                100.0 * worst / f64::from(LINK_MEGABITS)
            ));
        }
        if pace.rate == "auto" {
            let beside = if pace.beside_tcp { ", beside TCP" } else { "" };
            text.push_str(&format!(
                "\n```\nauto{beside}\n  {}\n```\n",
                flow.changes.join("\n  ")
            ));
        }
    }
    Ok(text)
}

/// A TCP stream from the sender's host to the receiver's, which takes what it gets.
struct Stream {
    source: Program,
    sink: Program,
}

impl Stream {
    fn start(hall: &Hall) -> Result<Stream> {
        let program = std::env::current_exe().context("finding this program")?;
        let sink = Program::start("the TCP sink", "r1", &program, ["--tcp-sink", SINK])?;
        let source = Program::start(
            "the TCP source",
            hall.sender(),
            &program,
            ["--tcp-source", SINK],
        )?;
        let before = hall.carried()?;
        wait_until("the TCP stream", LIMIT, || {
            Ok(hall.carried()? > before + EDGE)
        })?;
        thread::sleep(LEAD);
        Ok(Stream { source, sink })
    }

    /// Ends it: Mbit/s of its worst second and the mean, between two moments.
    fn end(self, from: u64, to: u64) -> Result<(f64, f64)> {
        self.source.kill()?;
        let said = self.sink.succeed(LIMIT)?.stdout;
        let notes: Vec<(u64, u64)> =
            serde_json::from_str(&said).context("reading the notes of the TCP sink")?;
        let within: Vec<u64> = notes
            .into_iter()
            .filter(|(at, _)| (from..to).contains(at))
            .map(|(_, bytes)| bytes)
            .collect();
        let notes_in_second = (SECOND.as_millis() / NOTE.as_millis()) as usize;
        let worst = within
            .windows(notes_in_second)
            .map(|second| second.iter().sum::<u64>())
            .min()
            .context("the transfer was shorter than a second")?;
        let mean = within.iter().sum::<u64>() as f64 / within.len() as f64 * notes_in_second as f64;
        Ok((worst as f64 * 8e-6, mean * 8e-6))
    }
}

/// Takes one stream until it ends and prints how many bytes came in each tenth of a second.
pub(crate) fn sink(address: SocketAddrV4) -> Result<()> {
    let listener = TcpListener::bind(address).context("listening for the TCP stream")?;
    let (mut stream, _) = listener.accept().context("taking the TCP stream")?;
    stream
        .set_read_timeout(Some(NOTE))
        .context("limiting the wait")?;
    let mut notes: Vec<(u64, u64)> = Vec::new();
    let (mut buffer, mut bytes, mut due) = (vec![0; 1 << 18], 0, Instant::now() + NOTE);
    loop {
        let ended = match stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                bytes += count as u64;
                false
            }
            Err(error) => !is_pause(&error),
        };
        // A tenth in which nobody looked carried what came after it.
        while Instant::now() >= due {
            notes.push((moment(), std::mem::take(&mut bytes)));
            due += NOTE;
        }
        if ended {
            println!("{}", serde_json::to_string(&notes)?);
            return Ok(());
        }
    }
}

/// Whether a read only took longer than the pause between two notes.
fn is_pause(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// Sends as fast as TCP lets it, until it is killed.
pub(crate) fn source(address: SocketAddrV4) -> Result<()> {
    let mut stream = connect(address)?;
    let block = vec![0x5a; 1 << 17];
    loop {
        stream.write_all(&block).context("sending by TCP")?;
    }
}

/// The sink may still be starting.
fn connect(address: SocketAddrV4) -> Result<TcpStream> {
    let mut stream = None;
    wait_until("the TCP sink", LIMIT, || {
        stream = TcpStream::connect(address).ok();
        Ok(stream.is_some())
    })?;
    stream.context("the TCP sink is gone")
}

/// Milliseconds that two processes of this machine agree on.
fn moment() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    clock.map_or(0, |since| since.as_millis() as u64)
}
