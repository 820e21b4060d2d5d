//! A job as `netflash job … --json` shows it: only what an operator looks at.

use serde::Deserialize;

/// One machine's job.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct JobView {
    /// The server's number for it.
    pub id: u64,
    /// What was ordered together, and is sent together.
    #[serde(default)]
    pub batch: i64,
    /// The machine's name.
    pub machine_name: String,
    /// One word.
    pub state: String,
    /// Why it stands there; the error when it failed.
    pub reason: String,
    /// How far it is; of the agent's present run.
    pub progress: Option<ProgressView>,
    /// How it went.
    pub report: Option<ReportView>,
    /// How the disk compares with the image, if that was asked.
    pub compared: Option<ComparedView>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct ProgressView {
    /// Raw bytes right on the disk.
    pub done_bytes: u64,
    /// Raw bytes in use.
    pub total_bytes: u64,
    /// Bytes received; of a capture, bytes sent.
    pub received_bytes: u64,
}

/// How a job went.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ReportView {
    /// Seconds from taking the job to the last flush.
    pub seconds: f64,
    /// Bytes of datagrams received in the run that finished.
    pub received_bytes: u64,
    /// Repair symbols received.
    pub repair_symbols: u64,
    /// Frames written.
    pub written_frames: u64,
    /// Everything was read back and is right.
    pub verified: bool,
    /// What came over HTTP, if something did.
    pub fallback: Option<FallbackView>,
}

/// What came over HTTP.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FallbackView {
    /// Why.
    pub reason: String,
    /// Its bytes.
    pub bytes: u64,
}

/// How a disk compares with an image.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ComparedView {
    /// It holds the image.
    pub equal: bool,
    /// Frames that differ.
    pub differing_frames: u64,
    /// Where.
    pub places: Vec<PlaceView>,
}

/// A partition that differs.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PlaceView {
    /// Its number; none for what lies outside of all.
    pub partition: Option<u32>,
}

impl JobView {
    /// The image is on the disk.
    pub fn is_done(&self) -> bool {
        self.state == "done"
    }

    /// It did not work, and will not.
    pub fn has_failed(&self) -> bool {
        self.state == "failed" || self.state == "cancelled"
    }

    /// Part of the image's bytes that is right on the disk, from 0 to 1.
    pub fn done_part(&self) -> f64 {
        self.progress.map_or(0.0, |progress| {
            progress.done_bytes as f64 / progress.total_bytes.max(1) as f64
        })
    }
}
