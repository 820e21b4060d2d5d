//! How a job goes and how it went.

use serde::{Deserialize, Serialize};

use crate::{CompareReport, Hex32};

/// One thing that happened to a job on the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// Counts this agent's events of this job from 0. After a failed request the agent sends the same events again;
    /// the server drops what it has.
    pub sequence: u64,
    /// Milliseconds since the machine's kernel started.
    pub uptime_ms: u64,
    /// What happened.
    pub event: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// The job went over to another phase.
    Phase {
        /// The phase that begins.
        phase: Phase,
        /// The disk in question, once it is chosen.
        #[serde(default)]
        disk: Option<String>,
    },
    /// How far it is.
    Progress(Progress),
    /// Something a person should know.
    Note {
        /// One line.
        text: String,
    },
    /// The job is done. Ends the job.
    Done(JobReport),
    /// The disk was compared with the image. Ends the job, or this order of it when the disk is to be flashed then.
    Compared(CompareReport),
    /// The job failed; the disk is as it was, or cannot boot. Ends the job.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

impl EventKind {
    /// Whether no event can follow for this order.
    pub fn ends_the_job(&self) -> bool {
        matches!(
            self,
            EventKind::Done(_) | EventKind::Compared(_) | EventKind::Failed { .. }
        )
    }
}

/// What a machine with a job is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waiting for the session's announce and manifest.
    Joining,
    /// Comparing what the disk holds already.
    Surveying,
    /// Receiving and writing.
    Receiving,
    /// Reading back.
    Verifying,
    /// Writing the tables.
    Committing,
    /// Reading its disk and sending it to the server.
    Capturing,
    /// Waiting for the server to check the image it was sent.
    Sealing,
}

impl Phase {
    /// One word for tables.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Joining => "joining",
            Phase::Surveying => "surveying",
            Phase::Receiving => "receiving",
            Phase::Verifying => "verifying",
            Phase::Committing => "committing",
            Phase::Capturing => "capturing",
            Phase::Sealing => "sealing",
        }
    }
}

/// How far a job is. All counts are of this run of the agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Raw bytes of the image known to be right on the disk, survey included; of a capture, raw bytes of the disk
    /// that were read or are free.
    pub done_bytes: u64,
    /// Raw bytes of the image that are in use; of a capture, raw bytes of the disk.
    pub total_bytes: u64,
    /// Bytes of the symbols received that were of use: neither foreign, repeated nor of blocks it had already; of a
    /// capture, bytes of the image that the server has.
    pub received_bytes: u64,
    /// Bytes per second, over the last seconds.
    pub bytes_per_second: u64,
    /// Repair symbols received.
    pub repair_symbols: u64,
    /// Symbols that never came.
    pub lost_symbols: u64,
}

/// How a flash went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobReport {
    /// The image now on the disk.
    pub image_id: Hex32,
    /// The disk's path.
    pub disk: String,
    /// Seconds from taking the job to the last flush.
    pub seconds: f64,
    /// Bytes of the symbols received that were of use: neither foreign, repeated nor of blocks it had already.
    pub received_bytes: u64,
    /// Repair symbols received.
    pub repair_symbols: u64,
    /// Symbols that never came.
    pub lost_symbols: u64,
    /// Frames in use that the survey found right already.
    pub kept_frames: u64,
    /// Frames written.
    pub written_frames: u64,
    /// Everything the verify policy asks for was read back past the cache and is right.
    pub verified: bool,
    /// What had to come over HTTP because multicast did not reach the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackReport>,
}

/// That multicast did not reach a machine, why, and what came over HTTP instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackReport {
    /// In which way multicast failed, in words for the operator.
    pub reason: String,
    /// Blocks that came over HTTP.
    pub blocks: u64,
    /// Bytes that came over HTTP.
    pub bytes: u64,
}
