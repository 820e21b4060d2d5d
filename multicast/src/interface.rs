//! Which network interface a session uses.
//!
//! Multicast follows the interface, not the routing table: on a machine with two cards the kernel would pick
//! one in silence, and half of the rooms that "receive nothing" are exactly that. So the interface is chosen
//! here, and a choice that is not unique is an error that lists the candidates.

use std::{convert::Infallible, fmt, fs, io, net::Ipv4Addr, str::FromStr};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use thiserror::Error;

/// Bits per second in the megabit that Linux counts link speed in.
const MEGABIT: u64 = 1_000_000;

/// One IPv4 network interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    name: String,
    address: Ipv4Addr,
    flags: InterfaceFlags,
}

/// How the caller names the interface of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InterfaceChoice {
    /// The only interface that is up, can do multicast and has an IPv4 address.
    #[default]
    Auto,
    /// The interface with this name or this IPv4 address.
    Named(String),
}

/// Why no interface was chosen.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// The kernel would not list its interfaces.
    #[error("listing network interfaces")]
    List(#[source] io::Error),
    /// The named interface is absent, down or has no IPv4 address.
    #[error("no interface {wanted} that is up with an IPv4 address; there is: {known}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The interfaces there are, readable.
        known: InterfaceList,
    },
    /// No interface can carry multicast.
    #[error(
        "no network interface is up with an IPv4 address and able to do multicast; there is: {known}"
    )]
    Nothing {
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
    /// All interfaces that are up and have an IPv4 address, loopback included, one entry per address.
    ///
    /// # Errors
    /// [`InterfaceError::List`] when the kernel refuses.
    pub fn list() -> Result<Vec<Interface>, InterfaceError> {
        let addresses = getifaddrs().map_err(|errno| InterfaceError::List(errno.into()))?;
        Ok(addresses
            .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP))
            .filter_map(|entry| {
                let address = entry.address?.as_sockaddr_in()?.ip();
                Some(Interface {
                    name: entry.interface_name,
                    address,
                    flags: entry.flags,
                })
            })
            .collect())
    }

    /// The interface meant by `choice`.
    ///
    /// # Errors
    /// When there is none or more than one; the message lists what there is.
    pub fn choose(choice: &InterfaceChoice) -> Result<Interface, InterfaceError> {
        choose_from(Interface::list()?, choice)
    }

    /// The name the kernel gives it, `eth0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its (first matching) IPv4 address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
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

fn choose_from(
    known: Vec<Interface>,
    choice: &InterfaceChoice,
) -> Result<Interface, InterfaceError> {
    match choice {
        InterfaceChoice::Named(wanted) => {
            match known.iter().find(|interface| interface.is_called(wanted)) {
                Some(found) => Ok(found.clone()),
                None => Err(InterfaceError::Unknown {
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
    use super::*;

    fn card(name: &str, address: [u8; 4]) -> Interface {
        let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_MULTICAST;
        Interface {
            name: name.to_owned(),
            address: Ipv4Addr::from(address),
            flags,
        }
    }

    fn loopback() -> Interface {
        let flags = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_LOOPBACK;
        Interface {
            name: "lo".to_owned(),
            address: Ipv4Addr::LOCALHOST,
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
        let chosen = choose_from(known, &InterfaceChoice::Auto).expect("one card");
        assert_eq!(
            (chosen.name(), chosen.address()),
            ("eth0", Ipv4Addr::new(10, 0, 0, 1))
        );
    }

    #[test]
    fn two_cards_are_an_error_that_lists_them() {
        let known = vec![
            loopback(),
            card("eth0", [10, 0, 0, 1]),
            card("eth1", [10, 0, 1, 1]),
        ];
        let error = choose_from(known, &InterfaceChoice::Auto).expect_err("ambiguous");
        let text = error.to_string();
        assert!(text.contains("eth0 (10.0.0.1), eth1 (10.0.1.1)"), "{text}");
        assert!(!text.contains("lo ("), "{text}");
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
                choose_from(known.clone(), &choice)
                    .expect("it is there")
                    .name(),
                name
            );
        }
    }

    #[test]
    fn an_absent_interface_names_those_there_are() {
        let error = choose_from(vec![loopback()], &InterfaceChoice::Named("eth7".to_owned()))
            .expect_err("absent");
        assert_eq!(
            error.to_string(),
            "no interface eth7 that is up with an IPv4 address; there is: lo (127.0.0.1)"
        );
    }
}
