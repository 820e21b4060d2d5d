//! The modules an appliance carries: what it takes to reach the network and the disks of common machines.
//!
//! Names are those of Linux source files, so they hold for every distribution. A module that a kernel has built in
//! needs no file; one that a kernel does not have is listed in the report. A kernel made for an appliance has them all
//! built in: its configuration and `docs/HARDWARE.md` are compared with this list.

/// A driver of Linux.
#[derive(Debug, Clone, Copy)]
struct Driver {
    /// The module's name, with underscores.
    module: &'static str,
    /// The option that builds it, without `CONFIG_`.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "compared with the kernel fragment")
    )]
    option: &'static str,
    /// What it serves, in words of those who buy it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "compared with the documentation")
    )]
    serves: &'static str,
}

const fn driver(module: &'static str, option: &'static str, serves: &'static str) -> Driver {
    Driver {
        module,
        option,
        serves,
    }
}

/// Network adapters: virtual machines, then the wired ones found in desktops, notebooks and servers.
const NETWORK: &[Driver] = &[
    driver("virtio_net", "VIRTIO_NET", "QEMU, KVM: virtio"),
    driver("vmxnet3", "VMXNET3", "VMware"),
    driver("hv_netvsc", "HYPERV_NET", "Hyper-V"),
    driver("ena", "ENA_ETHERNET", "Amazon EC2"),
    driver("pcnet32", "PCNET32", "AMD PCnet; VMware, VirtualBox"),
    driver("8139cp", "8139CP", "Realtek RTL8139C+"),
    driver("8139too", "8139TOO", "Realtek RTL8139"),
    driver("e100", "E100", "Intel PRO/100"),
    driver("e1000", "E1000", "Intel PRO/1000, PCI; VMware, VirtualBox"),
    driver("e1000e", "E1000E", "Intel I217, I218, I219, 82574"),
    driver("igb", "IGB", "Intel I210, I211, I350, 82576"),
    driver("igbvf", "IGBVF", "Intel I350, virtual function"),
    driver("igc", "IGC", "Intel I225, I226"),
    driver("ixgbe", "IXGBE", "Intel 82599, X520, X540, X550"),
    driver(
        "ixgbevf",
        "IXGBEVF",
        "Intel 82599 to X550, virtual function",
    ),
    driver("i40e", "I40E", "Intel X710, XL710, X722"),
    driver("iavf", "I40EVF", "Intel X710 and E810, virtual function"),
    driver("ice", "ICE", "Intel E810, E822, E823"),
    driver("r8169", "R8169", "Realtek RTL8111, 8168, 8125, 8126"),
    driver("tg3", "TIGON3", "Broadcom BCM57xx"),
    driver("bnx2", "BNX2", "Broadcom BCM5706 to 5716"),
    driver("bnx2x", "BNX2X", "Broadcom BCM57710 to 57840"),
    driver("bnxt_en", "BNXT", "Broadcom BCM573xx, 574xx, 575xx"),
    driver("mlx4_en", "MLX4_EN", "Mellanox ConnectX-2, -3"),
    driver(
        "mlx5_core",
        "MLX5_CORE_EN",
        "Mellanox ConnectX-4 to -7, BlueField",
    ),
    driver("sfc", "SFC", "Solarflare SFC9100, X2, X3"),
    driver("be2net", "BE2NET", "Emulex OneConnect"),
    driver("enic", "ENIC", "Cisco UCS VIC"),
    driver(
        "alx",
        "ALX",
        "Atheros AR8161 to 8172, Killer E220x, E2400, E2500",
    ),
    driver("atl1c", "ATL1C", "Atheros AR8131 to 8152"),
    driver("atl1e", "ATL1E", "Atheros AR8121 to 8114"),
    driver("atlantic", "AQTION", "Aquantia AQC107, AQC113"),
    driver("forcedeth", "FORCEDETH", "nVidia nForce"),
    driver("jme", "JME", "JMicron JMC250, JMC260"),
    driver("sky2", "SKY2", "Marvell Yukon 2"),
    driver("skge", "SKGE", "Marvell Yukon"),
    driver(
        "r8152",
        "USB_RTL8152",
        "USB: Realtek RTL8152 to 8156; most docks",
    ),
    driver("asix", "USB_NET_AX8817X", "USB: ASIX AX88172, AX88772"),
    driver(
        "ax88179_178a",
        "USB_NET_AX88179_178A",
        "USB: ASIX AX88178A, AX88179",
    ),
    driver("aqc111", "USB_NET_AQC111", "USB: Aquantia AQC111U"),
    driver("cdc_ether", "USB_NET_CDCETHER", "USB: CDC Ethernet"),
    driver("cdc_ncm", "USB_NET_CDC_NCM", "USB: CDC NCM"),
    driver("lan78xx", "USB_LAN78XX", "USB: Microchip LAN7800, LAN7850"),
    driver("smsc75xx", "USB_NET_SMSC75XX", "USB: SMSC LAN7500"),
    driver("smsc95xx", "USB_NET_SMSC95XX", "USB: SMSC LAN9500, LAN9514"),
];

/// PHY drivers that adapters ask for when they meet the chip.
const PHYS: &[Driver] = &[
    driver("realtek", "REALTEK_PHY", "of Realtek cards"),
    driver("broadcom", "BROADCOM_PHY", "of Broadcom cards"),
    driver("ax88796b", "AX88796B_PHY", "of ASIX adapters"),
    driver("microchip", "MICROCHIP_PHY", "of Microchip adapters"),
];

/// Links made of cards; asked for by kernel parameters of the agent.
const LINKS: &[Driver] = &[
    driver("8021q", "VLAN_8021Q", "VLANs: `netflash.vlan`"),
    driver(
        "bonding",
        "BONDING",
        "several cards as one: `netflash.bond`",
    ),
];

/// Disks and what they hang on.
const STORAGE: &[Driver] = &[
    driver("virtio_blk", "VIRTIO_BLK", "QEMU, KVM: virtio"),
    driver("virtio_scsi", "SCSI_VIRTIO", "QEMU, KVM: virtio SCSI"),
    driver("nvme", "BLK_DEV_NVME", "NVMe"),
    driver("vmd", "VMD", "NVMe behind Intel VMD"),
    driver(
        "sd_mod",
        "BLK_DEV_SD",
        "SATA, SAS, USB: the disks themselves",
    ),
    driver("ahci", "SATA_AHCI", "SATA"),
    driver("ata_piix", "ATA_PIIX", "Intel IDE and old SATA"),
    driver("ata_generic", "ATA_GENERIC", "IDE of any maker"),
    driver("pata_amd", "PATA_AMD", "AMD and nVidia IDE"),
    driver("pata_atiixp", "PATA_ATIIXP", "ATI IDE"),
    driver("pata_jmicron", "PATA_JMICRON", "JMicron IDE"),
    driver("sata_mv", "SATA_MV", "Marvell SATA"),
    driver("sata_nv", "SATA_NV", "nVidia SATA"),
    driver("sata_sil", "SATA_SIL", "Silicon Image 3112, 3114"),
    driver("sata_sil24", "SATA_SIL24", "Silicon Image 3124, 3132"),
    driver("sata_via", "SATA_VIA", "VIA SATA"),
    driver("mptspi", "FUSION_SPI", "LSI parallel SCSI; VMware"),
    driver("mptsas", "FUSION_SAS", "LSI SAS 1064, 1068; VMware"),
    driver(
        "mpt3sas",
        "SCSI_MPT3SAS",
        "LSI, Broadcom SAS 2008 to 3916; Dell HBA",
    ),
    driver("mpi3mr", "SCSI_MPI3MR", "Broadcom SAS 4116"),
    driver(
        "megaraid_sas",
        "MEGARAID_SAS",
        "LSI, Broadcom MegaRAID; Dell PERC",
    ),
    driver("hpsa", "SCSI_HPSA", "HP Smart Array"),
    driver(
        "smartpqi",
        "SCSI_SMARTPQI",
        "Microchip SmartRAID; HPE Smart Array Gen10",
    ),
    driver("aacraid", "SCSI_AACRAID", "Adaptec RAID"),
    driver("arcmsr", "SCSI_ARCMSR", "Areca RAID"),
    driver("3w_9xxx", "SCSI_3W_9XXX", "3ware 9500 to 9690"),
    driver("3w_sas", "SCSI_3W_SAS", "3ware 9750"),
    driver("isci", "SCSI_ISCI", "Intel C600 SAS"),
    driver("mvsas", "SCSI_MVSAS", "Marvell SAS"),
    driver("pm80xx", "SCSI_PM8001", "Microchip, PMC-Sierra SAS"),
    driver("sym53c8xx", "SCSI_SYM53C8XX_2", "LSI 53C8xx parallel SCSI"),
    driver("vmw_pvscsi", "VMWARE_PVSCSI", "VMware"),
    driver("hv_storvsc", "HYPERV_STORAGE", "Hyper-V"),
    driver("usb_storage", "USB_STORAGE", "USB"),
    driver("uas", "USB_UAS", "USB 3"),
    driver("mmc_block", "MMC_BLOCK", "eMMC, SD: the cards themselves"),
    driver("sdhci_pci", "MMC_SDHCI_PCI", "eMMC, SD on PCI"),
    driver(
        "sdhci_acpi",
        "MMC_SDHCI_ACPI",
        "eMMC of tablets and small PCs",
    ),
    driver("rtsx_pci", "MISC_RTSX_PCI", "Realtek card readers"),
    driver(
        "rtsx_pci_sdmmc",
        "MMC_REALTEK_PCI",
        "SD in Realtek card readers",
    ),
];

/// Buses and platform: what the above is plugged into, the firmware's variables, entropy of a virtual machine, and
/// watchdogs with the chipset drivers that make Intel's appear.
const PLATFORM: &[Driver] = &[
    driver("virtio_pci", "VIRTIO_PCI", "virtio on PCI"),
    driver("virtio_mmio", "VIRTIO_MMIO", "virtio without PCI"),
    driver(
        "virtio_rng",
        "HW_RANDOM_VIRTIO",
        "entropy of a virtual machine",
    ),
    driver("hv_vmbus", "HYPERV", "Hyper-V"),
    driver("pci_hyperv", "PCI_HYPERV", "PCI on Hyper-V"),
    driver("xhci_pci", "USB_XHCI_HCD", "USB 3"),
    driver("ehci_pci", "USB_EHCI_HCD", "USB 2"),
    driver("ohci_pci", "USB_OHCI_HCD", "USB 1"),
    driver("uhci_hcd", "USB_UHCI_HCD", "USB 1 of Intel and VIA"),
    driver(
        "lpc_ich",
        "LPC_ICH",
        "Intel chipsets: makes the watchdog appear",
    ),
    driver(
        "i2c_i801",
        "I2C_I801",
        "Intel chipsets: makes the watchdog appear",
    ),
    driver("efivarfs", "EFIVAR_FS", "variables of UEFI firmware"),
    driver("i6300esb", "I6300ESB_WDT", "watchdog of QEMU"),
    driver("iTCO_wdt", "ITCO_WDT", "watchdog of Intel chipsets"),
];

/// All of them, each once.
pub(crate) fn wanted() -> impl Iterator<Item = &'static str> {
    [NETWORK, PHYS, LINKS, STORAGE, PLATFORM]
        .into_iter()
        .flatten()
        .map(|driver| driver.module)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    const GROUPS: [(&str, &[Driver]); 5] = [
        ("Network", NETWORK),
        ("PHY", PHYS),
        ("Links", LINKS),
        ("Disks", STORAGE),
        ("Platform", PLATFORM),
    ];

    fn file(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn every_name_is_written_as_the_kernel_writes_it_and_once() {
        let mut seen = BTreeSet::new();
        for name in wanted() {
            assert!(!name.contains('-') && seen.insert(name), "{name}");
        }
    }

    #[test]
    fn a_kernel_made_for_an_appliance_has_every_driver_built_in() {
        let fragment = file("board/netflash/linux.fragment");
        let x86_64 = file("board/netflash/linux-x86_64.fragment");
        let set: BTreeSet<&str> = fragment.lines().chain(x86_64.lines()).collect();
        for (_, drivers) in GROUPS {
            for driver in drivers {
                let line = format!("CONFIG_{}=y", driver.option);
                assert!(set.contains(line.as_str()), "{line} for {}", driver.module);
            }
        }
    }

    #[test]
    fn the_documentation_names_every_driver() {
        let mut table = String::new();
        for (group, drivers) in GROUPS {
            table += &format!("### {group}\n\n| driver | what it serves |\n| --- | --- |\n");
            for driver in drivers {
                table += &format!("| `{}` | {} |\n", driver.module, driver.serves);
            }
            table.push('\n');
        }
        let page = file("../docs/HARDWARE.md");
        assert!(page.contains(table.trim_end()), "it should say:\n{table}");
    }
}
