//! The test room: it sees every other room and is seen by none.

pub mod bmc;
pub mod lab;
pub mod net;
pub mod sim;
