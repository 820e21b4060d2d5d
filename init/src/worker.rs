//! The worker: everything a machine does between its mounts and its last action.
//!
//! ```text
//!   drivers ∥ network ─▶ trust ─▶ hello ─▶ job? ─no──▶ wait ──┐
//!                          │        │       ▲ │               │
//!                          ▼        ▼       │ yes─▶ run ─▶ last action
//!                       restart   again     └──────┴──────────┘
//! ```
//! Without a token it knocks between trust and hello, until the server has one for it.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use netflash_multicast::AgentKey;
use netflash_pxe::{
    CaptureOrder, CompareOrder, EventKind, FlashOrder, FlashScope, Hello, Hex32, Job, JobAnswer,
    KernelParams, LastAction, LogLevel, Order, PartialFlashOrder, Welcome,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::capture::{Capture, Captured};
use crate::coldplug::Coldplug;
use crate::compare::{Compare, Compared};
use crate::console::{self, Console};
use crate::events::Events;
use crate::flash::{Flash, Outcome};
use crate::keeper::Ending;
use crate::modules::ModuleIndex;
use crate::network::{Network, Wiring};
use crate::server::Server;
use crate::trust::{self, Trust};
use crate::{disks, knock, machine};

/// How long the first built-in disk may take to appear before the server is told there is none.
const DISK_WAIT: Duration = Duration::from_secs(30);
/// How often a waiting machine says what it waits for.
const NETWORK_NEWS: Duration = Duration::from_secs(10);
/// First and longest pause before the server is asked again.
pub(crate) const RETRY_MIN: Duration = Duration::from_secs(1);
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(30);
/// Bounds for the server's idea of how often to ask.
pub(crate) const POLL_MIN: Duration = Duration::from_secs(1);
pub(crate) const POLL_MAX: Duration = Duration::from_secs(300);
/// How long the end of a job is offered to a server that is away.
const TELL_MAX: Duration = Duration::from_secs(300);
/// How long last words may take on a slow console.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Works until something shall happen to the whole machine.
///
/// # Errors
/// When only a new start of the machine can help; it was said on every console why.
pub(crate) fn work() -> Result<Ending, ()> {
    panic::set_hook(Box::new(|info| {
        console::shout(&format!("netflash: the agent stopped by a defect: {info}"));
    }));
    let (params, warnings) = crate::kernel_params();
    let level = level_of(params.log.unwrap_or_default());
    console::set_kernel_log(level >= LevelFilter::Debug);
    let console = Console::start(level);
    console.phase("looking at the hardware");
    for warning in warnings {
        log::warn!("{warning}");
    }
    let worker = Worker {
        params,
        console,
        sequence: Arc::new(AtomicU64::new(0)),
    };
    let outcome = worker.run();
    if let Err(lines) = &outcome {
        console.trouble(lines);
    }
    console.drain(DRAIN_MAX);
    outcome.map_err(drop)
}

struct Worker {
    params: KernelParams,
    console: &'static Console,
    /// Number of the next event.
    sequence: Arc<AtomicU64>,
}

/// A job and what every kind of job needs.
struct Running<'a> {
    /// The job's number at the server.
    id: u64,
    server: &'a Arc<Server>,
    /// Whom to tell.
    events: &'a Events,
    /// Set when the server wants the job to end.
    stop: Arc<AtomicBool>,
}

/// How a job ended that did not fail.
enum Ended {
    /// It is done, with the event that says so; a capture is told by the server to itself.
    Done(Option<EventKind>),
    /// Something passing: ask the server and try again.
    Again(String),
    /// The server called it off.
    Cancelled,
}

/// What is shown when only a new start can help.
type Trouble = Vec<String>;

impl Worker {
    fn run(&self) -> Result<Ending, Trouble> {
        let wiring = Wiring::new(&self.params, machine::uuid_bytes());
        let modules = wiring.modules();
        let drivers = thread::Builder::new()
            .name("drivers".into())
            .spawn(move || load_drivers(&modules));
        if let Err(error) = drivers {
            return Err(vec![format!("drivers cannot be loaded: {error}")]);
        }
        let trust = Trust::read(self.params.server).map_err(|error| vec![error.to_string()])?;
        let started = Instant::now();
        let network = self.wait_for_network(wiring.towards(&trust.server));
        let disks = disks::wait_for_one(DISK_WAIT.saturating_sub(started.elapsed()));
        let links = network.links();
        let key = AgentKey::generate().map_err(|error| vec![error.to_string()])?;
        let hello = Hello {
            token: trust.token.clone().unwrap_or_default(),
            identity: machine::identity(&links, self.params.iface.as_ref()),
            inventory: machine::inventory(disks, &links),
            agent_key: Hex32(key.public()),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        show_inventory(&hello);
        let server = Server::new(&trust, hello).map_err(|error| vec![error.to_string()])?;
        let server = match &trust.token {
            Some(_) => server,
            None => knock::admitted(self.console, server, &network)?,
        };
        let server = Arc::new(server);
        let welcome = self.say_hello(&server, &network)?;
        trust::forget_token();
        self.console.machine(&welcome.name);
        set_clock(welcome.server_time);
        log::info!(
            "machine={} name={} state=welcome",
            welcome.machine,
            welcome.name
        );
        if welcome.job.is_none() {
            self.console.phase("waiting for a job");
        }
        Ok(self.serve(&server, &key, welcome))
    }

    fn wait_for_network(&self, wiring: Wiring) -> Network {
        let network = Network::start(wiring);
        self.console.phase("waiting for the network");
        while !network.wait(NETWORK_NEWS) {
            log::warn!("still no network: {}", network.describe());
        }
        network
    }

    /// Says hello until the server answers; only a refusal ends it.
    fn say_hello(&self, server: &Server, network: &Network) -> Result<Welcome, Trouble> {
        let address = server.address();
        self.console
            .phase(&format!("saying hello to server {address}"));
        let mut pause = RETRY_MIN;
        loop {
            match server.hello() {
                Ok(welcome) => return Ok(welcome),
                Err(error) if error.may_pass() => {
                    let cards = network.describe();
                    let advice = format!("is the server running, and reachable from here? {cards}");
                    self.console.trouble(&[error.to_string(), advice]);
                    thread::sleep(pause);
                    pause = (pause * 2).min(RETRY_MAX);
                }
                Err(error) => {
                    let advice = "this machine must boot over the network again".to_owned();
                    return Err(vec![error.to_string(), advice]);
                }
            }
        }
    }

    /// Does job after job until one ends with something for the whole machine.
    fn serve(&self, server: &Arc<Server>, key: &AgentKey, welcome: Welcome) -> Ending {
        let mut answer = JobAnswer {
            job: welcome.job,
            poll_seconds: welcome.poll_seconds,
        };
        let mut is_idle = false;
        let mut retry = RETRY_MIN;
        loop {
            match &answer.job {
                Some(job) => {
                    is_idle = false;
                    if let Some(ending) = self.run_job(server, key, &welcome.name, job) {
                        return ending;
                    }
                    // The server may need a moment to see that the job is over.
                    thread::sleep(POLL_MIN);
                }
                None => {
                    if !is_idle {
                        is_idle = true;
                        log::info!("no job state=idle poll={}", answer.poll_seconds);
                    }
                    let pause = Duration::from_secs(answer.poll_seconds.into());
                    thread::sleep(pause.clamp(POLL_MIN, POLL_MAX));
                }
            }
            answer = loop {
                match server.job() {
                    Ok(answer) => break answer,
                    Err(error) => {
                        log::warn!("{error}");
                        thread::sleep(retry);
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                }
            };
            retry = RETRY_MIN;
        }
    }

    /// One job; what it means for the machine, or nothing when it shall ask for the next.
    fn run_job(
        &self,
        server: &Arc<Server>,
        key: &AgentKey,
        name: &str,
        job: &Job,
    ) -> Option<Ending> {
        let session = match &job.order {
            Order::Flash(order) => order.session.session,
            Order::PartialFlash(order) => order.flash.session.session,
            Order::Capture(_) | Order::Compare(_) => 0,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let events = Events::start(
            server.clone(),
            job.id,
            session,
            self.sequence.clone(),
            stop.clone(),
        );
        let running = Running {
            id: job.id,
            server,
            events: &events,
            stop,
        };
        let outcome = match &job.order {
            Order::Flash(order) => {
                log::info!(
                    "job={} order=flash image={} session={session:08x}",
                    job.id,
                    order.image_name
                );
                self.flash(running, key, name, order, &FlashScope::default())
            }
            Order::PartialFlash(PartialFlashOrder { flash, scope }) => {
                log::info!(
                    "job={} order=flash image={} session={session:08x} partitions={scope:?}",
                    job.id,
                    flash.image_name,
                    scope = scope.to_string()
                );
                self.flash(running, key, name, flash, scope)
            }
            Order::Capture(order) => {
                log::info!("job={} order=capture image={}", job.id, order.image_name);
                self.capture(running, order)
            }
            Order::Compare(order) => {
                log::info!("job={} order=compare image={}", job.id, order.image_name);
                self.compare(running, order)
            }
        };
        match outcome {
            Ok(Ended::Done(last_word)) => {
                // A disk that differs is flashed now, if that was the question.
                let goes_on = matches!(
                    (&last_word, &job.order),
                    (Some(EventKind::Compared(report)), Order::Compare(order))
                        if order.brief && !report.equal
                );
                if let Some(event) = last_word {
                    events.push(event);
                }
                if !events.finish(TELL_MAX) {
                    log::warn!("job={} the server could not be told", job.id);
                }
                match goes_on {
                    true => None,
                    false => self.last_action(job.last),
                }
            }
            Ok(Ended::Again(reason)) => {
                log::warn!("job={} {reason}; asking the server again", job.id);
                events.push(EventKind::Note { text: reason });
                events.finish(RETRY_MAX);
                None
            }
            Ok(Ended::Cancelled) => {
                self.console.phase("the job was cancelled");
                events.finish(RETRY_MAX);
                None
            }
            Err(reason) => {
                self.console.phase("the job failed");
                let advice = "this machine waits for its next job".to_owned();
                self.console.trouble(&[reason.clone(), advice]);
                events.push(EventKind::Failed { reason });
                events.finish(TELL_MAX);
                None
            }
        }
    }

    fn flash(
        &self,
        running: Running<'_>,
        key: &AgentKey,
        name: &str,
        order: &FlashOrder,
        scope: &FlashScope,
    ) -> Result<Ended, String> {
        let job = running.id;
        let address = match running.server.local_address() {
            Ok(address) => address,
            // The cable may be out, or the address gone for a moment.
            Err(error) => return Ok(Ended::Again(format!("no way to the server: {error}"))),
        };
        let flash = Flash {
            job,
            server: running.server,
            order,
            scope,
            key,
            disk: self.params.disk.as_ref(),
            name,
            address: address.to_string(),
            events: running.events,
            console: self.console,
            stop: running.stop,
        };
        Ok(match flash.run()? {
            Outcome::Done(report) => {
                self.console
                    .phase(&format!("{} is on {}", order.image_name, report.disk));
                log::info!(
                    "job={job} state=done seconds={:.1} kept={} written={} received={} repairs={} lost={}",
                    report.seconds,
                    report.kept_frames,
                    report.written_frames,
                    report.received_bytes,
                    report.repair_symbols,
                    report.lost_symbols
                );
                Ended::Done(Some(EventKind::Done(report)))
            }
            Outcome::Again(reason) => Ended::Again(reason),
            Outcome::Cancelled => Ended::Cancelled,
        })
    }

    fn capture(&self, running: Running<'_>, order: &CaptureOrder) -> Result<Ended, String> {
        let job = running.id;
        let capture = Capture {
            job,
            server: running.server,
            order,
            disk: self.params.disk.as_ref(),
            events: running.events,
            console: self.console,
            stop: running.stop,
        };
        Ok(match capture.run()? {
            Captured::Ready => {
                self.console
                    .phase(&format!("the server has {}", order.image_name));
                log::info!("job={job} state=done image={}", order.image_name);
                Ended::Done(None)
            }
            Captured::Cancelled => Ended::Cancelled,
        })
    }

    fn compare(&self, running: Running<'_>, order: &CompareOrder) -> Result<Ended, String> {
        let compare = Compare {
            job: running.id,
            server: running.server,
            order,
            disk: self.params.disk.as_ref(),
            events: running.events,
            console: self.console,
            stop: running.stop,
        };
        Ok(match compare.run()? {
            Compared::Known(report) => {
                self.console.phase(&report.sentence());
                log::info!(
                    "job={} state=compared equal={} seconds={:.1} right={} differing={}",
                    running.id,
                    report.equal,
                    report.seconds,
                    report.right_frames,
                    report.differing_frames
                );
                Ended::Done(Some(EventKind::Compared(report)))
            }
            Compared::Cancelled => Ended::Cancelled,
        })
    }

    fn last_action(&self, last: LastAction) -> Option<Ending> {
        let (words, ending) = match last {
            LastAction::Reboot => ("rebooting", Some(Ending::Reboot)),
            LastAction::PowerOff => ("powering off", Some(Ending::PowerOff)),
            LastAction::Wait => ("waiting for the next job", None),
        };
        log::info!("{words}");
        ending
    }
}

fn load_drivers(more: &[&str]) {
    match ModuleIndex::of_running_kernel() {
        Ok(index) => Coldplug::new(index).start(more),
        Err(error) => {
            log::error!("no drivers: {error}; was the initramfs made for another kernel?");
        }
    }
}

fn show_inventory(hello: &Hello) {
    let inventory = &hello.inventory;
    log::info!(
        "{} {}, {} x {}, {} MiB, {:?} firmware",
        inventory.manufacturer,
        inventory.product,
        inventory.cpu_count,
        inventory.cpu,
        inventory.memory_bytes >> 20,
        inventory.firmware
    );
    for disk in &inventory.disks {
        log::info!(
            "disk={} bytes={} serial={} bus={} model={}",
            disk.path,
            disk.bytes,
            disk.serial.as_deref().unwrap_or("-"),
            disk.transport,
            disk.model
        );
    }
    for nic in &inventory.nics {
        log::info!("card={} mac={} driver={}", nic.name, nic.mac, nic.driver);
    }
    for orphan in &inventory.orphans {
        log::warn!("{orphan}");
    }
    if inventory.disks.is_empty() {
        log::warn!("no disk was found: is its controller set to AHCI or NVMe, not RAID?");
    }
}

/// Takes over the server's time, so that logs agree. The clock of the board is left alone.
fn set_clock(seconds: u64) {
    let Ok(seconds) = i64::try_from(seconds) else {
        return;
    };
    if let Err(error) = clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(seconds, 0)) {
        log::warn!("the clock stays wrong: {error}");
    }
}

fn level_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}
