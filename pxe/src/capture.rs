//! A machine's disk on its way to the server, where it becomes an image.
//!
//! ```text
//!  agent                                          server
//!   GET  …/capture                                how much is there of it, and its hash
//!   PUT  …/capture?offset=N   part of the image   appended, when N is where the last part ended
//!   POST …/capture            CaptureEnd          the file is complete; the server checks every frame
//!   GET  …/capture            …                   sealing … ready, or failed and why
//! ```
//! The agent makes the same bytes of the same disk again: after a restart it passes over what the server has, once
//! the hashes agree. A part that does not begin where the last one ended is refused (409) and changes nothing, but
//! offset 0 always begins anew.

use serde::{Deserialize, Serialize};

use crate::{DiskSelector, Hex32};

/// Path of a job's capture; `{id}` stands for the job's number.
pub const API_CAPTURE: &str = "/agent/v1/jobs/{id}/capture";
/// Largest part of an image in one request, in bytes.
pub const CAPTURE_PART_MAX: usize = 4 << 20;
/// Most notes of a capture.
pub const CAPTURE_NOTES_MAX: usize = 64;

/// Make an image of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureOrder {
    /// Name of the image to be.
    pub image_name: String,
    /// Which disk is read.
    #[serde(default)]
    pub disk: DiskSelector,
    /// How it becomes an image.
    #[serde(default)]
    pub how: CaptureHow,
    /// When the order was given, seconds since 1970: the image's time, the same after every restart.
    pub created: u64,
}

/// How a disk becomes an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureHow {
    /// zstd level, 1 (fast) to 19 (small).
    pub level: i32,
    /// Leave out what is proved to be free.
    pub used_only: bool,
    /// Partitions kept byte for byte also where that is refused otherwise: `2,3`, `all`, or empty.
    #[serde(default)]
    pub whole: String,
    /// The only partitions whose content is captured: `1,2`, or empty for all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub only: String,
    /// A note for people.
    #[serde(default)]
    pub note: String,
}

impl Default for CaptureHow {
    fn default() -> CaptureHow {
        CaptureHow {
            level: 3,
            used_only: true,
            whole: String::new(),
            only: String::new(),
            note: String::new(),
        }
    }
}

/// How far an image is that is being captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureStage {
    /// Parts are awaited.
    #[default]
    Capturing,
    /// All parts are there; the server checks the whole image.
    Sealing,
    /// It is an image.
    Ready,
    /// It will never be one.
    Failed,
}

/// What the server has of an image that is being captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureState {
    /// How far it is.
    pub stage: CaptureStage,
    /// Bytes of the image that are there.
    pub bytes: u64,
    /// BLAKE3 of these bytes.
    pub hash: Hex32,
    /// Why it failed.
    #[serde(default)]
    pub reason: String,
}

/// The last word about a captured image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureEnd {
    /// Bytes of the whole image.
    pub bytes: u64,
    /// BLAKE3 of its manifest.
    pub image_id: Hex32,
    /// The disk that was read.
    pub disk: String,
    /// Milliseconds from taking the job to the last part.
    pub took_ms: u64,
    /// What a person should know: which partition was kept whole, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}
