//! The appliance: the kernel and initramfs that every machine of a room boots over the network.
//!
//! The kernel is a distribution's own package, signed and maintained by it; the initramfs holds the agent as `/init`
//! and the modules a machine may need to reach its network and its disks. Nothing in it belongs to one server.

mod cpio;

pub use cpio::{ALIGNMENT, Cpio, CpioError, archive_paths, pad};
