//! A room of machines on one desk: QEMU machines on a bridge, a server beside
//! them, a cable that loses datagrams, and a power button for each.
//!
//! ```text
//!   world: one `unshare` of network, mounts and processes; it dies as a whole
//!   +---------------------------------------------------------------+
//!   |  t1 -- machine 1 (chassis -> QEMU)            netns `server`  |
//!   |  t2 -- machine 2      ...          br0 -- s0 == eth0          |
//!   |  t3 -- machine 3                               10.77.0.1      |
//!   |  (nftables drops at each t*)                   netflash serve |
//!   +---------------------------------------------------------------+
//! ```
//!
//! Nothing here knows how netflash works inside: the lab runs the programs an
//! operator runs and looks at disks, serial lines and the wire with other
//! people's tools.

mod cable;
mod capture;
mod chassis;
mod demo;
mod direct;
mod given;
mod guest;
mod job;
mod journey;
mod ledger;
mod loss;
mod oracle;
mod patience;
mod programs;
mod qemu;
mod room;
mod server;
mod shell;
mod small;
mod spec;
mod two_systems;
mod up;
mod world;

pub use capture::Capture;
pub use chassis::{Chassis, ChassisStatus, Power, PowerState, Run, RunEnd};
pub use demo::{DemoOptions, demo};
pub use direct::direct_boot;
pub use given::{await_flash, given, last_words, scratch};
pub use guest::boot_once;
pub use job::{ComparedView, FallbackView, JobView, PlaceView, ProgressView, ReportView};
pub use ledger::ImageLedger;
pub use loss::{LossCount, LossTable};
pub use oracle::GuestDisk;
pub use patience::{Patience, wait_until};
pub use programs::Programs;
pub use room::{Machine, Room};
pub use server::{ServerOptions, ServerProcess};
pub use shell::sh;
pub use small::{SMALL_DISK_BYTES, SMALL_DISK_SAYS, small_disk};
pub use spec::{Boot, Bus, DiskFault, DiskSpec, Firmware, First, MachineSpec, Netboot, Nic};
pub use two_systems::{TWO_SYSTEMS_BYTES, press_key, two_systems};
pub use up::{UpOptions, up};
pub use world::{enter, inside};
