//! The appliance: the kernel and initramfs that every machine of a room boots over the network.
//!
//! The kernel is a distribution's own package, signed and maintained by it; the initramfs holds the agent as `/init`
//! and the modules a machine may need to reach its network and its disks. Nothing in it belongs to one server: that
//! is a second archive, `trust.img`, which the boot loader puts behind the first.

mod agent;
mod build;
mod cpio;
mod elf;
mod firmware;
mod index;
mod iso;
mod modinfo;
mod modules;
mod package;
mod signed;
mod third_party;
mod unpack;
mod wanted;

pub use agent::AgentError;
pub use build::{BuildError, BuildOptions, Report, build, check_trust};
pub use cpio::{ALIGNMENT, Cpio, CpioError, archive_paths, pad};
pub use elf::ElfError;
pub use firmware::FirmwareError;
pub use iso::{IsoError, IsoOptions, IsoReport, iso};
pub use modules::ModulesError;
pub use package::PackageError;
pub use signed::{LoaderPackage, SignedLoaders};
pub use unpack::UnpackError;
