//! One order to compare: choose the disk, fetch the manifest, read, report. Nothing is written.
//!
//! ```text
//!   choose disk ─▶ manifest, in the server's queue ─▶ open, read only ─▶ read and hash ─▶ report
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use netflash_imager::{
    AuditDepth, DeployError, DeployObserver, DeployOptions, Manifest, Place, TargetOptions, audit,
};
use netflash_pxe::{
    CompareOrder, ComparePlace, CompareReport, DiskSelector, EventKind, PLACES_MAX, Phase, Progress,
};

use crate::console::Console;
use crate::disks;
use crate::events::{Events, Wish};
use crate::flash::{chain, free_policy};
use crate::server::{Server, ServerError};

/// Pause before a server that is away is asked again.
const RETRY: Duration = Duration::from_secs(2);
/// How often a pause looks at the stop flag.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);

/// How a comparison ended.
#[derive(Debug)]
pub(crate) enum Compared {
    /// The disk was read.
    Known(CompareReport),
    /// The server called it off.
    Cancelled,
}

/// What a comparison needs of its surroundings.
pub(crate) struct Compare<'a> {
    /// The job's number at the server.
    pub job: u64,
    /// Who has the manifest.
    pub server: &'a Arc<Server>,
    /// What to do.
    pub order: &'a CompareOrder,
    /// The disk the kernel command line names, where the order says `auto`.
    pub disk: Option<&'a DiskSelector>,
    /// Whom to tell.
    pub events: &'a Events,
    /// Where to show it.
    pub console: &'static Console,
    /// Set when the server wants the job to end.
    pub stop: Arc<AtomicBool>,
}

impl Compare<'_> {
    /// Runs the order to its end.
    ///
    /// # Errors
    /// Why it failed, in words for the operator.
    pub(crate) fn run(&self) -> Result<Compared, String> {
        let started = Instant::now();
        let disk = disks::choose(&self.order.disk, self.disk)?.path;
        self.enter(Phase::Joining, &disk, "fetching what it shall be");
        let Some(manifest) = self.manifest()? else {
            return Ok(Compared::Cancelled);
        };
        let target = disks::open(
            Path::new(&disk),
            TargetOptions {
                read_only: true,
                ..TargetOptions::default()
            },
        )?;
        self.enter(Phase::Surveying, &disk, "comparing, nothing is written");
        let options = DeployOptions {
            free: free_policy(self.order.free),
            stop: self.stop.clone(),
            ..DeployOptions::default()
        };
        let depth = match self.order.brief {
            true => AuditDepth::FirstDifference,
            false => AuditDepth::Whole,
        };
        let audited = audit(
            Arc::clone(&manifest),
            target,
            &options,
            depth,
            &self.observer(),
        );
        let audited = match audited {
            Err(DeployError::Stopped) if self.events.wish() == Wish::Cancel => {
                return Ok(Compared::Cancelled);
            }
            audited => audited.map_err(|error| chain(&error))?,
        };
        let mut places = audited.places(&manifest);
        places.retain(|place| place.differing_frames > 0);
        places.truncate(PLACES_MAX);
        Ok(Compared::Known(CompareReport {
            image_id: self.order.image_id,
            disk,
            seconds: started.elapsed().as_secs_f64(),
            equal: audited.is_clean(),
            complete: audited.complete,
            tables_right: audited.tables_right,
            right_frames: audited.right_frames,
            differing_frames: audited.differing.len() as u64,
            differing_bytes: audited.differing_bytes(&manifest),
            places: places.into_iter().map(told).collect(),
        }))
    }

    /// What the disk shall hold; nothing when the job was cancelled while it waited in the queue.
    fn manifest(&self) -> Result<Option<Arc<Manifest>>, String> {
        loop {
            let pause = match self.server.manifest(self.job) {
                Ok(bytes) => {
                    let manifest = Manifest::parse(&bytes).map_err(|error| chain(&error))?;
                    if manifest.id().0 != self.order.image_id.0 {
                        return Err("the server gave the manifest of another image".to_owned());
                    }
                    return Ok(Some(Arc::new(manifest)));
                }
                // Whoever asks later than this loses its place.
                Err(ServerError::Busy { again, .. }) => again,
                Err(error) if error.may_pass() => {
                    log::warn!("job={} {error}", self.job);
                    RETRY
                }
                Err(error) => return Err(chain(&error)),
            };
            let end = Instant::now() + pause;
            while Instant::now() < end {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                thread::sleep(LOOK);
            }
        }
    }

    fn enter(&self, phase: Phase, disk: &str, words: &str) {
        let image = &self.order.image_name;
        self.console.phase(&format!("{disk} and {image}: {words}"));
        self.events.phase(phase, Some(disk.to_owned()));
    }

    /// Told once a frame, by several threads: one of them tells it on, twice a second.
    fn observer(&self) -> DeployObserver {
        let (console, events) = (self.console, self.events.clone());
        let begun = Instant::now();
        let told = Mutex::new(begun);
        Arc::new(move |event| {
            let Ok(mut told) = told.try_lock() else {
                return;
            };
            if told.elapsed() < TELL {
                return;
            }
            *told = Instant::now();
            let seconds = begun.elapsed().as_secs_f64().max(0.001);
            let progress = Progress {
                done_bytes: event.done_bytes,
                total_bytes: event.total_bytes,
                bytes_per_second: (event.done_bytes as f64 / seconds) as u64,
                ..Progress::default()
            };
            console.progress(progress);
            events.push(EventKind::Progress(progress));
        })
    }
}

fn told(place: Place) -> ComparePlace {
    ComparePlace {
        partition: place.partition,
        fs: place.fs,
        label: place.label,
        differing_frames: place.differing_frames,
        differing_bytes: place.differing_bytes,
        first_offset: place.first_offset,
    }
}
