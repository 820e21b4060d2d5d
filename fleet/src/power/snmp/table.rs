//! What PDUs call the state of an outlet, and what they take for on and off.
//!
//! One row a family of PDUs; each names the objects of the vendor's MIB it is taken from. Where the object that
//! switches can be read too and says the state, it is the only one used: APC's two status tables number on and off
//! the other way round.

use serde::Deserialize;

/// A family of PDUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pdu {
    /// APC Switched Rack PDU of the first generation, AP79xx.
    ApcRpdu,
    /// APC Switched Rack PDU of the second generation, AP79xxB, AP86xx, AP89xx.
    ApcRpdu2,
    /// APC MasterSwitch, AP9210 to AP9212.
    ApcMasterswitch,
    /// CyberPower Switched PDU.
    Cyberpower,
    /// Raritan PX2, PX3 and PX4, also as Legrand and Server Technology PRO3X and PRO4X.
    Raritan,
    /// Raritan Dominion PX of the first generation.
    RaritanPx1,
    /// Eaton ePDU G2 and G3.
    Eaton,
    /// Server Technology Sentry CDU.
    Sentry3,
    /// Server Technology PRO1 and PRO2.
    Sentry4,
}

/// The objects of a family. Columns are without the index of the outlet.
#[derive(Debug)]
pub(super) struct Table {
    /// What to write where to switch on.
    pub(super) on: (&'static str, i32),
    /// The same for off.
    pub(super) off: (&'static str, i32),
    /// Where the state is read.
    pub(super) state: &'static str,
    is_on: i32,
    is_off: i32,
    /// On its way from one to the other.
    between: &'static [i32],
    /// Indexes before the outlet's, for a PDU that stands alone.
    pub(super) prefix: &'static [u32],
}

/// What a state read from a PDU means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    On,
    Off,
    /// It will be the other one soon.
    Between,
    /// The table does not know it.
    Unknown,
}

impl Table {
    pub(super) fn meaning(&self, value: i32) -> Meaning {
        match value {
            value if value == self.is_on => Meaning::On,
            value if value == self.is_off => Meaning::Off,
            value if self.between.contains(&value) => Meaning::Between,
            _ => Meaning::Unknown,
        }
    }
}

/// PowerNet-MIB: rPDUOutletControlOutletCommand.
const APC_RPDU: &str = "1.3.6.1.4.1.318.1.1.12.3.3.1.1.4";
/// PowerNet-MIB: rPDU2OutletSwitchedControlCommand.
const APC_RPDU2: &str = "1.3.6.1.4.1.318.1.1.26.9.2.4.1.5";
/// PowerNet-MIB: sPDUOutletCtl.
const APC_MASTERSWITCH: &str = "1.3.6.1.4.1.318.1.1.4.4.2.1.3";
/// CPS-MIB: ePDUOutletControlOutletCommand, ePDUOutletStatusOutletState.
const CYBERPOWER: &str = "1.3.6.1.4.1.3808.1.1.3.3.3.1.1.4";
const CYBERPOWER_STATE: &str = "1.3.6.1.4.1.3808.1.1.3.3.5.1.1.4";
/// PDU2-MIB: switchingOperation, outletSwitchingState (SensorStateEnumeration).
const RARITAN: &str = "1.3.6.1.4.1.13742.6.4.1.2.1.2";
const RARITAN_STATE: &str = "1.3.6.1.4.1.13742.6.4.1.2.1.3";
/// PDU-MIB: outletOperationalState.
const RARITAN_PX1: &str = "1.3.6.1.4.1.13742.4.1.2.2.1.3";
/// EATON-EPDU-MIB: outletControlOnCmd and outletControlOffCmd, which take the seconds until then; outletControlStatus.
const EATON_ON: &str = "1.3.6.1.4.1.534.6.6.7.6.6.1.4";
const EATON_OFF: &str = "1.3.6.1.4.1.534.6.6.7.6.6.1.3";
const EATON_STATE: &str = "1.3.6.1.4.1.534.6.6.7.6.6.1.2";
/// Sentry3-MIB: outletControlAction, outletStatus.
const SENTRY3: &str = "1.3.6.1.4.1.1718.3.2.3.1.11";
const SENTRY3_STATE: &str = "1.3.6.1.4.1.1718.3.2.3.1.5";
/// Sentry4-MIB: st4OutletControlAction, st4OutletState.
const SENTRY4: &str = "1.3.6.1.4.1.1718.4.1.8.5.1.2";
const SENTRY4_STATE: &str = "1.3.6.1.4.1.1718.4.1.8.3.1.1";

/// A PDU where 1 is on and 2 is off, written and read.
const fn one_and_two(control: &'static str, state: &'static str) -> Table {
    Table {
        on: (control, 1),
        off: (control, 2),
        state,
        is_on: 1,
        is_off: 2,
        between: &[],
        prefix: &[],
    }
}

impl Pdu {
    /// The objects of this family.
    pub(super) fn table(self) -> &'static Table {
        match self {
            Pdu::ApcRpdu => const { &one_and_two(APC_RPDU, APC_RPDU) },
            Pdu::ApcRpdu2 => const { &one_and_two(APC_RPDU2, APC_RPDU2) },
            Pdu::ApcMasterswitch => const { &one_and_two(APC_MASTERSWITCH, APC_MASTERSWITCH) },
            Pdu::Cyberpower => const { &one_and_two(CYBERPOWER, CYBERPOWER_STATE) },
            Pdu::Raritan => &Table {
                on: (RARITAN, 1),
                off: (RARITAN, 0),
                state: RARITAN_STATE,
                is_on: 7,
                is_off: 8,
                between: &[],
                prefix: &[1],
            },
            Pdu::RaritanPx1 => &Table {
                on: (RARITAN_PX1, 1),
                off: (RARITAN_PX1, 0),
                state: RARITAN_PX1,
                is_on: 1,
                is_off: 0,
                between: &[2],
                prefix: &[],
            },
            Pdu::Eaton => &Table {
                on: (EATON_ON, 0),
                off: (EATON_OFF, 0),
                state: EATON_STATE,
                is_on: 1,
                is_off: 0,
                between: &[2, 3],
                prefix: &[0],
            },
            Pdu::Sentry3 => &Table {
                on: (SENTRY3, 1),
                off: (SENTRY3, 2),
                state: SENTRY3_STATE,
                is_on: 1,
                is_off: 0,
                between: &[2, 3],
                prefix: &[1, 1],
            },
            Pdu::Sentry4 => &Table {
                prefix: &[1, 1],
                ..const { one_and_two(SENTRY4, SENTRY4_STATE) }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, Pdu};

    const ALL: [Pdu; 9] = [
        Pdu::ApcRpdu,
        Pdu::ApcRpdu2,
        Pdu::ApcMasterswitch,
        Pdu::Cyberpower,
        Pdu::Raritan,
        Pdu::RaritanPx1,
        Pdu::Eaton,
        Pdu::Sentry3,
        Pdu::Sentry4,
    ];

    #[test]
    fn on_and_off_differ_in_what_is_written_and_in_what_is_read() {
        for pdu in ALL {
            let table = pdu.table();
            assert_ne!(table.on, table.off, "{pdu:?}");
            assert_eq!(table.meaning(table.is_on), Meaning::On, "{pdu:?}");
            assert_eq!(table.meaning(table.is_off), Meaning::Off, "{pdu:?}");
        }
    }

    #[test]
    fn a_state_nobody_wrote_down_is_not_taken_for_off() {
        for pdu in ALL {
            for value in [-1, 4, 99, i32::MIN, i32::MAX] {
                assert_eq!(pdu.table().meaning(value), Meaning::Unknown, "{pdu:?}");
            }
        }
        assert_eq!(Pdu::Eaton.table().meaning(2), Meaning::Between);
        assert_eq!(Pdu::Sentry4.table().meaning(0), Meaning::Unknown);
    }

    #[test]
    fn the_words_in_a_profile_are_stable() {
        let word = |pdu| serde_json::from_value::<Pdu>(serde_json::json!(pdu));
        assert_eq!(word("apc-rpdu2").unwrap(), Pdu::ApcRpdu2);
        assert_eq!(word("raritan-px1").unwrap(), Pdu::RaritanPx1);
        assert!(word("apc").is_err());
    }
}
