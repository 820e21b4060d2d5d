//! The cases about disks: capture, restore, what is done again, and levels of compression.
//!
//! No network: block devices (loop devices that pass the page cache by, as a disk does), images in memory, and the
//! programs one after the other. What was read and written the kernel counts, at the block device.

mod again;
mod capture;
mod delta;
mod floor;
mod levels;
mod ranges;
mod restore;
mod step;

use std::path::Path;

use anyhow::{Context, Result};

use crate::case::Case;

/// The section of a case; `guest` is a raw disk with an operating system.
pub(crate) fn section(case: Case, runs: usize, guest: Option<&Path>) -> Result<String> {
    let guest = || {
        guest.with_context(|| format!("the case {case:?} needs --disk; ./scripts/bench makes one"))
    };
    match case {
        Case::Capture => capture::section(runs),
        Case::Restore => restore::section(runs),
        Case::Again => again::section(runs),
        Case::Levels => levels::section(guest()?),
        Case::Delta => delta::section(guest()?),
        other => anyhow::bail!("{other:?} is about networks"),
    }
}
