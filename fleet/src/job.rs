//! A machine's job and its states.
//!
//! ```text
//!            image open        seen in iPXE     agent says hello    reads back
//!  queued ──────────────▶ armed ────────▶ booting ────────▶ flashing ────────▶ verifying ──▶ done
//!     │                     ▲ ▲              │ ▲               │ │                  │
//!     │                     │ └─ server ─────┼─┼── restarted ──┘ │                  │
//!     │                     └────────────────┘ └── netboot again ┴──────────────────┘
//!     └───────────▶ cancelled (from every active state)      failed (from every active state)
//! ```
//! *failed*: the agent said so, the image cannot be opened, or the machine booted too often without progress.
//! A capture goes from *booting* to *capturing*, *sealing* (the server checks the image) and *done*; a verify job to
//! *verifying* and to *done* or *differs*. A flash ordered *if different* compares as *flashing* and is *done* without a
//! session when the disk is the image already.
//! Done, differs, failed and cancelled are final.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use netflash_pxe::{
    AgentEvent, CaptureEnd, CaptureHow, CompareReport, DiskSelector, EventKind, FlashScope,
    FreePolicy, JobReport, LastAction, Phase, Progress, VerifyPolicy, plain,
};

mod compare;

pub(crate) use compare::VerifyWish;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// Entered; its image is not being offered yet.
    Queued,
    /// The machine gets the agent when it boots over the network.
    Armed,
    /// The machine was seen in iPXE and was sent to the agent.
    Booting,
    /// The agent has the job.
    Flashing,
    /// The agent reads back and writes the tables.
    Verifying,
    /// The agent sends its disk.
    Capturing,
    /// The server checks what it was sent.
    Sealing,
    /// The image is on the disk, or the disk is an image.
    Done,
    /// The disk was compared with the image and is another.
    Differs,
    /// It did not work.
    Failed,
    /// Somebody changed their mind.
    Cancelled,
}

impl JobState {
    /// All states in the order of a job's life.
    pub(crate) const ALL: [JobState; 11] = [
        JobState::Queued,
        JobState::Armed,
        JobState::Booting,
        JobState::Flashing,
        JobState::Verifying,
        JobState::Capturing,
        JobState::Sealing,
        JobState::Done,
        JobState::Differs,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// Whether the job still wants something of the machine.
    pub(crate) fn is_active(self) -> bool {
        !matches!(
            self,
            JobState::Done | JobState::Differs | JobState::Failed | JobState::Cancelled
        )
    }

    /// The word for tables, JSON and the database.
    pub(crate) fn word(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Armed => "armed",
            JobState::Booting => "booting",
            JobState::Flashing => "flashing",
            JobState::Verifying => "verifying",
            JobState::Capturing => "capturing",
            JobState::Sealing => "sealing",
            JobState::Done => "done",
            JobState::Differs => "differs",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for JobState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.word() == text);
        found.ok_or_else(|| format!("{text:?} is no state of a job"))
    }
}

/// What a flash job asks for. A word misspelt is refused: what it says may be all that stands between a disk and its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlashWish {
    /// Which disk loses its content.
    #[serde(default)]
    pub(crate) disk: DiskSelector,
    /// Which partitions are written.
    #[serde(default)]
    pub(crate) scope: FlashScope,
    /// What becomes of unallocated runs.
    #[serde(default)]
    pub(crate) free: FreePolicy,
    /// How much is read back.
    #[serde(default)]
    pub(crate) verify: VerifyPolicy,
    /// What the machine does afterwards.
    #[serde(default)]
    pub(crate) last: LastAction,
    /// Compare first, and leave a disk alone that is the image already.
    #[serde(default)]
    pub(crate) if_different: bool,
}

/// What a capture job asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptureWish {
    /// Which disk is read.
    #[serde(default)]
    pub(crate) disk: DiskSelector,
    /// How it becomes an image.
    #[serde(default)]
    pub(crate) how: CaptureHow,
    /// What the machine does afterwards.
    #[serde(default)]
    pub(crate) last: LastAction,
}

/// One machine's job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The server's number for it.
    pub(crate) id: u64,
    /// Number of the machine.
    pub(crate) machine: i64,
    /// Its name.
    pub(crate) machine_name: String,
    /// Number of the image.
    pub(crate) image: i64,
    /// Its name.
    pub(crate) image_name: String,
    /// The jobs with the same number share one multicast session.
    pub(crate) batch: i64,
    /// What is asked for.
    pub(crate) wish: FlashWish,
    /// What is asked for when it is a capture.
    #[serde(default)]
    pub(crate) capture: Option<CaptureWish>,
    /// What is asked for when it only compares.
    #[serde(default)]
    pub(crate) verify: Option<VerifyWish>,
    /// How the disk compares with the image, once that was asked for and is known.
    #[serde(default)]
    pub(crate) compared: Option<CompareReport>,
    /// What was captured, once all of it is there.
    #[serde(default)]
    pub(crate) captured: Option<CaptureEnd>,
    /// Where it stands.
    pub(crate) state: JobState,
    /// What the agent is busy with.
    pub(crate) phase: Option<Phase>,
    /// The disk the agent chose.
    pub(crate) disk: Option<String>,
    /// Why it stands there; the error when it failed.
    pub(crate) reason: String,
    /// How far the present agent is.
    pub(crate) progress: Option<Progress>,
    /// The farthest any agent of this job came, in bytes of [`Progress::done_bytes`].
    #[serde(default)]
    pub(crate) best_done_bytes: u64,
    /// How it went.
    pub(crate) report: Option<JobReport>,
    /// Boots of the agent since there was progress.
    pub(crate) fruitless_boots: u32,
    /// Boots of the agent in all.
    pub(crate) boots: u32,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// Seconds since 1970 of the last change.
    pub(crate) updated: u64,
    /// The bearer (as hash) whose events come now.
    pub(crate) agent: Option<String>,
    /// The next event expected from it.
    pub(crate) next_event: u64,
}

impl Job {
    /// Longest reason kept, in characters.
    const REASON_MAX: usize = 500;

    /// The image is being offered.
    pub(crate) fn arm(&mut self) {
        if self.state.is_active() {
            self.state = JobState::Armed;
            self.reason = "waits for the machine to boot over the network".to_owned();
        }
    }

    /// The machine was sent to the agent.
    pub(crate) fn booted(&mut self) {
        if self.state.is_active() {
            self.state = JobState::Booting;
            self.phase = None;
            self.boots += 1;
            self.fruitless_boots += 1;
            self.reason = format!("seen in iPXE, boot {}", self.boots);
        }
    }

    /// An agent took the job; its events count from 0.
    pub(crate) fn taken(&mut self, agent_hash: &str) {
        if self.agent.as_deref() != Some(agent_hash) {
            self.agent = Some(agent_hash.to_owned());
            self.next_event = 0;
            self.progress = None;
        }
        let goes_on = matches!(self.state, JobState::Verifying | JobState::Sealing);
        if self.state.is_active() && !goes_on {
            self.state = match (&self.capture, &self.verify) {
                (Some(_), _) => JobState::Capturing,
                (None, Some(_)) => JobState::Verifying,
                (None, None) => JobState::Flashing,
            };
            self.reason.clear();
        }
    }

    /// The job cannot be done.
    pub(crate) fn fail(&mut self, reason: &str) {
        if self.state.is_active() {
            self.state = JobState::Failed;
            self.reason = plain(reason, Self::REASON_MAX);
        }
    }

    /// Nobody wants it any more.
    pub(crate) fn cancel(&mut self) {
        if self.state.is_active() {
            self.state = JobState::Cancelled;
            self.reason = "cancelled".to_owned();
        }
    }

    /// Take an event of the agent that has this job. Events seen already are dropped, and so is everything after the
    /// job's end. Returns whether it was news.
    pub(crate) fn take_event(&mut self, event: &AgentEvent) -> bool {
        if !self.state.is_active() || event.sequence < self.next_event {
            return false;
        }
        self.next_event = event.sequence.saturating_add(1);
        match &event.event {
            EventKind::Phase { phase, disk } => {
                self.phase = Some(*phase);
                if let Some(disk) = disk {
                    self.disk = Some(plain(disk, 64));
                }
                self.state = match phase {
                    _ if self.captured.is_some() => JobState::Sealing,
                    _ if self.capture.is_some() => JobState::Capturing,
                    _ if self.verify.is_some() => JobState::Verifying,
                    Phase::Joining | Phase::Surveying | Phase::Receiving => JobState::Flashing,
                    Phase::Verifying | Phase::Committing => JobState::Verifying,
                    Phase::Capturing | Phase::Sealing => return false,
                };
                self.reason.clear();
            }
            EventKind::Progress(progress) => {
                // What the survey finds again is not progress: a machine that dies after it would boot for ever.
                if progress.done_bytes > self.best_done_bytes {
                    self.best_done_bytes = progress.done_bytes;
                    self.fruitless_boots = 0;
                }
                self.progress = Some(*progress);
            }
            EventKind::Note { text } => self.reason = plain(text, Self::REASON_MAX),
            // Whether a capture is done the server finds out itself.
            EventKind::Done(_) if self.capture.is_some() => return false,
            EventKind::Compared(report) => return self.take_compared(report),
            EventKind::Done(_) if !self.needs_session() => return false,
            EventKind::Done(report) => {
                self.state = JobState::Done;
                self.reason.clear();
                let mut report = report.clone();
                report.disk = plain(&report.disk, 64);
                if let Some(fallback) = &mut report.fallback {
                    fallback.reason = plain(&fallback.reason, Self::REASON_MAX);
                    self.reason = format!(
                        "{:.1} MB came over HTTP: {}",
                        fallback.bytes as f64 / 1e6,
                        fallback.reason
                    );
                }
                self.report = Some(report);
            }
            EventKind::Failed { reason } => self.fail(reason),
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use netflash_pxe::{AgentEvent, EventKind, Phase, Progress};

    use super::{FlashWish, Job, JobState};

    pub(crate) fn job() -> Job {
        Job {
            id: 1,
            machine: 1,
            machine_name: "lab1".to_owned(),
            image: 1,
            image_name: "debian".to_owned(),
            batch: 1,
            wish: FlashWish::default(),
            capture: None,
            verify: None,
            compared: None,
            captured: None,
            state: JobState::Queued,
            phase: None,
            disk: None,
            reason: String::new(),
            progress: None,
            best_done_bytes: 0,
            report: None,
            fruitless_boots: 0,
            boots: 0,
            created: 0,
            updated: 0,
            agent: None,
            next_event: 0,
        }
    }

    fn event(sequence: u64, event: EventKind) -> AgentEvent {
        AgentEvent {
            sequence,
            uptime_ms: 0,
            event,
        }
    }

    fn progress(done_bytes: u64) -> EventKind {
        EventKind::Progress(Progress {
            done_bytes,
            ..Progress::default()
        })
    }

    #[test]
    fn every_state_has_its_word() {
        for state in JobState::ALL {
            assert_eq!(state.word().parse(), Ok(state));
        }
    }

    #[test]
    fn progress_and_only_progress_forgives_boots() {
        let mut job = job();
        job.arm();
        for _ in 0..3 {
            job.booted();
            job.taken("agent");
        }
        assert_eq!(job.fruitless_boots, 3);
        job.take_event(&event(0, progress(0)));
        assert_eq!(job.fruitless_boots, 3);
        job.take_event(&event(1, progress(1 << 20)));
        assert_eq!(job.fruitless_boots, 0);
        job.booted();
        job.taken("next agent");
        job.take_event(&event(0, progress(1 << 20)));
        assert_eq!(
            job.fruitless_boots, 1,
            "the same bytes again are no progress"
        );
    }

    #[test]
    fn events_count_once() {
        let mut job = job();
        job.taken("agent");
        assert!(job.take_event(&event(0, progress(5))));
        assert!(!job.take_event(&event(0, progress(9))));
        assert_eq!(job.progress.unwrap().done_bytes, 5);
        job.taken("another agent");
        assert!(job.take_event(&event(0, progress(9))));
    }

    #[test]
    fn what_is_over_stays_over() {
        let mut job = job();
        job.fail("disk sda: write error\x1b[2J");
        assert_eq!(job.reason, "disk sda: write error [2J");
        job.arm();
        job.booted();
        job.taken("agent");
        job.cancel();
        let phase = EventKind::Phase {
            phase: Phase::Receiving,
            disk: None,
        };
        assert!(!job.take_event(&event(0, phase)));
        assert_eq!(job.state, JobState::Failed);
    }

    #[test]
    fn a_machine_that_reads_back_is_verifying() {
        let mut job = job();
        job.taken("agent");
        let phase = EventKind::Phase {
            phase: Phase::Verifying,
            disk: Some("/dev/vda".to_owned()),
        };
        job.take_event(&event(0, phase));
        assert_eq!(job.state, JobState::Verifying);
        assert_eq!(job.disk.as_deref(), Some("/dev/vda"));
    }
}
