//! IPv4 or IPv6, and what that changes on the wire: the headers around a datagram.

use std::net::{IpAddr, SocketAddr};

/// Ethernet header of a frame, in bytes.
const ETHERNET_BYTES: u64 = 14;
/// UDP header of a datagram, in bytes.
const UDP_BYTES: u32 = 8;

/// The version of the Internet Protocol that a session goes by. It is that of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv4 (RFC 791).
    #[default]
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

impl Family {
    /// The family of an address with its port.
    #[must_use]
    pub fn of(address: &SocketAddr) -> Family {
        Family::of_ip(&address.ip())
    }

    /// The family of an address.
    #[must_use]
    pub fn of_ip(address: &IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// IP and UDP headers of a datagram, in bytes: what its payload lacks to the MTU.
    pub(crate) fn header_bytes(self) -> u32 {
        UDP_BYTES
            + match self {
                Family::V4 => 20,
                Family::V6 => 40,
            }
    }

    /// Ethernet, IP and UDP headers of a datagram, in bytes: rates and sums are those of the wire.
    pub(crate) fn outer_bytes(self) -> u64 {
        ETHERNET_BYTES + u64::from(self.header_bytes())
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}
