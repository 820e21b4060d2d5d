//! How a machine reaches its network where DHCP on each of its cards is not the way: a tag, a bond, an address of its
//! own.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

use crate::Iface;

/// Number of a VLAN (IEEE 802.1Q), 1 to 4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanId(u16);

/// The text is no number of a VLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is no VLAN; give its number, 1 to 4094")]
pub struct VlanError;

impl VlanId {
    /// The number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl FromStr for VlanId {
    type Err = VlanError;

    fn from_str(text: &str) -> Result<Self, VlanError> {
        let number = text.parse().map_err(|_| VlanError)?;
        // 0 is "no VLAN, only a priority", 4095 is reserved.
        (1..=4094)
            .contains(&number)
            .then_some(VlanId(number))
            .ok_or(VlanError)
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address with its network, which no DHCP server lends: `10.0.0.5/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticAddress {
    address: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no address for a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not `ADDRESS/BITS`.
    #[error("is no ADDRESS/BITS; 10.0.0.5/24 would be one")]
    Form,
    /// A machine cannot have it.
    #[error(
        "is the address of a network, of everybody or of nobody; a machine needs one of its own"
    )]
    NotAHost,
}

impl StaticAddress {
    /// The machine's address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Bits of its network, 1 to 32.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether this address is of another machine of the same network.
    #[must_use]
    pub fn reaches(self, other: Ipv4Addr) -> bool {
        let mask = self.mask();
        other != self.address
            && u32::from(other) & mask == u32::from(self.address) & mask
            && self.is_host(other)
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    /// Neither the network's own address nor its broadcast; networks of two and of one have none (RFC 3021).
    fn is_host(self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & !self.mask();
        self.prefix > 30 || (host != 0 && host != !self.mask())
    }
}

impl FromStr for StaticAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, prefix) = text.split_once('/').ok_or(AddressError::Form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| AddressError::Form)?;
        let prefix = prefix.parse().map_err(|_| AddressError::Form)?;
        if !(1..=32).contains(&prefix) {
            return Err(AddressError::Form);
        }
        let found = StaticAddress { address, prefix };
        let no_host = address.octets()[0] == 0
            || address.is_loopback()
            || address.is_multicast()
            || address.is_broadcast()
            || !found.is_host(address);
        if no_host {
            return Err(AddressError::NotAHost);
        }
        Ok(found)
    }
}

impl fmt::Display for StaticAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Several cards as one: `802.3ad`, or with the cards named, `active-backup:eth0+eth1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// How they share the work.
    pub mode: BondMode,
    /// Which cards, at most [`Bond::CARDS_MAX`]; none named: all of the machine.
    pub cards: Vec<Iface>,
}

/// How the cards of a bond share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondMode {
    /// LACP: the switch must know of it.
    Lacp,
    /// One works, the others wait; no switch needs to know.
    ActiveBackup,
}

/// Why a text describes no bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BondError {
    /// No mode we can make.
    #[error("is no bond; give 802.3ad or active-backup, then if need be :CARD+CARD")]
    Mode,
    /// A card that is neither.
    #[error("names a card that is neither a MAC address nor a card's name")]
    Card,
    /// More than a bond needs.
    #[error("names more than {} cards", Bond::CARDS_MAX)]
    TooMany,
}

impl Bond {
    /// Most cards named.
    pub const CARDS_MAX: usize = 8;
}

impl BondMode {
    const NAMES: [(&'static str, BondMode); 2] = [
        ("802.3ad", BondMode::Lacp),
        ("active-backup", BondMode::ActiveBackup),
    ];
}

impl FromStr for Bond {
    type Err = BondError;

    fn from_str(text: &str) -> Result<Self, BondError> {
        let (mode, cards) = match text.split_once(':') {
            Some((mode, cards)) => (mode, Some(cards)),
            None => (text, None),
        };
        let row = BondMode::NAMES.iter().find(|(name, _)| *name == mode);
        let (_, mode) = row.ok_or(BondError::Mode)?;
        let named = cards.map(|cards| cards.split('+').map(str::parse).collect());
        let cards: Vec<Iface> = named
            .transpose()
            .map_err(|_| BondError::Card)?
            .unwrap_or_default();
        if cards.len() > Bond::CARDS_MAX {
            return Err(BondError::TooMany);
        }
        Ok(Bond { mode: *mode, cards })
    }
}

impl fmt::Display for Bond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mode.fmt(f)?;
        for (position, card) in self.cards.iter().enumerate() {
            let mark = if position == 0 { ':' } else { '+' };
            write!(f, "{mark}{card}")?;
        }
        Ok(())
    }
}

impl fmt::Display for BondMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = BondMode::NAMES.iter().find(|(_, mode)| mode == self);
        f.write_str(row.map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{AddressError, Bond, BondError, BondMode, StaticAddress, VlanId};

    #[test]
    fn vlans_are_numbers_from_1_to_4094() {
        for (text, number) in [("1", 1), ("20", 20), ("4094", 4094)] {
            assert_eq!(text.parse::<VlanId>().unwrap().number(), number);
        }
        for text in ["", "0", "4095", "65556", "-1", "eth0.20", "2 0"] {
            assert!(text.parse::<VlanId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_one_that_a_machine_can_have() {
        for good in [
            "10.0.0.5/24",
            "192.168.1.1/31",
            "172.16.0.0/31",
            "10.1.2.3/32",
            "10.0.1.0/16",
        ] {
            assert_eq!(good.parse::<StaticAddress>().unwrap().to_string(), good);
        }
        for bad in [
            "10.0.0.0/24",
            "10.0.0.255/24",
            "0.0.0.0/8",
            "127.0.0.1/8",
            "239.1.1.1/24",
            "255.255.255.255/32",
        ] {
            assert_eq!(
                bad.parse::<StaticAddress>(),
                Err(AddressError::NotAHost),
                "{bad}"
            );
        }
        for bad in [
            "10.0.0.5",
            "10.0.0.5/0",
            "10.0.0.5/33",
            "10.0.0/24",
            "10.0.0.5/255.255.255.0",
            "/24",
        ] {
            assert_eq!(
                bad.parse::<StaticAddress>(),
                Err(AddressError::Form),
                "{bad}"
            );
        }
    }

    #[test]
    fn only_another_machine_of_the_same_network_is_reached() {
        let own: StaticAddress = "10.0.0.5/24".parse().unwrap();
        assert!(own.reaches("10.0.0.1".parse().unwrap()));
        for other in ["10.0.0.5", "10.0.1.1", "10.0.0.0", "10.0.0.255"] {
            assert!(!own.reaches(other.parse().unwrap()), "{other}");
        }
        let pair: StaticAddress = "10.0.0.4/31".parse().unwrap();
        assert!(pair.reaches("10.0.0.5".parse().unwrap()));
    }

    #[test]
    fn a_bond_names_its_mode_and_may_name_its_cards() {
        let bond: Bond = "802.3ad".parse().unwrap();
        assert_eq!((bond.mode, bond.cards.len()), (BondMode::Lacp, 0));
        let text = "active-backup:eth0+52:54:00:aa:00:01";
        let bond: Bond = text.parse().unwrap();
        assert_eq!((bond.mode, bond.cards.len()), (BondMode::ActiveBackup, 2));
        assert_eq!(bond.to_string(), text);
        assert_eq!("balance-rr".parse::<Bond>(), Err(BondError::Mode));
        assert_eq!("802.3ad:".parse::<Bond>(), Err(BondError::Card));
        assert_eq!("802.3ad:eth0+a b".parse::<Bond>(), Err(BondError::Card));
        let many = format!("802.3ad:{}", ["eth0"; 9].join("+"));
        assert_eq!(many.parse::<Bond>(), Err(BondError::TooMany));
    }

    proptest! {
        #[test]
        fn every_host_comes_back_as_it_was_written(bits in any::<u32>(), prefix in 1u8..33) {
            let text = format!("{}/{prefix}", std::net::Ipv4Addr::from(bits));
            if let Ok(address) = text.parse::<StaticAddress>() {
                prop_assert_eq!(address.to_string(), text);
                // Nobody is a neighbour of himself, nor of two networks.
                assert!(!address.reaches(address.address()));
            }
        }

        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = text.parse::<StaticAddress>();
            let _ = text.parse::<VlanId>();
            if let Ok(bond) = text.parse::<Bond>() {
                prop_assert_eq!(bond.to_string().parse(), Ok(bond));
            }
        }
    }
}
