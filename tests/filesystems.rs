//! Every file system from its own `mkfs` through an image onto a larger disk to its own `fsck`.
//!
//! Each is made, filled, half deleted and fragmented; what its image keeps is compared with what
//! partclone would, and with what its own tools call allocated. The larger disk is full of garbage
//! before, so that whatever was wrongly called free turns into it. Needs root, for loop devices.

// A test that panics has failed, which is what a panic says here as well.
#![allow(clippy::unwrap_used)]

#[path = "filesystems/bench.rs"]
mod bench;
#[path = "filesystems/btrfs.rs"]
mod btrfs;
#[path = "filesystems/ext.rs"]
mod ext;
#[path = "filesystems/lvm.rs"]
mod lvm;
#[path = "filesystems/swap.rs"]
mod swap;
#[path = "filesystems/xfs.rs"]
mod xfs;
