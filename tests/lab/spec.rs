//! What a machine of the lab is made of, as plain data: the chassis process
//! reads it from a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Where a machine's directory keeps its specification.
const FILE_NAME: &str = "machine.json";

/// One machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Short name, `lab-1`.
    pub name: String,
    /// Number in the room, from 1; MAC, tap and serial numbers follow from it.
    pub number: u8,
    /// Firmware.
    pub firmware: Firmware,
    /// Network card.
    pub nic: Nic,
    /// Disks, in firmware order.
    pub disks: Vec<DiskSpec>,
    /// RAM in MiB.
    pub memory_mib: u32,
    /// Further PCI devices, by QEMU's names for them.
    pub devices: Vec<String>,
    /// Further network cards, `nic1` and so on, all virtio: what each is plugged into, as QEMU's `-netdev` has it.
    #[serde(default)]
    pub cards: Vec<String>,
    /// What happens at power-on.
    pub boot: Boot,
    /// What its firmware tries first.
    #[serde(default)]
    pub first: First,
    /// By whose program it boots from the network.
    #[serde(default)]
    pub netboot: Netboot,
}

/// By whose program a machine boots from the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Netboot {
    /// PXE of the firmware; where that has none (BIOS) or no driver for the card, of the card's ROM.
    #[default]
    Pxe,
    /// The card's ROM, which is an iPXE.
    Rom,
    /// HTTP boot of UEFI firmware, without PXE.
    Http,
}

/// What a machine's firmware tries first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum First {
    /// The network.
    #[default]
    Network,
    /// The first disk.
    Disk,
}

/// Firmware of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// SeaBIOS; network boot by the card's iPXE ROM.
    Bios,
    /// OVMF; network boot by the firmware's own PXE.
    Uefi,
    /// The same with Secure Boot on and Microsoft's keys enrolled, as a machine leaves the shop.
    SecureBoot,
}

impl Firmware {
    /// What iPXE's `${platform}` says on it.
    pub fn platform(self) -> &'static str {
        match self {
            Firmware::Bios => "pcbios",
            Firmware::Uefi | Firmware::SecureBoot => "efi",
        }
    }
}

/// Network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nic {
    /// virtio-net.
    Virtio,
    /// Intel 82540EM, driver e1000.
    E1000,
    /// Intel 82574L, driver e1000e.
    E1000e,
    /// Intel 82576, driver igb; QEMU has it since version 8.0.
    Igb,
    /// VMware's, driver vmxnet3.
    Vmxnet3,
    /// Realtek's of 100 Mbit/s, driver 8139cp.
    Rtl8139,
}

impl Nic {
    /// QEMU's name for it.
    pub fn model(self) -> &'static str {
        match self {
            Nic::Virtio => "virtio-net-pci",
            Nic::E1000 => "e1000",
            Nic::E1000e => "e1000e",
            Nic::Igb => "igb",
            Nic::Vmxnet3 => "vmxnet3",
            Nic::Rtl8139 => "rtl8139",
        }
    }
}

/// Controller a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    /// virtio-blk, `/dev/vda`.
    Virtio,
    /// NVMe, `/dev/nvme0n1`.
    Nvme,
    /// AHCI SATA, `/dev/sda`.
    Ahci,
    /// A removable USB stick.
    Usb,
}

/// One disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Raw file; made sparse and blank by the room when absent.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Controller.
    pub bus: Bus,
    /// Serial number the machine reports.
    pub serial: String,
    /// What is wrong with it.
    pub fault: Option<DiskFault>,
    /// File that takes down all it is told, flushes included, as QEMU's `blklogwrites` does; made
    /// anew at each power-on. Of a disk without a fault.
    pub record: Option<PathBuf>,
}

/// A disk's fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFault {
    /// Every write that touches this 512-byte sector fails with EIO.
    WriteError {
        /// Sector number.
        sector: u64,
    },
}

/// What happens at power-on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// Network first, then the first disk.
    Network,
    /// A CD first, then the disks; never the network.
    Cd {
        /// The image.
        image: PathBuf,
    },
    /// A USB stick first, then the disks; never the network.
    Stick {
        /// The image.
        image: PathBuf,
    },
    /// A kernel loaded by QEMU, which spares minutes of emulated firmware.
    Kernel {
        /// bzImage, or vmlinux with a PVH entry.
        kernel: PathBuf,
        /// One file; concatenated cpio archives are fine.
        initrd: PathBuf,
        /// Kernel command line.
        append: String,
    },
}

impl MachineSpec {
    /// A network-booting machine with 512 MiB of RAM and no disk yet.
    pub fn new(number: u8, firmware: Firmware, nic: Nic) -> MachineSpec {
        MachineSpec {
            name: format!("lab-{number}"),
            number,
            firmware,
            nic,
            disks: Vec::new(),
            memory_mib: 512,
            devices: Vec::new(),
            cards: Vec::new(),
            boot: Boot::Network,
            first: First::Network,
            netboot: Netboot::Pxe,
        }
    }

    /// Reads what [`MachineSpec::save`] wrote.
    pub fn load(directory: &Path) -> Result<MachineSpec> {
        let path = directory.join(FILE_NAME);
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))
    }

    /// Writes it into a machine's directory; true from the next power-on.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE_NAME);
        let json = serde_json::to_vec_pretty(self).context("writing down a machine")?;
        fs::write(&path, json).with_context(|| format!("writing {}", path.display()))
    }

    /// Adds a blank disk on the given bus; the file lies in `directory`.
    #[must_use]
    pub fn disk(mut self, directory: &Path, bus: Bus, bytes: u64) -> MachineSpec {
        let position = self.disks.len();
        self.disks.push(DiskSpec {
            path: directory.join(format!("{}-disk{position}.raw", self.name)),
            bytes,
            bus,
            serial: format!("LAB{:02}D{position}", self.number),
            fault: None,
            record: None,
        });
        self
    }

    /// Hardware address, `52:54:00:77:00:NN`.
    pub fn mac(&self) -> String {
        format!("52:54:00:77:00:{:02x}", self.number)
    }

    /// Hardware address of a further card, from 1, `52:54:00:77:CC:NN`.
    pub fn card_mac(&self, card: usize) -> String {
        format!("52:54:00:77:{card:02x}:{:02x}", self.number)
    }

    /// SMBIOS UUID.
    pub fn uuid(&self) -> String {
        format!("6e657466-6c61-4368-8000-5254007700{:02x}", self.number)
    }

    /// SMBIOS system serial number.
    pub fn serial(&self) -> String {
        format!("LAB-SN-{:04}", self.number)
    }

    /// Its port on the bridge.
    pub fn tap(&self) -> String {
        format!("t{}", self.number)
    }
}
