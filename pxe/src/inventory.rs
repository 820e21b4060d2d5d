//! What a machine is made of, as its agent found it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Mac;

/// How the machine was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// A PC BIOS, or a UEFI firmware's compatibility mode.
    #[default]
    Bios,
    /// UEFI.
    Uefi,
}

/// The hardware of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Who built the machine.
    #[serde(default)]
    pub manufacturer: String,
    /// The model.
    #[serde(default)]
    pub product: String,
    /// Version of the firmware.
    #[serde(default)]
    pub bios_version: String,
    /// How it was started.
    #[serde(default)]
    pub firmware: Firmware,
    /// Model of the processor.
    #[serde(default)]
    pub cpu: String,
    /// Processors the kernel sees.
    #[serde(default)]
    pub cpu_count: u32,
    /// Memory, in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Disks, in the kernel's order.
    #[serde(default)]
    pub disks: Vec<DiskInfo>,
    /// Ethernet cards.
    #[serde(default)]
    pub nics: Vec<NicInfo>,
    /// Devices that no driver of the appliance serves.
    #[serde(default)]
    pub orphans: Vec<OrphanInfo>,
    /// Kernel release the agent runs on.
    #[serde(default)]
    pub kernel: String,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Path of its device node, `/dev/sda`.
    pub path: String,
    /// Model as the disk spells it.
    #[serde(default)]
    pub model: String,
    /// Serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// World wide name.
    #[serde(default)]
    pub wwn: Option<String>,
    /// Capacity in bytes.
    pub bytes: u64,
    /// Logical sector size in bytes.
    #[serde(default)]
    pub sector_bytes: u32,
    /// How it is attached: `sata`, `nvme`, `virtio`, `usb`, `mmc`, …
    #[serde(default)]
    pub transport: String,
    /// The kernel calls it removable.
    #[serde(default)]
    pub removable: bool,
    /// It refuses writes.
    #[serde(default)]
    pub read_only: bool,
}

impl DiskInfo {
    /// Whether it may be chosen without being named: built in, writable and not empty.
    pub fn is_internal(&self) -> bool {
        !self.removable && !self.read_only && self.bytes > 0 && self.transport != "usb"
    }
}

/// An Ethernet card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicInfo {
    /// The kernel's name for it.
    pub name: String,
    /// Permanent address.
    pub mac: Mac,
    /// Driver.
    #[serde(default)]
    pub driver: String,
    /// Speed in Mbit/s; `None` without link or when the driver does not say.
    #[serde(default)]
    pub speed_mbits: Option<u32>,
    /// Whether there is a link.
    #[serde(default)]
    pub link: bool,
}

/// What a device without a driver would have been good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrphanKind {
    /// The network.
    Network,
    /// Disks.
    Storage,
}

/// A device that no driver of the appliance serves, or that hides disks from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanInfo {
    /// What it would have been good for.
    pub kind: OrphanKind,
    /// The bus it is on: `pci`, `usb` or `virtio`.
    pub bus: String,
    /// Its place there, `0000:00:1f.6`.
    pub address: String,
    /// Vendor and device, `8086:15b8`, by which a driver is found.
    pub id: String,
    /// NVMe disks that it keeps for the firmware's RAID; it has a driver then.
    #[serde(default)]
    pub hidden_disks: u32,
}

impl fmt::Display for OrphanInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            OrphanKind::Network => "network card",
            OrphanKind::Storage => "disk controller",
        };
        let Self {
            id, bus, address, ..
        } = self;
        match self.hidden_disks {
            0 => write!(f, "no driver for {kind} {id} at {bus} {address}"),
            hidden => write!(
                f,
                "{kind} {id} at {bus} {address} hides {hidden} NVMe disk(s): set the firmware's SATA mode from RAID to \
                 AHCI"
            ),
        }
    }
}
