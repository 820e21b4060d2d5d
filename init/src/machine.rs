//! Who this machine is and what it is made of, apart from its disks.

use std::fs;
use std::path::Path;

use netflash_pxe::{DiskInfo, Firmware, Identity, Iface, Inventory, Mac, NicInfo, plain};

use crate::links::Link;
use crate::orphans;

/// Longest text taken from firmware, in characters.
const TEXT_MAX: usize = 128;
const SMBIOS: &str = "/sys/class/dmi/id";

/// Identity out of SMBIOS and the permanent addresses; the preferred card's comes first.
pub(crate) fn identity(links: &[Link], preferred: Option<&Iface>) -> Identity {
    let smbios = Path::new(SMBIOS);
    let mut links: Vec<&Link> = links.iter().collect();
    links.sort_by_key(|link| !is_preferred(link, preferred));
    let mut macs: Vec<Mac> = Vec::new();
    for link in links {
        if !macs.contains(&link.permanent) {
            macs.push(link.permanent);
        }
    }
    Identity {
        uuid: text(&smbios.join("product_uuid")),
        serial: text(&smbios.join("product_serial")),
        board_serial: text(&smbios.join("board_serial")),
        macs,
    }
}

/// The system UUID as it lies in SMBIOS and as boot ROMs send it to DHCP servers.
pub(crate) fn uuid_bytes() -> Option<[u8; 16]> {
    let text = text(&Path::new(SMBIOS).join("product_uuid"))?;
    let usable = !netflash_pxe::is_bad_uuid(&text);
    usable.then(|| parse_uuid(&text)).flatten()
}

/// SMBIOS 2.6 spells the first three fields of the UUID in the little-endian order of its bytes.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    let mut bytes = u128::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    if digits.len() != 32 {
        return None;
    }
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

/// Whether this is the card the command line asks for.
pub(crate) fn is_preferred(link: &Link, preferred: Option<&Iface>) -> bool {
    match preferred {
        Some(Iface::Mac(mac)) => link.permanent == *mac || link.mac == *mac,
        Some(Iface::Name(name)) => link.name == *name,
        None => false,
    }
}

/// What the machine is made of.
pub(crate) fn inventory(disks: Vec<DiskInfo>, links: &[Link]) -> Inventory {
    let smbios = Path::new(SMBIOS);
    let (cpu, cpu_count) = cpu(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Inventory {
        manufacturer: text(&smbios.join("sys_vendor")).unwrap_or_default(),
        product: text(&smbios.join("product_name")).unwrap_or_default(),
        bios_version: text(&smbios.join("bios_version")).unwrap_or_default(),
        firmware: if Path::new("/sys/firmware/efi").is_dir() {
            Firmware::Uefi
        } else {
            Firmware::Bios
        },
        cpu,
        cpu_count,
        memory_bytes: memory_bytes(&memory),
        disks,
        nics: links.iter().map(nic).collect(),
        orphans: orphans::list(),
        kernel: nix::sys::utsname::uname()
            .map(|uname| uname.release().to_string_lossy().into_owned())
            .unwrap_or_default(),
    }
}

fn nic(link: &Link) -> NicInfo {
    let directory = Path::new("/sys/class/net").join(&link.name);
    let driver = fs::read_link(directory.join("device/driver"))
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default();
    NicInfo {
        name: link.name.clone(),
        mac: link.permanent,
        driver,
        // The file holds -1 or cannot be read without a link or with a virtual card.
        speed_mbits: text(&directory.join("speed"))
            .and_then(|text| text.parse().ok())
            .filter(|&speed| speed > 0),
        link: link.carrier,
    }
}

/// Model and number of processors out of `/proc/cpuinfo`.
fn cpu(cpuinfo: &str) -> (String, u32) {
    let value = |line: &str, key: &str| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then(|| plain(value, TEXT_MAX))
    };
    let model = cpuinfo.lines().find_map(|line| value(line, "model name"));
    let count = cpuinfo
        .lines()
        .filter(|line| value(line, "processor").is_some())
        .count();
    (
        model.unwrap_or_default(),
        u32::try_from(count).unwrap_or(u32::MAX),
    )
}

/// `MemTotal` of `/proc/meminfo` in bytes; 0 when it is not there.
fn memory_bytes(meminfo: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kibibytes| kibibytes.parse::<u64>().ok())
        .and_then(|kibibytes| kibibytes.checked_mul(1024))
        .unwrap_or(0)
}

fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = plain(&String::from_utf8_lossy(&bytes), TEXT_MAX);
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link(name: &str, last: u8) -> Link {
        Link {
            index: 2,
            name: name.into(),
            mac: Mac([2, 0, 0, 0, 0, last]),
            permanent: Mac([2, 0, 0, 0, 1, last]),
            up: true,
            carrier: true,
            mtu: 1500,
            bond: None,
        }
    }

    #[test]
    fn the_card_booted_from_is_named_first_and_each_address_once() {
        let links = [link("eth0", 1), link("eth1", 2), link("eth2", 2)];
        let booted = Iface::Mac(Mac([2, 0, 0, 0, 0, 2]));
        let macs = identity(&links, Some(&booted)).macs;
        assert_eq!(macs, [Mac([2, 0, 0, 0, 1, 2]), Mac([2, 0, 0, 0, 1, 1])]);
    }

    #[test]
    fn processors_are_counted_and_named() {
        let text = "processor\t: 0\nmodel name\t: QEMU Virtual CPU\n\nprocessor\t: 1\n";
        assert_eq!(cpu(text), ("QEMU Virtual CPU".into(), 2));
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:  479364 kB\n"), 479_364 * 1024);
        assert_eq!(memory_bytes("MemTotal: x kB\n"), 0);
        assert_eq!(memory_bytes("MemTotal: 18446744073709551615 kB\n"), 0);
    }

    #[test]
    fn a_uuid_goes_out_as_it_lies_in_smbios() {
        let bytes = parse_uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(bytes[..8], [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66]);
        assert_eq!(bytes[8], 0x88);
        assert_eq!(parse_uuid("0011"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".*") {
            parse_uuid(&text);
            cpu(&text);
            memory_bytes(&text);
        }
    }
}
