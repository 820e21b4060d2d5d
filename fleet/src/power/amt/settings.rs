//! What is written back into AMT's boot settings: all that was read, with every action taken out.

use super::xml::Element;

/// Read-only, or meant for another way of booting: not written back.
const DROPPED: [&str; 10] = [
    "BIOSLastStatus",
    "BootguardStatus",
    "OptionsCleared",
    "RPEEnabled",
    "RSEPassword",
    "SecureBootControlEnabled",
    "UEFIHTTPSBootEnabled",
    "UEFILocalPBABootEnabled",
    "UefiBootParametersArray",
    "WinREBootEnabled",
];

/// Actions, of which three erase: always written as "no".
const REFUSED: [&str; 15] = [
    "BIOSPause",
    "BIOSSetup",
    "ConfigurationDataReset",
    "ForcedProgressEvents",
    "LockKeyboard",
    "LockPowerButton",
    "LockResetButton",
    "LockSleepButton",
    "PlatformErase",
    "ReflashBIOS",
    "SecureErase",
    "UseIDER",
    "UseSOL",
    "UseSafeMode",
    "UserPasswordBypass",
];

/// Numbers that choose among media or say how much is shown.
const ZEROED: [&str; 4] = [
    "BootMediaIndex",
    "FirmwareVerbosity",
    "IDERBootDevice",
    "UefiBootNumberOfParams",
];

/// The settings to write: only what was read, since older firmware knows fewer.
pub(super) fn harmless(now: &Element) -> Vec<(String, String)> {
    let mut written: Vec<(String, String)> = Vec::new();
    for property in &now.children {
        let name = property.name.as_str();
        if DROPPED.contains(&name) || written.iter().any(|(known, _)| known == name) {
            continue;
        }
        let value = if REFUSED.contains(&name) {
            "false"
        } else if ZEROED.contains(&name) {
            "0"
        } else {
            property.text.trim()
        };
        written.push((name.to_owned(), value.to_owned()));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::{DROPPED, Element, REFUSED, harmless};

    fn property(name: &str, text: &str) -> Element {
        Element {
            name: name.to_owned(),
            text: text.to_owned(),
            ..Element::default()
        }
    }

    #[test]
    fn nothing_that_erases_is_ever_written() {
        let names = REFUSED
            .iter()
            .chain(&DROPPED)
            .chain(&["ElementName", "EnforceSecureBoot"]);
        let now = Element {
            children: names.map(|name| property(name, "true")).collect(),
            ..Element::default()
        };
        let written = harmless(&now);
        for (name, value) in &written {
            assert!(!DROPPED.contains(&name.as_str()), "{name} is read-only");
            let kept = ["ElementName", "EnforceSecureBoot"].contains(&name.as_str());
            assert_eq!(value, if kept { "true" } else { "false" }, "{name}");
        }
        for name in ["SecureErase", "PlatformErase", "ConfigurationDataReset"] {
            assert!(written.contains(&(name.to_owned(), "false".to_owned())));
        }
        assert_eq!(written.len(), REFUSED.len() + 2);
    }

    #[test]
    fn what_firmware_does_not_have_is_not_invented() {
        let now = Element {
            children: vec![property("UseSOL", "true"), property("BootMediaIndex", "2")],
            ..Element::default()
        };
        let written = harmless(&now);
        assert_eq!(written.len(), 2);
        assert_eq!(written[1], ("BootMediaIndex".to_owned(), "0".to_owned()));
    }
}
