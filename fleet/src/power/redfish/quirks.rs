//! What vendors do differently, in one table.
//!
//! Everything else is the standard's way. A vendor is recognised by what the root says of itself: `Vendor`, else the
//! names below `Oem`.

use serde_json::Value;

/// When the override's mode (UEFI or Legacy) is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Only when it is another one now: iDRAC 8 complains about a mode that is set, though it takes the rest.
    WhenDifferent,
    /// Always: without it, Supermicro falls back to Legacy.
    Always,
}

/// A vendor's ways.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quirks {
    /// What `Vendor` or a name below `Oem` begins with, in lower case.
    marks: &'static [&'static str],
    /// When the mode is sent.
    pub(super) mode: Mode,
    /// Whether the override is changed on the resource that `@Redfish.Settings` names.
    pub(super) settings_resource: bool,
}

const STANDARD: Quirks = Quirks {
    marks: &[],
    mode: Mode::WhenDifferent,
    settings_resource: false,
};

/// Dell iDRAC, HPE iLO, Lenovo XCC and OpenBMC take the standard's way with the mode left out where it is right.
const TABLE: [Quirks; 3] = [
    Quirks {
        marks: &["dell", "hp", "lenovo", "openbmc"],
        ..STANDARD
    },
    Quirks {
        marks: &["supermicro"],
        mode: Mode::Always,
        ..STANDARD
    },
    Quirks {
        // MegaRAC, sold by many under their own names.
        marks: &["ami", "gigabyte", "asrock"],
        settings_resource: true,
        ..STANDARD
    },
];

/// The ways of whoever made this service.
pub(super) fn of(root: &Value) -> &'static Quirks {
    let vendor = root.get("Vendor").and_then(Value::as_str);
    let oem = root.get("Oem").and_then(Value::as_object);
    let names = vendor.into_iter().chain(
        oem.into_iter()
            .flat_map(|oem| oem.keys().map(String::as_str)),
    );
    for name in names.map(str::to_ascii_lowercase) {
        let fits = |quirks: &&Quirks| quirks.marks.iter().any(|mark| name.starts_with(mark));
        if let Some(quirks) = TABLE.iter().find(fits) {
            return quirks;
        }
    }
    &STANDARD
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Mode, STANDARD, of};

    #[test]
    fn a_vendor_is_known_by_its_name_or_its_extensions() {
        assert_eq!(of(&json!({ "Vendor": "Supermicro" })).mode, Mode::Always);
        assert!(of(&json!({ "Vendor": null, "Oem": { "Ami": {} } })).settings_resource);
        assert_eq!(
            of(&json!({ "Oem": { "Hpe": {} } })).mode,
            Mode::WhenDifferent
        );
        for root in [json!({}), json!([]), json!({ "Vendor": 7, "Oem": "x" })] {
            assert_eq!(of(&root), &STANDARD);
        }
    }
}
