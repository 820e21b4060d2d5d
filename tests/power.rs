//! Remote power, against controllers that speak their own protocols: first through a client of somebody else, then
//! through ours.
//!
//! On loopback: states, ladders, faults and a room of a hundred. In the lab: a QEMU machine behind each kind of
//! controller, which boots from the network once and its disk after that.

#[path = "power/amt.rs"]
mod amt;
#[path = "power/controller.rs"]
mod controller;
#[path = "power/debian.rs"]
mod debian;
#[path = "power/desk.rs"]
mod desk;
#[path = "power/device.rs"]
mod device;
#[path = "power/faults.rs"]
mod faults;
#[path = "power/ipmi.rs"]
mod ipmi;
#[path = "power/netboot.rs"]
mod netboot;
#[path = "power/outlets.rs"]
mod outlets;
#[path = "power/pdu.rs"]
mod pdu;
#[path = "power/redfish.rs"]
mod redfish;
#[path = "power/service.rs"]
mod service;
#[path = "power/shell.rs"]
mod shell;
#[path = "power/sockets.rs"]
mod sockets;
#[path = "power/stage.rs"]
mod stage;
#[path = "power/suite17.rs"]
mod suite17;
#[path = "power/usual.rs"]
mod usual;
#[path = "power/vendor.rs"]
mod vendor;
#[path = "power/wake.rs"]
mod wake;
