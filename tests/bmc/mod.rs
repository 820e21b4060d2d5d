//! Simulated management controllers: what an operator's network holds, as strict as devices are.
//!
//! Each switches a [`Board`]: a lamp, or a machine of the lab through its chassis. Whoever speaks to one of them in a
//! test speaks the device's own protocol; that it is spoken right is proved first by a client of somebody else.

mod board;
mod ipmi;

pub use board::Board;
pub use ipmi::{IpmiSim, hook};
