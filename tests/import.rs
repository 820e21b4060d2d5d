//! Disks in the formats of other programs, made by those programs, become images.
//!
//! The verdict is theirs too: what `zstd` makes of the image must be what `qemu-img`, `partclone`
//! or `gzip` itself makes of the source. Nothing here needs root.

// A test that panics has failed, which is what a panic says here as well.
#![allow(clippy::unwrap_used)]

#[path = "imaging/bench.rs"]
#[allow(
    dead_code,
    reason = "what these tests share with those of images, and do not need all of"
)]
mod bench;
#[path = "import/clonezilla.rs"]
mod clonezilla;
#[path = "import/compressed.rs"]
mod compressed;
#[path = "import/partclone.rs"]
mod partclone;
#[path = "import/trial.rs"]
mod trial;
#[path = "import/virtual_disks.rs"]
mod virtual_disks;
