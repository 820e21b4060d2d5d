//! Power by outlets of a PDU that speaks SNMP, through the programs `snmpget` and `snmpset` of net-snmp.
//!
//! An outlet gives and takes the current and knows nothing of the machine behind it: "off" is off, but "on" is only
//! an outlet that is on. A machine with two power supplies hangs on several outlets; it is off when all of them are.

use std::time::Duration;

use super::address::Host;
use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::{Power, PowerState};

mod outlet;
mod program;
mod table;

use outlet::{Outlet, outlets};
use program::Session;
#[cfg(feature = "fuzzing")]
pub(super) use program::read_as_output;
pub(super) use program::{Credentials, Hash, Privacy, Version};
pub(super) use table::Pdu;
use table::{Meaning, Table};

/// The outlets of one machine.
pub(super) struct SnmpPower {
    session: Session,
    table: &'static Table,
    outlets: Vec<Outlet>,
    rest: Duration,
}

impl SnmpPower {
    /// The outlets that `address` names, on PDUs of one kind; `rest` is the time without current of a cycle.
    pub(super) fn new(
        address: &str,
        pdu: Pdu,
        credentials: Credentials,
        rest: Duration,
    ) -> Result<SnmpPower, PowerError> {
        let table = pdu.table();
        Ok(SnmpPower {
            session: Session::new(credentials),
            table,
            outlets: outlets(address, table.prefix)?,
            rest,
        })
    }

    fn switch(&mut self, state: PowerState, until: Deadline) -> Result<(), PowerError> {
        let (column, value) = match state {
            PowerState::On => self.table.on,
            PowerState::Off => self.table.off,
        };
        for outlet in &self.outlets {
            self.session
                .set(&outlet.host, &outlet.object(column), value, until)?;
        }
        Ok(())
    }
}

impl Power for SnmpPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        let mut state = PowerState::Off;
        for outlet in &self.outlets {
            let object = outlet.object(self.table.state);
            let value = self.session.get(&outlet.host, &object, until)?;
            match self.table.meaning(value) {
                Meaning::On => state = PowerState::On,
                Meaning::Off => {}
                Meaning::Between => {
                    let text = format!("outlet {outlet} is between on and off");
                    return Err(Failure::Busy.because(text));
                }
                Meaning::Unknown => {
                    let text = format!("outlet {outlet} says {value}, neither on nor off");
                    return Err(Failure::Garbage.because(text));
                }
            }
        }
        Ok(state)
    }

    fn tells_on(&self) -> bool {
        false
    }

    fn on(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.switch(PowerState::On, until)
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        self.switch(PowerState::Off, until)
    }

    fn rest(&self) -> Duration {
        self.rest
    }

    // No `cycle`: a PDU's own lasts as long as its settings say and is over before anybody saw that it was off.
}

/// Whether an address names outlets of this kind of PDU.
pub(super) fn check(address: &str, pdu: Pdu) -> Result<(), PowerError> {
    outlets(address, pdu.table().prefix).map(drop)
}

/// The PDU an address begins with: conversations with it take turns.
pub(super) fn device(address: &str) -> &str {
    address.split_once('/').map_or(address, |(host, _)| host)
}
