//! One capture job: choose the disk, read it, send it to the server as an image, wait until the server has checked it.
//!
//! ```text
//!   choose disk ─▶ open, read only ─▶ read ∥ compress ∥ send ─▶ the server checks ─▶ ready
//!                                        ▲        │
//!                                        └─ the server has another beginning: once more, from the start
//! ```
//! Nothing is ever written to the disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netflash_imager::{
    PartitionSetError, SealError, SealOptions, SealProgress, Sealed, Source, Whole, WholeError,
    seal_to,
};
use netflash_pxe::{
    CAPTURE_NOTES_MAX, CaptureEnd, CaptureOrder, CaptureStage, DiskSelector, EventKind, Hex32,
    Phase, Progress,
};

use crate::console::Console;
use crate::disks;
use crate::events::{Events, Wish};
use crate::flash::chain;
use crate::server::Server;
use crate::upload::{Upload, UploadError, patiently};

/// How often a capture begins anew because the server has another beginning of the image.
const BEGINNINGS_MAX: u32 = 3;
/// How often progress is told.
const TELL: Duration = Duration::from_millis(500);
/// How often the server is asked whether the image is ready.
const POLL: Duration = Duration::from_secs(2);

/// How a capture ended.
#[derive(Debug)]
pub(crate) enum Captured {
    /// The server has the image and has checked it.
    Ready,
    /// The server called it off.
    Cancelled,
}

/// What a capture needs of its surroundings.
pub(crate) struct Capture<'a> {
    /// The job's number at the server.
    pub job: u64,
    /// Where the image goes.
    pub server: &'a Arc<Server>,
    /// What to do.
    pub order: &'a CaptureOrder,
    /// The disk the kernel command line names, where the order says `auto`.
    pub disk: Option<&'a DiskSelector>,
    /// Whom to tell.
    pub events: &'a Events,
    /// Where to show it.
    pub console: &'static Console,
    /// Set when the server wants the job to end.
    pub stop: Arc<AtomicBool>,
}

impl Capture<'_> {
    /// Runs the job to its end.
    ///
    /// # Errors
    /// Why it failed, in words for the operator.
    pub(crate) fn run(&self) -> Result<Captured, String> {
        let started = Instant::now();
        let disk = disks::choose(&self.order.disk, self.disk)?.path;
        self.enter(Phase::Capturing, &disk, "reading and sending");
        let mut beginnings = 1;
        let (sealed, bytes) = loop {
            match self.send(&disk, beginnings > 1) {
                Err(Broken::Upload(UploadError::Diverged)) if beginnings < BEGINNINGS_MAX => {
                    beginnings += 1;
                    log::warn!("job={} the capture begins anew", self.job);
                }
                Err(broken) => return self.broken(broken),
                Ok(sent) => break sent,
            }
        };
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut notes = sealed.notes;
        notes.truncate(CAPTURE_NOTES_MAX);
        for note in &notes {
            log::warn!("disk={disk} {note}");
        }
        let end = CaptureEnd {
            bytes,
            image_id: Hex32(sealed.manifest.id().0),
            disk: disk.clone(),
            took_ms,
            notes,
        };
        self.enter(Phase::Sealing, &disk, "the server checks the image");
        match self.await_ready(&end) {
            Ok(()) => Ok(Captured::Ready),
            Err(error) => self.broken(Broken::Upload(error)),
        }
    }

    /// Reads the disk and sends it; how many bytes the image has.
    fn send(&self, disk: &str, anew: bool) -> Result<(Sealed, u64), Broken> {
        let source =
            Source::device(Path::new(disk)).map_err(|error| Broken::Source(chain(&error)))?;
        let server = Arc::clone(self.server);
        let mut upload = Upload::begin(server, self.job, anew, Arc::clone(&self.stop))?;
        if upload.resumed_bytes() > 0 {
            let text = format!(
                "the server has {:.1} MB of the image from a former start",
                upload.resumed_bytes() as f64 / 1e6
            );
            log::info!("{text}");
            self.events.push(EventKind::Note { text });
        }
        let whole = match self.order.how.whole.as_str() {
            "" => Whole::default(),
            named => named
                .parse()
                .map_err(|error: WholeError| Broken::Source(error.to_string()))?,
        };
        let only = match self.order.how.only.as_str() {
            "" => None,
            named => Some(
                named
                    .parse()
                    .map_err(|error: PartitionSetError| Broken::Source(error.to_string()))?,
            ),
        };
        let options = SealOptions {
            only,
            used_only: self.order.how.used_only,
            whole,
            level: self.order.how.level,
            note: self.order.how.note.clone(),
            parent: None,
            created: self.order.created,
            threads: thread::available_parallelism().map_or(1, usize::from),
        };
        let (begun, mut told) = (Instant::now(), None::<Instant>);
        let mut tell = |progress: SealProgress| {
            if told.is_some_and(|told| told.elapsed() < TELL) {
                return;
            }
            told = Some(Instant::now());
            let seconds = begun.elapsed().as_secs_f64().max(0.001);
            let progress = Progress {
                done_bytes: progress.raw_bytes,
                total_bytes: progress.raw_total.unwrap_or(0),
                received_bytes: progress.stored_bytes,
                bytes_per_second: (progress.raw_bytes as f64 / seconds) as u64,
                ..Progress::default()
            };
            self.console.progress(progress);
            self.events.push(EventKind::Progress(progress));
        };
        let sealed = seal_to(source, &mut upload, &options, &mut tell, &self.stop)?;
        Ok((sealed, upload.taken()))
    }

    /// Says that all is there, and waits until the server has checked it.
    fn await_ready(&self, end: &CaptureEnd) -> Result<(), UploadError> {
        let mut state = patiently(&self.stop, || self.server.capture_end(self.job, end))?;
        loop {
            match state.stage {
                CaptureStage::Ready => return Ok(()),
                CaptureStage::Failed => return Err(UploadError::GivenUp(state.reason)),
                CaptureStage::Capturing => return Err(UploadError::Diverged),
                CaptureStage::Sealing => thread::sleep(POLL),
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(UploadError::Stopped);
            }
            state = patiently(&self.stop, || self.server.capture_state(self.job))?;
        }
    }

    fn enter(&self, phase: Phase, disk: &str, words: &str) {
        let image = &self.order.image_name;
        self.console.phase(&format!("{disk} as {image}: {words}"));
        self.events.phase(phase, Some(disk.to_owned()));
    }

    fn broken(&self, broken: Broken) -> Result<Captured, String> {
        match broken {
            _ if self.events.wish() == Wish::Cancel => Ok(Captured::Cancelled),
            Broken::Source(reason) => Err(reason),
            Broken::Seal(error) => Err(chain(&error)),
            Broken::Upload(error) => Err(chain(&error)),
        }
    }
}

/// Why an image did not get to the server.
enum Broken {
    Source(String),
    Seal(SealError),
    Upload(UploadError),
}

impl From<UploadError> for Broken {
    fn from(error: UploadError) -> Broken {
        Broken::Upload(error)
    }
}

impl From<SealError> for Broken {
    fn from(error: SealError) -> Broken {
        let upload = match error {
            SealError::Sink { source } => source.downcast::<UploadError>(),
            error => return Broken::Seal(error),
        };
        match upload {
            Ok(error) => Broken::Upload(error),
            Err(source) => Broken::Seal(SealError::Sink { source }),
        }
    }
}
