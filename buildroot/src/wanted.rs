//! The modules an appliance carries: what it takes to reach the network and the disks of common machines.
//!
//! Names are those of Linux source files, so they hold for every distribution. A module that a kernel has built in
//! needs no file; one that a kernel does not have is listed in the report.

/// Network adapters: virtual machines, then the wired ones found in desktops, notebooks and servers.
const NETWORK: &[&str] = &[
    "virtio_net",
    "vmxnet3",
    "hv_netvsc",
    "pcnet32",
    "8139cp",
    "8139too",
    "e100",
    "e1000",
    "e1000e",
    "igb",
    "igbvf",
    "igc",
    "ixgbe",
    "ixgbevf",
    "i40e",
    "r8169",
    "tg3",
    "bnx2",
    "bnx2x",
    "bnxt_en",
    "alx",
    "atl1c",
    "atl1e",
    "atlantic",
    "forcedeth",
    "jme",
    "sky2",
    "skge",
    "r8152",
    "asix",
    "ax88179_178a",
    "cdc_ether",
    "cdc_ncm",
    "smsc95xx",
];

/// PHY drivers that adapters ask for when they meet the chip.
const PHYS: &[&str] = &["realtek", "broadcom", "ax88796b"];

/// Disks and what they hang on.
const STORAGE: &[&str] = &[
    "virtio_blk",
    "virtio_scsi",
    "nvme",
    "vmd",
    "sd_mod",
    "ahci",
    "ata_piix",
    "ata_generic",
    "pata_amd",
    "sata_nv",
    "sata_sil",
    "sata_sil24",
    "sata_via",
    "mptspi",
    "mptsas",
    "mpt3sas",
    "megaraid_sas",
    "hpsa",
    "smartpqi",
    "aacraid",
    "isci",
    "sym53c8xx",
    "vmw_pvscsi",
    "hv_storvsc",
    "usb_storage",
    "uas",
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    "rtsx_pci",
    "rtsx_pci_sdmmc",
];

/// Buses and platform: what the above is plugged into, the firmware's variables, entropy of a virtual machine, and
/// watchdogs with the chipset drivers that make Intel's appear.
const PLATFORM: &[&str] = &[
    "virtio_pci",
    "virtio_mmio",
    "virtio_rng",
    "hv_vmbus",
    "pci_hyperv",
    "xhci_pci",
    "ehci_pci",
    "ohci_pci",
    "uhci_hcd",
    "lpc_ich",
    "i2c_i801",
    "efivarfs",
    "i6300esb",
    "iTCO_wdt",
];

/// All of them, each once.
pub(crate) fn wanted() -> impl Iterator<Item = &'static str> {
    [NETWORK, PHYS, STORAGE, PLATFORM]
        .into_iter()
        .flatten()
        .copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_written_as_the_kernel_writes_it_and_once() {
        let mut seen = BTreeSet::new();
        for name in wanted() {
            assert!(!name.contains('-') && seen.insert(name), "{name}");
        }
    }
}
