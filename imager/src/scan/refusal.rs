//! Partitions that should not be captured as they are.

use std::fmt;

/// A partition whose image would be useless or wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its number; 0 is the whole disk.
    pub number: u32,
    /// The partition in words: `partition 3 (ntfs)`.
    pub place: String,
    /// What was found, a clause: `its journal was not replayed`.
    pub found: String,
    /// What to do, an order: `mount and unmount it once`.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            number,
            place,
            found,
            remedy,
        } = self;
        write!(
            f,
            "{place}: {found}; {remedy}, or keep every byte of it with --whole={number}"
        )
    }
}
