//! Network cards and disk controllers that no driver of the appliance serves, and disks that the firmware hides.
//!
//! A machine without its network or its disk cannot say why. `/sys` can: a device of such a class without a `driver`
//! link is an orphan, and a SATA controller in the RAID mode of Intel's firmware counts the NVMe disks behind it in
//! `remapped_nvme`; those Linux cannot reach.

use std::fs;
use std::path::Path;

use netflash_pxe::{OrphanInfo, OrphanKind, plain};

/// Orphans reported; who has more has another problem.
const ORPHANS_MAX: usize = 32;
/// Longest name of a device, in characters.
const NAME_MAX: usize = 64;
/// Class of an USB interface for Ethernet and the like: USB class definitions for communication devices, 4.2.
const USB_COMMUNICATION: u64 = 0x02;

/// What is without a driver now. Drivers that are still being loaded make it shorter.
pub(crate) fn list() -> Vec<OrphanInfo> {
    list_in(Path::new("/sys/bus"))
}

/// One line for the operator, or nothing.
pub(crate) fn describe(orphans: &[OrphanInfo], kind: OrphanKind) -> Option<String> {
    let words: Vec<String> = orphans
        .iter()
        .filter(|orphan| orphan.kind == kind)
        .map(OrphanInfo::to_string)
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn list_in(buses: &Path) -> Vec<OrphanInfo> {
    let mut orphans = Vec::new();
    for (bus, look) in [
        ("pci", pci as fn(&Path) -> Option<Found>),
        ("usb", usb),
        ("virtio", virtio),
    ] {
        let Ok(entries) = fs::read_dir(buses.join(bus).join("devices")) else {
            continue;
        };
        orphans.extend(entries.flatten().filter_map(|entry| {
            let Found { kind, id, hidden } = look(&entry.path())?;
            Some(OrphanInfo {
                kind,
                bus: bus.to_owned(),
                address: plain(&entry.file_name().to_string_lossy(), NAME_MAX),
                id,
                hidden_disks: hidden,
            })
        }));
    }
    orphans.sort_by(|a, b| (&a.bus, &a.address).cmp(&(&b.bus, &b.address)));
    orphans.truncate(ORPHANS_MAX);
    orphans
}

/// What is wrong with one device.
struct Found {
    kind: OrphanKind,
    id: String,
    hidden: u32,
}

/// PCI Code and ID Assignment Specification 1: base class 01h is mass storage, 02h network.
fn pci(device: &Path) -> Option<Found> {
    let kind = match number(device, "class")? >> 16 {
        0x01 => OrphanKind::Storage,
        0x02 => OrphanKind::Network,
        _ => return None,
    };
    let hidden = number(device, "remapped_nvme").unwrap_or(0);
    if has_driver(device) && hidden == 0 {
        return None;
    }
    let id = format!(
        "{:04x}:{:04x}",
        number(device, "vendor")?,
        number(device, "device")?
    );
    Some(Found {
        kind,
        id,
        hidden: u32::try_from(hidden).unwrap_or(u32::MAX),
    })
}

/// An interface, `1-2:1.0`. One of a vendor's own class may be anything, so only the standard one counts.
fn usb(interface: &Path) -> Option<Found> {
    let class = text(interface, "bInterfaceClass")?;
    if u64::from_str_radix(&class, 16) != Ok(USB_COMMUNICATION) || has_driver(interface) {
        return None;
    }
    // The device is the interface's parent; `/sys/bus/usb/devices/1-2:1.0` links into it.
    let device = interface.join("..");
    let id = format!(
        "{}:{}",
        text(&device, "idVendor").unwrap_or_default(),
        text(&device, "idProduct").unwrap_or_default()
    );
    Some(Found {
        kind: OrphanKind::Network,
        id: plain(&id, NAME_MAX),
        hidden: 0,
    })
}

/// Virtual I/O Device (VIRTIO) 1.2, section 5: device 1 is a network card, 2 a disk, 8 a SCSI host.
fn virtio(device: &Path) -> Option<Found> {
    let number = number(device, "device")?;
    let kind = match number {
        1 => OrphanKind::Network,
        2 | 8 => OrphanKind::Storage,
        _ => return None,
    };
    (!has_driver(device)).then(|| Found {
        kind,
        id: format!("device {number}"),
        hidden: 0,
    })
}

fn has_driver(device: &Path) -> bool {
    device.join("driver").exists()
}

fn text(device: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(device.join(file)).ok()?;
    Some(text.trim().to_owned())
}

/// A number as `/sys` writes them: `0x020000` or `2`.
fn number(device: &Path, file: &str) -> Option<u64> {
    let text = text(device, file)?;
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of a made-up `/sys/bus`; a name of a driver links to it.
    fn device(buses: &Path, bus: &str, name: &str, files: &[(&str, &str)], driver: Option<&str>) {
        let directory = buses.join(bus).join("devices").join(name);
        fs::create_dir_all(&directory).unwrap();
        for (file, text) in files {
            fs::write(directory.join(file), format!("{text}\n")).unwrap();
        }
        if let Some(driver) = driver {
            let target = buses.join(bus).join("drivers").join(driver);
            fs::create_dir_all(&target).unwrap();
            std::os::unix::fs::symlink(target, directory.join("driver")).unwrap();
        }
    }

    fn card(class: &'static str) -> [(&'static str, &'static str); 3] {
        [("class", class), ("vendor", "0x10ec"), ("device", "0x8029")]
    }

    #[test]
    fn cards_and_controllers_without_a_driver_are_named() {
        let root = tempfile::tempdir().unwrap();
        let buses = root.path();
        device(buses, "pci", "0000:00:03.0", &card("0x020000"), None);
        device(buses, "pci", "0000:00:04.0", &card("0x010000"), None);
        device(buses, "pci", "0000:00:05.0", &card("0x020000"), Some("igb"));
        device(buses, "pci", "0000:00:06.0", &card("0x030000"), None);
        device(buses, "virtio", "virtio0", &[("device", "0x0001")], None);
        device(buses, "virtio", "virtio1", &[("device", "0x0004")], None);
        let found = list_in(buses);
        let words: Vec<String> = found.iter().map(OrphanInfo::to_string).collect();
        assert_eq!(
            words,
            [
                "no driver for network card 10ec:8029 at pci 0000:00:03.0",
                "no driver for disk controller 10ec:8029 at pci 0000:00:04.0",
                "no driver for network card device 1 at virtio virtio0",
            ]
        );
        let storage = describe(&found, OrphanKind::Storage);
        assert_eq!(storage.as_deref(), Some(words[1].as_str()));
    }

    #[test]
    fn disks_that_the_firmware_hides_are_counted_although_the_controller_has_its_driver() {
        let root = tempfile::tempdir().unwrap();
        let mut files = card("0x010400").to_vec();
        files.push(("remapped_nvme", "2"));
        device(root.path(), "pci", "0000:00:17.0", &files, Some("ahci"));
        let found = list_in(root.path());
        assert_eq!(found[0].hidden_disks, 2);
        let words = found[0].to_string();
        assert!(
            words.contains("2 NVMe") && words.contains("AHCI"),
            "{words}"
        );
    }

    #[test]
    fn usb_cards_are_known_by_the_standard_class_only() {
        let root = tempfile::tempdir().unwrap();
        let parent = root.path().join("usb/devices/1-2");
        fs::create_dir_all(&parent).unwrap();
        fs::write(parent.join("idVendor"), "0bda\n").unwrap();
        fs::write(parent.join("idProduct"), "8153\n").unwrap();
        for (name, class) in [("1-2:1.0", "02"), ("1-2:1.1", "ff")] {
            let below = parent.join(name);
            fs::create_dir_all(&below).unwrap();
            fs::write(below.join("bInterfaceClass"), class).unwrap();
            let link = root.path().join("usb/devices").join(name);
            std::os::unix::fs::symlink(below, link).unwrap();
        }
        let found = list_in(root.path());
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "no driver for network card 0bda:8153 at usb 1-2:1.0"
        );
    }
}
