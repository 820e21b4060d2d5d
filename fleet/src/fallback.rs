//! The other way: images over HTTP ranges, for machines that multicast does not reach.
//!
//! ```text
//!   machine ── asks ──▶ Desk ── Queue: served, or number n ──▶ ranges of the image's file, 64 KiB at a time,
//!                                                               each paid from one bucket
//! ```
//!
//! What is fetched is checked against the manifest like what is multicast, so the way needs no trust of its own.
//! Agents come over TLS; a direct `netflash send --http` answers without, and only for sessions without a key.

mod answer;
mod desk;
mod hatch;
mod queue;

pub(crate) use answer::{announce, image, manifest};
pub(crate) use desk::{Board, Desk, DeskStatus};
pub(crate) use hatch::Hatch;
pub use queue::{Answer, Queue, QueueConfig};
