//! One flash job: choose the disk, join the session, write, read back, commit.
//!
//! ```text
//!   choose disk ─▶ open ─▶ join ─▶ survey ─▶ receive ─▶ read back ─▶ commit ─▶ report
//!        │           │       │        │        │ ▲          │           │
//!        ▼           ▼       ▼        ▼        ▼ └──wrong───┘           ▼
//!     nothing was written    └─ silent, other session: again      disk cannot boot
//! ```
//!
//! Before the commit the disk cannot boot half an image; at any point the job can simply be
//! run again, and the survey finds what is right already.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netflash_imager::{
    DeployEvent, DeployObserver, DeployOptions, DeployPhase, DeployReport, FreePolicy, ImageId,
    Scope, Target, TargetOptions, VerifyPolicy,
};
use netflash_multicast::{
    AgentKey, Bypass, HandoverError, InterfaceChoice, MAX_NAME_BYTES, ObjectId, ReceiveConfig,
    ReceiveError, ReceiveEvent, ReceiveReport, ReceiverError, ReceiverStats, VerifyKey,
    receive_beside,
};
use netflash_pxe::{
    DiskInfo, DiskSelector, EventKind, FallbackReport, FlashOrder, FlashScope, JobReport, Phase,
    Progress, SealedKeys, plain,
};

use crate::console::Console;
use crate::detour::ServerDetour;
use crate::disks;
use crate::events::{Events, Wish};
use crate::server::Server;
use crate::sink::{DeploySink, Tally};

/// A sender not heard for this long is gone, or multicast does not pass. Long, because beginning
/// again costs a survey, and the server says sooner when the session is another.
const SILENCE: Duration = Duration::from_secs(300);
/// How long a session is searched for before the server is asked again.
const SEARCH: Duration = Duration::from_secs(60);
/// How long multicast may fail before the server is asked for what lacks.
const MULTICAST_PATIENCE: Duration = Duration::from_secs(10);
/// How often the switch is told again that this machine listens: less than any ageing time.
const REMIND: Duration = Duration::from_secs(60);
/// Span the shown rate is taken over.
const RATE_SPAN: Duration = Duration::from_secs(5);
/// Samples of the rate kept.
const RATE_SAMPLES: usize = 16;

/// How a flash ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The disk is the image.
    Done(JobReport),
    /// Something passing: ask the server and try again.
    Again(String),
    /// The server called it off.
    Cancelled,
}

/// What a flash needs of its surroundings.
pub(crate) struct Flash<'a> {
    /// The job's number at the server.
    pub job: u64,
    /// Where to fetch what multicast does not bring.
    pub server: &'a Arc<Server>,
    /// What to do.
    pub order: &'a FlashOrder,
    /// Which partitions.
    pub scope: &'a FlashScope,
    /// What the keys of the session are sealed to.
    pub key: &'a AgentKey,
    /// The disk the kernel command line names, where the order says `auto`.
    pub disk: Option<&'a DiskSelector>,
    /// The machine's name, for the sender's list.
    pub name: &'a str,
    /// Our address on the card to receive by.
    pub address: String,
    /// Whom to tell.
    pub events: &'a Events,
    /// Where to show it.
    pub console: &'static Console,
    /// Set when the server wants the job to end.
    pub stop: Arc<AtomicBool>,
}

impl Flash<'_> {
    /// Runs the job to its end.
    ///
    /// # Errors
    /// Why it failed, in words for the operator. The disk is unchanged or cannot boot.
    pub(crate) fn run(&self) -> Result<Outcome, String> {
        let started = Instant::now();
        let receive_config = match self.receive_config() {
            Ok(config) => config,
            Err(error) => return Ok(Outcome::Again(error.to_string())),
        };
        let options = self.options()?;
        let (disk, target) = self.open_disk()?;
        let tally = Arc::new(Tally::default());
        let image = ImageId(self.order.image_id.0);
        let mut sink = DeploySink::new(
            image,
            target,
            options,
            self.observer(&disk.path),
            tally.clone(),
        );
        self.enter(Phase::Joining, &disk.path, "waiting for the session");
        let mut watch = Watch {
            flash: self,
            disk: &disk.path,
            tally: &tally,
            stats: ReceiverStats::default(),
            samples: VecDeque::new(),
        };
        let way = ServerDetour::new(Arc::clone(self.server), self.job);
        let bypass = Bypass {
            way: Box::new(way),
            patience: MULTICAST_PATIENCE,
        };
        let received = receive_beside(
            receive_config,
            Some(bypass),
            &mut sink,
            |event| watch.see(event),
            &self.stop,
        );
        let received = match received {
            Ok(report) => report,
            Err(error) => return self.interrupted(error),
        };
        self.enter(
            Phase::Committing,
            &disk.path,
            "writing the partition tables",
        );
        let deploy = sink
            .into_deploy()
            .ok_or("the transfer ended without a disk")?;
        let deployed = deploy.commit().map_err(|error| chain(&error))?;
        let report = self.report(&disk, started, &received, &deployed, &tally);
        Ok(Outcome::Done(report))
    }

    /// Chooses exactly one disk and claims it. Nothing is written here.
    fn open_disk(&self) -> Result<(DiskInfo, Target), String> {
        let disk = disks::choose(&self.order.disk, self.disk)?;
        let target = disks::open(Path::new(&disk.path), TargetOptions::default())?;
        Ok((disk, target))
    }

    fn options(&self) -> Result<DeployOptions, String> {
        let scope = Scope::of(&self.scope.only, &self.scope.keep);
        let scope = scope.map_err(|error| error.to_string())?;
        Ok(DeployOptions {
            scope,
            incomplete: self.scope.incomplete,
            free: free_policy(self.order.free),
            verify: match self.order.verify {
                netflash_pxe::VerifyPolicy::Full => VerifyPolicy::Full,
                netflash_pxe::VerifyPolicy::Sample => VerifyPolicy::Sample,
            },
            stop: self.stop.clone(),
            ..DeployOptions::default()
        })
    }

    fn receive_config(&self) -> Result<ReceiveConfig, HandoverError> {
        let ticket = &self.order.session;
        let open = |keys: &SealedKeys| self.key.open(&keys.0, ticket.session);
        let membership = ticket.keys.as_ref().map(open).transpose()?;
        let mut name = plain(self.name, MAX_NAME_BYTES);
        while name.len() > MAX_NAME_BYTES {
            name.pop();
        }
        Ok(ReceiveConfig {
            interface: InterfaceChoice::Named(self.address.clone()),
            group: ticket.group,
            name,
            session: Some(ticket.session),
            verify_key: Some(VerifyKey(ticket.verify_key.0)),
            membership,
            object_id: Some(ObjectId(self.order.image_id.0)),
            search: Some(SEARCH),
            silence: SILENCE,
            merging: true,
            remind: Some(REMIND),
        })
    }

    /// What is being written, to show.
    fn image(&self) -> String {
        let name = &self.order.image_name;
        if self.scope.is_plain() {
            name.clone()
        } else {
            format!("{name} ({})", self.scope)
        }
    }

    fn enter(&self, phase: Phase, disk: &str, words: &str) {
        let image = self.image();
        self.console.phase(&format!("{image} on {disk}: {words}"));
        self.events.phase(phase, Some(disk.to_owned()));
    }

    /// Shows survey and read-back; writing is shown by what is received.
    fn observer(&self, disk: &str) -> DeployObserver {
        let console = self.console;
        let shown = std::sync::Mutex::new(Instant::now());
        let disk = disk.to_owned();
        let image = self.image();
        Arc::new(move |event: DeployEvent| {
            let words = match event.phase {
                DeployPhase::Survey => "comparing what is on the disk already",
                DeployPhase::Verify => "reading back",
                DeployPhase::Write | DeployPhase::Commit => return,
            };
            // Told once a frame, by several threads: one of them shows it, twice a second.
            let Ok(mut shown) = shown.try_lock() else {
                return;
            };
            if shown.elapsed() < Duration::from_millis(500) {
                return;
            }
            *shown = Instant::now();
            console.status(
                &format!("{image} on {disk}: {words}"),
                Progress {
                    done_bytes: event.done_bytes,
                    total_bytes: event.total_bytes,
                    ..Progress::default()
                },
            );
        })
    }

    /// What a transfer that did not end well means for the job.
    fn interrupted(&self, error: ReceiveError) -> Result<Outcome, String> {
        match (self.events.wish(), &error) {
            (Wish::Cancel, _) => Ok(Outcome::Cancelled),
            (Wish::Rejoin, _) => Ok(Outcome::Again("the server sends in another session".into())),
            // A card without its address or link is one for a moment.
            (
                Wish::None,
                ReceiveError::NoSession { .. }
                | ReceiveError::Interface(_)
                | ReceiveError::Open { .. }
                | ReceiveError::Network(_)
                | ReceiveError::Session(ReceiverError::Silent { .. } | ReceiverError::Ended { .. }),
            ) => Ok(Outcome::Again(chain(&error))),
            _ => Err(chain(&error)),
        }
    }

    fn report(
        &self,
        disk: &DiskInfo,
        started: Instant,
        received: &ReceiveReport,
        deployed: &DeployReport,
        tally: &Tally,
    ) -> JobReport {
        if let Some(reason) = &deployed.stale_table {
            log::warn!(
                "disk={} the kernel keeps the old table: {reason}",
                disk.path
            );
        }
        JobReport {
            image_id: self.order.image_id,
            disk: disk.path.clone(),
            seconds: started.elapsed().as_secs_f64(),
            received_bytes: received.stats.useful_bytes + received.stats.detour_bytes,
            repair_symbols: received.stats.repair_symbols,
            lost_symbols: received.stats.lost,
            kept_frames: tally.kept_frames.load(Ordering::Relaxed),
            written_frames: deployed.written_frames,
            // The commit refuses what was not settled, and settling is reading back.
            verified: true,
            fallback: received.detour.as_ref().map(|detour| FallbackReport {
                reason: detour.reason.to_string(),
                blocks: detour.blocks,
                bytes: detour.bytes,
            }),
        }
    }
}

/// Turns the receiver's events into what people and the server are told.
struct Watch<'a> {
    flash: &'a Flash<'a>,
    disk: &'a str,
    tally: &'a Tally,
    stats: ReceiverStats,
    samples: VecDeque<(Instant, u64)>,
}

impl Watch<'_> {
    fn see(&mut self, event: ReceiveEvent) {
        match event {
            ReceiveEvent::Open { interface } => log::info!("receiving card={}", interface.name()),
            ReceiveEvent::Obstacle(obstacle) => log::warn!("state=searching {obstacle}"),
            ReceiveEvent::Joined { session, .. } => {
                log::info!("session={session:08x} state=joined");
            }
            ReceiveEvent::Surveying => {
                let words = "comparing what is on the disk already";
                self.flash.enter(Phase::Surveying, self.disk, words);
            }
            ReceiveEvent::Surveyed { blocks, wanted } => {
                log::info!("survey blocks={blocks} wanted={wanted}");
                self.flash.enter(Phase::Receiving, self.disk, "receiving");
            }
            ReceiveEvent::Blocked { reason } => {
                let text = format!("{reason} What lacks is fetched over HTTP.");
                self.flash.console.trouble(std::slice::from_ref(&text));
                self.flash.events.push(EventKind::Note { text });
            }
            ReceiveEvent::Detour { trouble } => {
                let text = format!("multicast does not pass; over HTTP: {trouble}");
                self.flash.console.trouble(&[text]);
            }
            ReceiveEvent::Unblocked => {
                log::info!("multicast is back");
                self.flash.console.trouble(&[]);
            }
            ReceiveEvent::Settling => {
                self.flash
                    .enter(Phase::Verifying, self.disk, "reading back");
            }
            ReceiveEvent::Complete => log::info!("transfer complete"),
            ReceiveEvent::Progress { stats, .. } => {
                if self.stats.source_symbols == 0 && stats.source_symbols > 0 {
                    log::info!("first data received");
                }
                self.stats = stats;
                self.tell();
            }
        }
    }

    fn tell(&mut self) {
        let done_bytes = self.tally.done_bytes.load(Ordering::Relaxed);
        let progress = Progress {
            done_bytes,
            total_bytes: self.tally.total_bytes.load(Ordering::Relaxed),
            received_bytes: self.stats.useful_bytes + self.stats.detour_bytes,
            bytes_per_second: self.rate(done_bytes),
            repair_symbols: self.stats.repair_symbols,
            lost_symbols: self.stats.lost,
        };
        // Before the manifest nobody knows how much it will be.
        if progress.total_bytes > 0 {
            self.flash.console.progress(progress);
        }
        self.flash.events.push(EventKind::Progress(progress));
    }

    /// Disk bytes a second over the last seconds.
    fn rate(&mut self, done_bytes: u64) -> u64 {
        let now = Instant::now();
        while self.samples.len() >= RATE_SAMPLES
            || (self.samples.len() > 1 && now - self.samples[0].0 > RATE_SPAN)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, done_bytes));
        let (since, from) = self.samples[0];
        let span = (now - since).as_secs_f64();
        if span < 0.1 {
            return 0;
        }
        (done_bytes.saturating_sub(from) as f64 / span) as u64
    }
}

/// The order's word as the imager has it.
pub(crate) fn free_policy(ordered: netflash_pxe::FreePolicy) -> FreePolicy {
    match ordered {
        netflash_pxe::FreePolicy::Leave => FreePolicy::Leave,
        netflash_pxe::FreePolicy::Discard => FreePolicy::Discard,
        netflash_pxe::FreePolicy::Zero => FreePolicy::Zero,
    }
}

/// An error with its causes, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        // Some errors repeat their cause in their own words.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}
