//! Which network interface a session uses.
//!
//! Multicast follows the interface, not the routing table: on a machine with two cards the kernel would pick
//! one in silence, and half of the rooms that "receive nothing" are exactly that. So the interface is chosen
//! here, and a choice that is not unique is an error that lists the candidates.

use std::{
    convert::Infallible,
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    str::FromStr,
};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::{InterfaceFlags, if_nametoindex},
};
use thiserror::Error;

use crate::family::Family;

mod inet6;

/// Bits per second in the megabit that Linux counts link speed in.
const MEGABIT: u64 = 1_000_000;

/// One network interface of this machine, with one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    name: String,
    address: IpAddr,
    flags: InterfaceFlags,
}

/// How the caller names the interface of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// The only interface that is up, can do multicast and has an address of the family.
    #[default]
    Auto,
    /// The interface with this name or this address; an address of the other family names its interface.
    Named(String),
    /// This one, which was chosen before.
    Chosen(Interface),
}

/// Why no interface was chosen.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// The kernel would not list its interfaces.
    #[error("listing network interfaces")]
    List(#[source] io::Error),
    /// The named interface is absent, down or has no address of the family.
    #[error("no interface {wanted} that is up with an {family} address; there is: {known}")]
    Unknown {
        /// What kind of address it needs.
        family: Family,
        /// What was asked for.
        wanted: String,
        /// The interfaces there are, readable.
        known: InterfaceList,
    },
    /// No interface can carry multicast.
    #[error(
        "no network interface is up with an {family} address and able to do multicast; there is: {known}"
    )]
    Nothing {
        /// What kind of address it needs.
        family: Family,
        /// The interfaces there are, readable.
        known: InterfaceList,
    },
    /// Several interfaces could be meant.
    #[error("several network interfaces could be meant, choose one with --iface: {candidates}")]
    Ambiguous {
        /// The interfaces among which to choose.
        candidates: InterfaceList,
    },
}

/// Interfaces as a person reads them: `eth0 (10.0.0.1), eth1 (10.0.1.1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceList(pub Vec<Interface>);

impl Interface {
    /// All interfaces that are up and have an address of `family`, loopback included, one entry per address. IPv6
    /// addresses that cannot be used yet are left out, and for each interface the best comes first.
    ///
    /// # Errors
    /// [`InterfaceError::List`] when the kernel refuses.
    pub fn list(family: Family) -> Result<Vec<Interface>, InterfaceError> {
        let entries = getifaddrs().map_err(|errno| InterfaceError::List(errno.into()))?;
        let up: Vec<_> = entries
            .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP))
            .collect();
        if family == Family::V6 {
            let addresses = inet6::list().map_err(InterfaceError::List)?;
            let with_flags = |found: inet6::Inet6| {
                let entry = up.iter().find(|entry| entry.interface_name == found.name)?;
                Some(Interface {
                    name: found.name,
                    address: found.address.into(),
                    flags: entry.flags,
                })
            };
            return Ok(addresses.into_iter().filter_map(with_flags).collect());
        }
        let with_address = |entry: nix::ifaddrs::InterfaceAddress| {
            let address = entry.address?.as_sockaddr_in()?.ip();
            Some(Interface {
                name: entry.interface_name,
                address: address.into(),
                flags: entry.flags,
            })
        };
        Ok(up.into_iter().filter_map(with_address).collect())
    }

    /// The interface meant by `choice`, for a session of `family`.
    ///
    /// # Errors
    /// When there is none or more than one; the message lists what there is.
    pub fn choose(choice: &InterfaceChoice, family: Family) -> Result<Interface, InterfaceError> {
        let other = match (choice, family) {
            (InterfaceChoice::Named(wanted), Family::V4) if is_address(wanted, Family::V6) => {
                Interface::list(Family::V6)?
            }
            (InterfaceChoice::Named(wanted), Family::V6) if is_address(wanted, Family::V4) => {
                Interface::list(Family::V4)?
            }
            _ => Vec::new(),
        };
        let choice = by_name(choice, &other);
        choose_from(Interface::list(family)?, &choice, family)
    }

    /// The name the kernel gives it, `eth0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its (first matching) address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its address, when that is one of IPv4.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    /// The same interface by its address of the link, if it is of IPv6 and has one: what stays on the link needs no other,
    /// and every machine there can answer to it, whatever other addresses it has.
    pub(crate) fn on_its_link(self) -> Result<Interface, InterfaceError> {
        if Family::of_ip(&self.address) == Family::V4 {
            return Ok(self);
        }
        let all = Interface::list(Family::V6)?;
        let of_link = all.into_iter().find(|other| match other.address {
            IpAddr::V6(address) => other.name == self.name && address.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        });
        Ok(of_link.unwrap_or(self))
    }

    /// The kernel's number of it, from 1; it changes when the interface goes and comes back.
    pub(crate) fn index(&self) -> io::Result<u32> {
        Ok(if_nametoindex(self.name.as_str())?)
    }

    /// Its address with `port`, as a socket is bound to it.
    pub(crate) fn socket_address(&self, port: u16) -> io::Result<SocketAddr> {
        Ok(match self.address {
            IpAddr::V4(address) => SocketAddr::from((address, port)),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.index()?).into(),
        })
    }

    /// The speed the link negotiated, in bits per second; `None` when the driver does not say (most virtual ones).
    #[must_use]
    pub fn link_bits_per_second(&self) -> Option<u64> {
        let megabits = fs::read_to_string(format!("/sys/class/net/{}/speed", self.name)).ok()?;
        // Drivers without a link answer -1, which is no u64.
        let megabits: u64 = megabits.trim().parse().ok()?;
        (megabits > 0).then(|| megabits.saturating_mul(MEGABIT))
    }

    /// How often its link came up, as far as the driver says; only a change means something.
    pub(crate) fn link_ups(&self) -> u64 {
        let file = format!("/sys/class/net/{}/carrier_up_count", self.name);
        let text = fs::read_to_string(file).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn carries_multicast(&self) -> bool {
        self.flags.contains(InterfaceFlags::IFF_MULTICAST)
            && !self.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    }

    fn is_called(&self, wanted: &str) -> bool {
        self.name == wanted || wanted.parse() == Ok(self.address)
    }
}

fn is_address(text: &str, family: Family) -> bool {
    text.parse()
        .is_ok_and(|address: IpAddr| Family::of_ip(&address) == family)
}

/// A choice by an address of one of `others`, as one by that interface's name.
fn by_name(choice: &InterfaceChoice, others: &[Interface]) -> InterfaceChoice {
    let InterfaceChoice::Named(wanted) = choice else {
        return choice.clone();
    };
    let has_it = |other: &&Interface| wanted.parse() == Ok(other.address);
    let name = others.iter().find(has_it).map(|other| other.name.clone());
    InterfaceChoice::Named(name.unwrap_or_else(|| wanted.clone()))
}

fn choose_from(
    known: Vec<Interface>,
    choice: &InterfaceChoice,
    family: Family,
) -> Result<Interface, InterfaceError> {
    match choice {
        InterfaceChoice::Chosen(interface) if Family::of_ip(&interface.address) == family => {
            Ok(interface.clone())
        }
        InterfaceChoice::Chosen(Interface { name: wanted, .. })
        | InterfaceChoice::Named(wanted) => {
            match known.iter().find(|interface| interface.is_called(wanted)) {
                Some(found) => Ok(found.clone()),
                None => Err(InterfaceError::Unknown {
                    family,
                    wanted: wanted.clone(),
                    known: InterfaceList(known),
                }),
            }
        }
        InterfaceChoice::Auto => {
            let mut candidates: Vec<Interface> = Vec::new();
            for interface in known
                .iter()
                .filter(|interface| interface.carries_multicast())
            {
                // A second address on the same card is not a second card.
                if !candidates.iter().any(|seen| seen.name == interface.name) {
                    candidates.push(interface.clone());
                }
            }
            match candidates.len() {
                0 => Err(InterfaceError::Nothing {
                    family,
                    known: InterfaceList(known),
                }),
                1 => Ok(candidates.remove(0)),
                _ => Err(InterfaceError::Ambiguous {
                    candidates: InterfaceList(candidates),
                }),
            }
        }
    }
}

impl FromStr for InterfaceChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => InterfaceChoice::Auto,
            name => InterfaceChoice::Named(name.to_owned()),
        })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.address)
    }
}

impl fmt::Display for InterfaceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, interface) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{interface}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn card(name: &str, address: [u8; 4]) -> Interface {
        let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
        Interface {
            name: name.to_owned(),
            address: Ipv4Addr::from(address).into(),
            flags,
        }
    }

    fn loopback() -> Interface {
        let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOOPBACK;
        Interface {
            name: "lo".to_owned(),
            address: Ipv4Addr::LOCALHOST.into(),
            flags,
        }
    }

    #[test]
    fn the_only_card_is_chosen_alone() {
        let known = vec![
            loopback(),
            card("eth0", [10, 0, 0, 1]),
            card("eth0", [10, 0, 0, 2]),
        ];
        let chosen = choose_from(known, &InterfaceChoice::Auto, Family::V4).expect("one card");
        assert_eq!(
            (chosen.name(), chosen.address()),
            ("eth0", IpAddr::from([10, 0, 0, 1]))
        );
    }

    #[test]
    fn two_cards_are_an_error_that_lists_them() {
        let known = vec![
            loopback(),
            card("eth0", [10, 0, 0, 1]),
            card("eth1", [10, 0, 1, 1]),
        ];
        let error = choose_from(known, &InterfaceChoice::Auto, Family::V4).expect_err("ambiguous");
        let text = error.to_string();
        assert!(text.contains("eth0 (10.0.0.1), eth1 (10.0.1.1)"), "{text}");
        assert!(!text.contains("lo ("), "{text}");
    }

    #[test]
    fn what_was_chosen_stays_chosen_unless_the_family_is_another() {
        let first = card("eth0", [10, 0, 0, 1]);
        let six = Interface {
            address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
            ..first.clone()
        };
        let choice = InterfaceChoice::Chosen(first.clone());
        let chosen = choose_from(Vec::new(), &choice, Family::V4).expect("chosen before");
        assert_eq!(chosen, first);
        let chosen = choose_from(vec![six.clone()], &choice, Family::V6).expect("its name");
        assert_eq!(chosen, six);
    }

    #[test]
    fn an_address_of_the_other_family_names_its_interface() {
        let others = [card("eth0", [10, 0, 0, 1]), card("eth1", [10, 0, 1, 1])];
        for (wanted, name) in [
            ("10.0.1.1", "eth1"),
            ("10.0.2.1", "10.0.2.1"),
            ("eth0", "eth0"),
        ] {
            let choice = by_name(&InterfaceChoice::Named(wanted.to_owned()), &others);
            assert_eq!(choice, InterfaceChoice::Named(name.to_owned()));
        }
        assert!(is_address("fd00::1", Family::V6) && !is_address("fd00::1", Family::V4));
    }

    #[test]
    fn a_name_or_an_address_chooses_even_loopback() {
        let known = vec![
            loopback(),
            card("eth0", [10, 0, 0, 1]),
            card("eth1", [10, 0, 1, 1]),
        ];
        for (wanted, name) in [("eth1", "eth1"), ("10.0.0.1", "eth0"), ("lo", "lo")] {
            let choice: InterfaceChoice = wanted.parse().expect("infallible");
            assert_eq!(
                choose_from(known.clone(), &choice, Family::V4)
                    .expect("it is there")
                    .name(),
                name
            );
        }
    }

    #[test]
    fn an_absent_interface_names_those_there_are() {
        let error = choose_from(
            vec![loopback()],
            &InterfaceChoice::Named("eth7".to_owned()),
            Family::V4,
        )
        .expect_err("absent");
        assert_eq!(
            error.to_string(),
            "no interface eth7 that is up with an IPv4 address; there is: lo (127.0.0.1)"
        );
    }
}
