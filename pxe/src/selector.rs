//! Which disk of a machine is meant.
//!
//! The choice fails closed: nothing or more than one disk fitting the words is an error that lists what is there.

use std::fmt;
use std::str::FromStr;

use crate::DiskInfo;
use crate::as_text::serde_as_text;

/// Names one disk of a machine.
///
/// Written as `auto`, `serial:S5GX…`, `wwn:0x5002…`, `path:/dev/nvme0n1` (or the bare path),
/// or `size:200G..300G` with either end optional (units K, M, G, T of 1024, bytes without unit).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DiskSelector {
    /// The only built-in disk; refused when there are several.
    #[default]
    Auto,
    /// The disk with this serial number, any kind.
    Serial(String),
    /// The disk with this world wide name, any kind.
    Wwn(String),
    /// The disk at this device path, any kind. Names such as `/dev/sda` can change from start to start.
    Path(String),
    /// The only built-in disk whose size lies in `min..=max` bytes.
    Size {
        /// Smallest size, in bytes.
        min: u64,
        /// Largest size, in bytes.
        max: u64,
    },
}

/// A text that is no disk selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no disk; use auto, serial:…, wwn:…, /dev/… or size:200G..300G")]
pub struct SelectorError {
    text: String,
}

/// Why no disk was chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No disk fits.
    #[error("no disk fits {selector}; this machine has {present}")]
    Absent {
        /// What was asked for.
        selector: DiskSelector,
        /// The disks present, in words.
        present: String,
    },
    /// More than one disk fits.
    #[error("{selector} fits several disks: {fitting}; name one by serial: or wwn:")]
    Ambiguous {
        /// What was asked for.
        selector: DiskSelector,
        /// The disks that fit, in words.
        fitting: String,
    },
}

impl DiskSelector {
    /// The longest text accepted, in bytes.
    pub const TEXT_MAX: usize = 256;

    /// The one disk meant.
    ///
    /// # Errors
    /// When none or several fit. Removable, USB and read-only disks fit only when named by serial, WWN or path.
    pub fn choose<'a>(&self, disks: &'a [DiskInfo]) -> Result<&'a DiskInfo, ChoiceError> {
        let mut fitting = disks.iter().filter(|disk| self.fits(disk));
        match (fitting.next(), fitting.next()) {
            (Some(disk), None) => Ok(disk),
            (None, _) => Err(ChoiceError::Absent {
                selector: self.clone(),
                present: describe(disks.iter()),
            }),
            (Some(_), Some(_)) => Err(ChoiceError::Ambiguous {
                selector: self.clone(),
                fitting: describe(disks.iter().filter(|disk| self.fits(disk))),
            }),
        }
    }

    fn fits(&self, disk: &DiskInfo) -> bool {
        match self {
            DiskSelector::Auto => disk.is_internal(),
            DiskSelector::Serial(serial) => disk.serial.as_deref().map(str::trim) == Some(serial),
            DiskSelector::Wwn(wwn) => disk
                .wwn
                .as_deref()
                .is_some_and(|w| w.eq_ignore_ascii_case(wwn)),
            DiskSelector::Path(path) => disk.path == *path,
            DiskSelector::Size { min, max } => {
                disk.is_internal() && (*min..=*max).contains(&disk.bytes)
            }
        }
    }
}

fn describe<'a>(disks: impl Iterator<Item = &'a DiskInfo>) -> String {
    let words: Vec<String> = disks
        .map(|disk| {
            let serial = disk.serial.as_deref().unwrap_or("no serial");
            let kind = if disk.is_internal() {
                ""
            } else {
                ", removable or read-only"
            };
            let serial = crate::plain(serial, 64);
            format!(
                "{} ({} bytes, {serial}{kind})",
                crate::plain(&disk.path, 64),
                disk.bytes
            )
        })
        .collect();
    if words.is_empty() {
        "no disk".to_owned()
    } else {
        words.join(", ")
    }
}

impl FromStr for DiskSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let wrong = || SelectorError {
            text: crate::plain(text, 80),
        };
        if text.len() > Self::TEXT_MAX || text.chars().any(char::is_control) {
            return Err(wrong());
        }
        if text == "auto" {
            return Ok(DiskSelector::Auto);
        }
        if text.starts_with("/dev/") {
            return Ok(DiskSelector::Path(text.to_owned()));
        }
        match text.split_once(':') {
            Some((_, "")) => Err(wrong()),
            Some(("serial", value)) => Ok(DiskSelector::Serial(value.trim().to_owned())),
            Some(("wwn", value)) => Ok(DiskSelector::Wwn(value.trim().to_owned())),
            Some(("path", value)) if value.starts_with("/dev/") => {
                Ok(DiskSelector::Path(value.to_owned()))
            }
            Some(("size", range)) => {
                let (min, max) = range.split_once("..").ok_or_else(wrong)?;
                let min = if min.is_empty() {
                    Some(0)
                } else {
                    parse_bytes(min)
                };
                let max = if max.is_empty() {
                    Some(u64::MAX)
                } else {
                    parse_bytes(max)
                };
                match (min, max) {
                    (Some(min), Some(max)) if min <= max => Ok(DiskSelector::Size { min, max }),
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let shift = match text.bytes().last()?.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for DiskSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskSelector::Auto => f.write_str("auto"),
            DiskSelector::Serial(serial) => write!(f, "serial:{serial}"),
            DiskSelector::Wwn(wwn) => write!(f, "wwn:{wwn}"),
            DiskSelector::Path(path) => write!(f, "path:{path}"),
            DiskSelector::Size { min, max: u64::MAX } => write!(f, "size:{min}.."),
            DiskSelector::Size { min, max } => write!(f, "size:{min}..{max}"),
        }
    }
}

serde_as_text!(DiskSelector);

#[cfg(test)]
mod tests {
    use super::{ChoiceError, DiskSelector};
    use crate::DiskInfo;

    fn disk(path: &str, gib: u64, serial: &str, transport: &str) -> DiskInfo {
        DiskInfo {
            path: path.to_owned(),
            serial: Some(serial.to_owned()),
            bytes: gib << 30,
            sector_bytes: 512,
            transport: transport.to_owned(),
            ..DiskInfo::default()
        }
    }

    #[test]
    fn without_a_name_only_one_built_in_disk_will_do() {
        let stick = disk("/dev/sdb", 16, "stick", "usb");
        let ssd = disk("/dev/sda", 240, "ssd", "sata");
        let nvme = disk("/dev/nvme0n1", 480, "nvme", "nvme");
        let auto = DiskSelector::Auto;
        assert_eq!(auto.choose(&[stick.clone(), ssd.clone()]), Ok(&ssd));
        assert!(matches!(
            auto.choose(&[ssd, nvme]),
            Err(ChoiceError::Ambiguous { .. })
        ));
        assert!(matches!(
            auto.choose(&[stick]),
            Err(ChoiceError::Absent { .. })
        ));
    }

    #[test]
    fn a_usb_disk_is_taken_only_when_named() {
        let disks = [disk("/dev/sdb", 16, "stick", "usb")];
        let size: DiskSelector = "size:..1T".parse().expect("a range");
        let serial: DiskSelector = "serial:stick".parse().expect("a serial");
        assert!(size.choose(&disks).is_err());
        assert_eq!(serial.choose(&disks), Ok(&disks[0]));
    }

    #[test]
    fn what_is_rendered_parses_to_the_same_selector() {
        for text in [
            "auto",
            "serial:A B",
            "wwn:0x5002",
            "/dev/sda",
            "size:1G..2G",
            "size:..5",
            "size:7..",
        ] {
            let selector: DiskSelector = text.parse().expect(text);
            assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }

    #[test]
    fn nonsense_names_no_disk() {
        for text in [
            "",
            "sda",
            "serial:",
            "size:",
            "size:5..1",
            "size:1X..",
            "size:99999999999T..",
            "path:sda",
            "size:+1..2",
        ] {
            assert!(text.parse::<DiskSelector>().is_err(), "{text}");
        }
    }
}
