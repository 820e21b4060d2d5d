//! How a disk becomes an image, and an image a disk.
//!
//! An image `NAME.img.zst` is an ordinary zstd file, one independent zstd frame for each mebibyte
//! of the disk, and a [`Manifest`] near its end that says what the disk is: which parts are used,
//! zero or free, the hash of each frame, the partition tables. `docs/IMAGE-FORMAT.md` has the bytes.

mod bytes;
mod checked;
mod deploy;
mod device;
mod diff;
mod extent;
mod extract;
mod fetch;
mod fit;
mod frame_set;
mod id;
mod image;
mod in_use;
mod manifest;
mod mask;
mod part_file;
mod partition;
mod plan;
mod ranges;
mod read_at;
mod scan;
mod scope;
mod seal;
mod seek_table;
mod source;
mod stored;
mod tables;
mod target;
#[cfg(test)]
mod testing;
mod verify;
mod whole;

pub use bytes::Malformed;
pub use deploy::{
    Audit, AuditDepth, Deploy, DeployError, DeployEvent, DeployObserver, DeployOptions,
    DeployPhase, DeployReport, FrameOutcome, FreePolicy, LayoutError, Place, VerifyPolicy, audit,
};
pub use diff::{ChangedRange, Diff, diff};
pub use extent::{Extent, ExtentKind, Extents, UNIT_BYTES};
pub use extract::{ExtractError, audit_image, extract_to_disk, extract_to_file, extract_to_stream};
pub use fetch::{ShortRange, fetch_block};
pub use fit::{FitError, FittedTables, LastPartition, TableRun, fit};
pub use frame_set::FrameSet;
pub use id::{FrameId, ImageId, ImageIdError};
pub use image::{Image, ImageError};
pub use in_use::DiskUse;
pub use manifest::{
    FRAME_BYTES, FRAMES_MAX, Manifest, ManifestError, ManifestParts, STORED_BYTES_MAX,
};
pub use mask::mask_frame;
pub use partition::{BootModes, Partition};
pub use plan::{BLOCK_BYTES_MAX, BLOCK_FRAMES_MAX, Plan, PlanBlock};
pub use scan::Refusal;
#[cfg(feature = "fuzzing")]
pub use scan::{free_of_disk, free_of_volume};
pub use scope::{PartitionSet, PartitionSetError, Scope, ScopeError};
pub use seal::{SealError, SealOptions, SealProgress, Sealed, seal, seal_to};
#[cfg(feature = "fuzzing")]
pub use source::refuse_qcow2_header;
pub use source::{ImportOptions, ImportProgress, Source, SourceError};
pub use tables::{Gpt, Tables};
pub use target::{Target, TargetError, TargetOptions};
pub use verify::{BadFrame, Verification, VerifyError, verify};
pub use whole::{Whole, WholeError};
