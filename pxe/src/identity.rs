//! Which machine is this?
//!
//! In order: the SMBIOS UUID unless it is one that vendors ship by the thousand, the board's serial number, the
//! permanent MAC addresses. Whatever stays in doubt resolves to nobody: a machine taken for another loses its disk.

use serde::{Deserialize, Serialize};

use crate::Mac;

/// What a machine says about who it is. iPXE tells a part of it, the agent all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SMBIOS system UUID as the firmware spells it.
    #[serde(default)]
    pub uuid: Option<String>,
    /// SMBIOS system serial number.
    #[serde(default)]
    pub serial: Option<String>,
    /// SMBIOS base board serial number.
    #[serde(default)]
    pub board_serial: Option<String>,
    /// Permanent MAC addresses; the one used for network boot comes first.
    #[serde(default)]
    pub macs: Vec<Mac>,
}

impl Identity {
    /// The UUID in lower case if it can tell machines apart.
    pub fn usable_uuid(&self) -> Option<String> {
        let uuid = self.uuid.as_deref()?.trim().to_ascii_lowercase();
        (!is_bad_uuid(&uuid)).then_some(uuid)
    }

    /// The board's serial number, else the system's, if it is more than a vendor's placeholder.
    pub fn usable_serial(&self) -> Option<String> {
        [&self.board_serial, &self.serial]
            .into_iter()
            .flatten()
            .map(|text| text.trim())
            .find(|text| !is_bad_serial(text))
            .map(str::to_owned)
    }

    /// The MAC addresses that can name a machine.
    pub fn usable_macs(&self) -> impl Iterator<Item = Mac> + '_ {
        self.macs
            .iter()
            .copied()
            .filter(|mac| mac.names_a_machine())
    }
}

/// UUIDs found on whole batches of boards, in lower case.
const BAD_UUIDS: &[&str] = &[
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "12345678-1234-1234-1234-123456789012",
    "01234567-8910-1112-1314-151617181920",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
    "4c4c4544-0000-2010-8020-80c04f202020",
    "d0dec0de-c0de-d0de-c0de-d0dec0ded0de",
];

/// Serial numbers that mean "nobody filled this in", in lower case.
const BAD_SERIALS: &[&str] = &[
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "base board serial number",
    "not specified",
    "not applicable",
    "none",
    "n/a",
    "0123456789",
    "123456789",
    "1234567890",
    "unknown",
    "empty",
];

/// Whether a UUID cannot tell machines apart: malformed, one repeated digit, or known from many boards.
pub fn is_bad_uuid(uuid: &str) -> bool {
    let uuid = uuid.trim().to_ascii_lowercase();
    let well_formed = uuid.len() == 36
        && uuid.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let first = uuid.bytes().next();
    let repeated = uuid.bytes().all(|byte| byte == b'-' || Some(byte) == first);
    !well_formed || repeated || BAD_UUIDS.contains(&uuid.as_str())
}

fn is_bad_serial(serial: &str) -> bool {
    let serial = serial.trim().to_ascii_lowercase();
    let first = serial.chars().next();
    serial.len() < 4
        || serial.chars().all(|c| Some(c) == first)
        || BAD_SERIALS.contains(&serial.as_str())
}

/// A machine the server knows, as far as telling it apart goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownMachine {
    /// The server's number for it.
    pub id: i64,
    /// What was learned or entered.
    pub identity: Identity,
}

/// Whom an identity belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// This machine, for certain.
    Known(i64),
    /// Nobody we know.
    Unknown,
    /// It resembles known machines, but the signs contradict each other. Treated as unknown, and shown.
    Doubtful {
        /// The machines it resembles.
        candidates: Vec<i64>,
        /// What contradicts, in plain words.
        reason: String,
    },
}

/// Find the machine an identity belongs to.
///
/// A UUID or serial that matches exactly one machine decides, unless both sides have MAC addresses and share none:
/// then it may be a cloned UUID as well as an exchanged network card, and only a person can tell.
pub fn resolve(identity: &Identity, known: &[KnownMachine]) -> Resolution {
    let uuid = identity.usable_uuid();
    let serial = identity.usable_serial();
    let by_uuid = candidates(known, |k| uuid.is_some() && k.usable_uuid() == uuid);
    let by_serial = candidates(known, |k| serial.is_some() && k.usable_serial() == serial);
    let by_mac = candidates(known, |k| shares_mac(identity, k));

    for (sign, found) in [("UUID", &by_uuid), ("serial number", &by_serial)] {
        let [only] = found.as_slice() else { continue };
        let has_macs = only.identity.usable_macs().next().is_some();
        let shows_macs = identity.usable_macs().next().is_some();
        if shares_mac(identity, &only.identity) || !has_macs || !shows_macs {
            return Resolution::Known(only.id);
        }
        let two_signs =
            by_uuid.len() == 1 && by_serial.len() == 1 && by_uuid[0].id == by_serial[0].id;
        if two_signs && by_mac.is_empty() {
            return Resolution::Known(only.id);
        }
        return Resolution::Doubtful {
            candidates: vec![only.id],
            reason: format!("its {sign} is that of a known machine, but no MAC address is"),
        };
    }
    match by_mac.as_slice() {
        [only] => {
            let other_uuid = only.identity.usable_uuid();
            if uuid.is_some() && other_uuid.is_some() && uuid != other_uuid {
                return Resolution::Doubtful {
                    candidates: vec![only.id],
                    reason: "its MAC address is that of a known machine with another UUID"
                        .to_owned(),
                };
            }
            Resolution::Known(only.id)
        }
        [] if by_uuid.is_empty() && by_serial.is_empty() => Resolution::Unknown,
        [] => Resolution::Doubtful {
            candidates: by_uuid.iter().chain(&by_serial).map(|k| k.id).collect(),
            reason: "several known machines share its UUID or serial number".to_owned(),
        },
        several => Resolution::Doubtful {
            candidates: several.iter().map(|k| k.id).collect(),
            reason: "its MAC addresses belong to several known machines".to_owned(),
        },
    }
}

fn candidates(known: &[KnownMachine], matches: impl Fn(&Identity) -> bool) -> Vec<&KnownMachine> {
    known.iter().filter(|k| matches(&k.identity)).collect()
}

fn shares_mac(a: &Identity, b: &Identity) -> bool {
    a.usable_macs()
        .any(|mac| b.usable_macs().any(|other| other == mac))
}

#[cfg(test)]
mod tests {
    use super::{Identity, KnownMachine, Resolution, is_bad_uuid, resolve};
    use crate::Mac;

    const UUID_A: &str = "8c8a6d2e-1f52-4b5e-9c9b-0d6a2f3f1a01";
    const UUID_B: &str = "8c8a6d2e-1f52-4b5e-9c9b-0d6a2f3f1a02";

    fn identity(uuid: Option<&str>, serial: Option<&str>, macs: &[u8]) -> Identity {
        Identity {
            uuid: uuid.map(str::to_owned),
            serial: None,
            board_serial: serial.map(str::to_owned),
            macs: macs
                .iter()
                .map(|last| Mac([0x52, 0x54, 0, 0, 0, *last]))
                .collect(),
        }
    }

    fn known(id: i64, identity: Identity) -> KnownMachine {
        KnownMachine { id, identity }
    }

    #[test]
    fn placeholder_uuids_tell_nothing() {
        assert!(is_bad_uuid("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"));
        assert!(is_bad_uuid("00000000-0000-0000-0000-000000000000"));
        assert!(is_bad_uuid("03000200-0400-0500-0006-000700080009"));
        assert!(is_bad_uuid("not a uuid"));
        assert!(!is_bad_uuid(UUID_A));
    }

    #[test]
    fn a_machine_added_by_mac_is_found_with_its_new_uuid() {
        let rows = [
            known(1, identity(None, None, &[1])),
            known(2, identity(None, None, &[2])),
        ];
        assert_eq!(
            resolve(&identity(Some(UUID_A), None, &[2]), &rows),
            Resolution::Known(2)
        );
        assert_eq!(
            resolve(&identity(Some(UUID_A), None, &[3]), &rows),
            Resolution::Unknown
        );
    }

    #[test]
    fn a_cloned_uuid_with_another_mac_is_doubtful() {
        let rows = [known(1, identity(Some(UUID_A), None, &[1]))];
        let stranger = identity(Some(UUID_A), None, &[9]);
        assert!(matches!(
            resolve(&stranger, &rows),
            Resolution::Doubtful { .. }
        ));
    }

    #[test]
    fn an_exchanged_card_is_accepted_when_uuid_and_board_agree() {
        let rows = [known(1, identity(Some(UUID_A), Some("BRD-77"), &[1]))];
        let repaired = identity(Some(UUID_A), Some("BRD-77"), &[9]);
        assert_eq!(resolve(&repaired, &rows), Resolution::Known(1));
    }

    #[test]
    fn a_moved_dock_does_not_make_another_machine() {
        let rows = [known(1, identity(Some(UUID_A), None, &[1]))];
        let other_host = identity(Some(UUID_B), None, &[1]);
        assert!(matches!(
            resolve(&other_host, &rows),
            Resolution::Doubtful { .. }
        ));
    }

    #[test]
    fn two_machines_with_one_uuid_are_told_apart_by_mac() {
        let rows = [
            known(1, identity(Some(UUID_A), None, &[1])),
            known(2, identity(Some(UUID_A), None, &[2])),
        ];
        assert_eq!(
            resolve(&identity(Some(UUID_A), None, &[2]), &rows),
            Resolution::Known(2)
        );
        assert!(matches!(
            resolve(&identity(Some(UUID_A), None, &[3]), &rows),
            Resolution::Doubtful { .. }
        ));
    }
}
