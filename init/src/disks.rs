//! The disks of this machine, as `/sys/block` shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use netflash_imager::{Target, TargetError, TargetOptions};
use netflash_pxe::{ChoiceError, DiskInfo, DiskSelector, OrphanKind};

use crate::flash::chain;
use crate::orphans;

/// Disks reported; a machine with more is a storage server, and named disks are still found.
const DISKS_MAX: usize = 128;
/// How long the chosen disk may take to appear.
const DISK_WAIT: Duration = Duration::from_secs(30);
/// How long its device node may take after the disk is listed.
const NODE_WAIT: Duration = Duration::from_secs(5);
/// Pause between looks while waiting.
const POLL: Duration = Duration::from_millis(200);
/// Sizes in `/sys/block` are in these, whatever the disk's sectors are.
const SYSFS_SECTOR: u64 = 512;

/// All whole disks that hold something or could, in the kernel's order of names.
///
/// Memory, loop, optical and mapped devices are left out: nobody images those.
fn list() -> Vec<DiskInfo> {
    list_in(Path::new("/sys/block"))
}

/// Looks until there is a built-in disk or the time is over; then what there is.
///
/// RAID controllers, USB and NVMe behind VMD take long after the driver is loaded.
pub(crate) fn wait_for_one(limit: Duration) -> Vec<DiskInfo> {
    wait_for(|disks| disks.iter().any(DiskInfo::is_internal), limit)
}

/// Looks until the disks are as wanted or the time is over; then what there is.
pub(crate) fn wait_for(wanted: impl Fn(&[DiskInfo]) -> bool, limit: Duration) -> Vec<DiskInfo> {
    let end = Instant::now() + limit;
    loop {
        let disks = list();
        if wanted(&disks) || Instant::now() >= end {
            return disks;
        }
        thread::sleep(POLL);
    }
}

/// Opens a disk that was chosen. Nothing is written here.
///
/// # Errors
/// Why it cannot be used, in words for the operator.
pub(crate) fn open(path: &Path, options: TargetOptions) -> Result<Target, String> {
    let end = Instant::now() + NODE_WAIT;
    loop {
        match Target::open(path, options) {
            Ok(target) => return Ok(target),
            // devtmpfs makes the node a moment after sysfs lists the disk.
            Err(TargetError::Absent { .. }) if Instant::now() < end => thread::sleep(POLL),
            Err(error) => return Err(chain(&error)),
        }
    }
}

/// Chooses exactly one disk: as `ordered`, or as `named` (by the kernel command line) where the order says `auto`.
///
/// # Errors
/// When none fits, or more than one, in words for the operator.
pub(crate) fn choose(
    ordered: &DiskSelector,
    named: Option<&DiskSelector>,
) -> Result<DiskInfo, String> {
    let selector = match (ordered, named) {
        (DiskSelector::Auto, Some(named)) => named,
        (ordered, _) => ordered,
    };
    // A disk may still come; of two that fit, none will go.
    let is_decided =
        |disks: &[DiskInfo]| !matches!(selector.choose(disks), Err(ChoiceError::Absent { .. }));
    let listed = wait_for(is_decided, DISK_WAIT);
    let disk = selector.choose(&listed).map_err(|error| {
        let orphans = orphans::describe(&orphans::list(), OrphanKind::Storage);
        match (&error, orphans) {
            (ChoiceError::Absent { .. }, Some(orphans)) => {
                format!("{error}; {orphans}")
            }
            _ => error.to_string(),
        }
    })?;
    Ok(disk.clone())
}

fn list_in(block: &Path) -> Vec<DiskInfo> {
    let Ok(entries) = fs::read_dir(block) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_disk_name(name))
        .collect();
    // sda … sdz, sdaa: the kernel's order is by length first.
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.truncate(DISKS_MAX);
    names
        .iter()
        .filter_map(|name| read(&block.join(name), name))
        .collect()
}

fn is_disk_name(name: &str) -> bool {
    const OTHERS: &[&str] = &["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtd"];
    // eMMC boot and replay areas are disks to the kernel, and the firmware's to everybody else.
    let is_emmc_area = name.contains("boot") || name.contains("rpmb");
    !OTHERS.iter().any(|prefix| name.starts_with(prefix)) && !is_emmc_area
}

fn read(directory: &Path, name: &str) -> Option<DiskInfo> {
    let bytes = number(&directory.join("size"))?.checked_mul(SYSFS_SECTOR)?;
    // A card reader without a card is not a disk.
    if bytes == 0 {
        return None;
    }
    let device = directory.join("device");
    Some(DiskInfo {
        path: format!("/dev/{name}"),
        model: text(&device.join("model")).unwrap_or_default(),
        serial: serial(directory),
        wwn: [directory.join("wwid"), device.join("wwid")]
            .iter()
            .find_map(|file| text(file)),
        bytes,
        sector_bytes: number(&directory.join("queue/logical_block_size"))
            .and_then(|size| u32::try_from(size).ok())
            .unwrap_or(512),
        transport: transport(directory, name),
        removable: number(&directory.join("removable")) == Some(1),
        read_only: number(&directory.join("ro")) == Some(1),
    })
}

/// NVMe, virtio and MMC have a file; SCSI and ATA disks have it in page 0x80 of their vital data.
fn serial(directory: &Path) -> Option<String> {
    let device = directory.join("device");
    [device.join("serial"), directory.join("serial")]
        .iter()
        .find_map(|file| text(file))
        .or_else(|| {
            let page = fs::read(device.join("vpd_pg80")).ok()?;
            vital_serial(&page)
        })
}

/// The text of a unit serial number page (SPC-4, 7.8.16): 4 bytes of header, then the text.
fn vital_serial(page: &[u8]) -> Option<String> {
    let [_, 0x80, high, low, rest @ ..] = page else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let serial = String::from_utf8_lossy(&rest[..length]);
    let serial = serial.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!serial.is_empty()).then(|| serial.to_owned())
}

/// How the disk is attached, read off the path of its device in `/sys`.
fn transport(directory: &Path, name: &str) -> String {
    let path = fs::canonicalize(directory.join("device")).unwrap_or_else(|_| PathBuf::new());
    let parts: Vec<String> = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let any = |test: fn(&str) -> bool| parts.iter().any(|part| test(part));
    // The outermost bus decides: an ATA disk in a USB case is a USB disk.
    let kind = if any(|part| part.starts_with("usb")) {
        "usb"
    } else if any(|part| part.starts_with("rport-")) {
        "fc"
    } else if any(|part| part.starts_with("session")) {
        "iscsi"
    } else if name.starts_with("nvme") {
        "nvme"
    } else if name.starts_with("mmcblk") {
        "mmc"
    } else if any(|part| part.starts_with("ata")) {
        "sata"
    } else if any(|part| part.starts_with("virtio")) {
        "virtio"
    } else if any(|part| part.starts_with("end_device-")) {
        "sas"
    } else if any(|part| part.starts_with("target")) {
        "scsi"
    } else {
        ""
    };
    kind.to_owned()
}

fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = netflash_pxe::plain(text.trim_matches(['\0', '\n', ' ']), 128);
    (!text.is_empty()).then_some(text)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn disk(root: &Path, name: &str, sectors: u64) -> PathBuf {
        let directory = root.join(name);
        fs::create_dir_all(directory.join("queue")).unwrap();
        fs::create_dir_all(directory.join("device")).unwrap();
        fs::write(directory.join("size"), format!("{sectors}\n")).unwrap();
        fs::write(directory.join("removable"), "0\n").unwrap();
        fs::write(directory.join("ro"), "0\n").unwrap();
        fs::write(directory.join("queue/logical_block_size"), "4096\n").unwrap();
        directory
    }

    #[test]
    fn disks_come_in_the_kernels_order_and_empty_slots_do_not() {
        let root = tempfile::tempdir().unwrap();
        for (name, sectors) in [
            ("sdaa", 1),
            ("sdb", 1),
            ("sda", 1),
            ("sdc", 0),
            ("loop0", 1),
        ] {
            disk(root.path(), name, sectors);
        }
        let paths: Vec<String> = list_in(root.path()).into_iter().map(|d| d.path).collect();
        assert_eq!(paths, ["/dev/sda", "/dev/sdb", "/dev/sdaa"]);
    }

    #[test]
    fn size_is_in_bytes_whatever_the_sector_is() {
        let root = tempfile::tempdir().unwrap();
        let directory = disk(root.path(), "nvme0n1", 2048);
        fs::write(directory.join("device/serial"), "S5GX  \n").unwrap();
        fs::write(directory.join("wwid"), "eui.0025385\n").unwrap();
        let disks = list_in(root.path());
        assert_eq!(disks[0].bytes, 1 << 20);
        assert_eq!(disks[0].sector_bytes, 4096);
        assert_eq!(disks[0].serial.as_deref(), Some("S5GX"));
        assert_eq!(disks[0].wwn.as_deref(), Some("eui.0025385"));
        assert_eq!(disks[0].transport, "nvme");
    }

    #[test]
    fn a_disk_behind_usb_is_a_usb_disk_whatever_else_it_is() {
        let root = tempfile::tempdir().unwrap();
        let far = root.path().join("pci0000:00/usb2/2-1/ata1/target0:0:0");
        fs::create_dir_all(&far).unwrap();
        let block = root.path().join("block");
        let directory = disk(&block, "sda", 8);
        fs::remove_dir(directory.join("device")).unwrap();
        std::os::unix::fs::symlink(&far, directory.join("device")).unwrap();
        assert_eq!(list_in(&block)[0].transport, "usb");
        assert!(!list_in(&block)[0].is_internal());
    }

    #[test]
    fn a_serial_comes_out_of_its_vital_page() {
        assert_eq!(
            vital_serial(b"\0\x80\0\x08  QM0001").as_deref(),
            Some("QM0001")
        );
        assert_eq!(vital_serial(b"\0\x83\0\x08  QM0001"), None);
        assert_eq!(vital_serial(b"\0\x80\xff\xffAB").as_deref(), Some("AB"));
    }

    proptest! {
        #[test]
        fn any_page_is_read(page: Vec<u8>) {
            vital_serial(&page);
        }
    }
}
