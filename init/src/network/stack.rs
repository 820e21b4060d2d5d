//! What stands between the cards and the addresses: a bond of them, and a VLAN on either.

use std::io;
use std::time::{Duration, Instant};

use netflash_pxe::{Bond, VlanId};

use super::{PREFERRED_WAIT, Wiring};
use crate::links::{Link, Netlink};
use crate::machine::is_preferred;

/// The bond's name; `bond0` the kernel makes itself, in a mode nobody asked for.
const NAME: &str = "uplink0";
/// Longest name of a link.
const NAME_MAX: usize = 15;
/// How often a bond that cannot be made is spoken of.
const NEWS: Duration = Duration::from_secs(10);

/// The bond of this machine: its cards come as their drivers do.
#[derive(Debug)]
pub(super) struct Bonding {
    bond: Bond,
    started: Instant,
    complained: Option<Instant>,
}

impl Bonding {
    /// A bond that is still to be made.
    pub(super) fn new(bond: Bond) -> Bonding {
        Bonding {
            bond,
            started: Instant::now(),
            complained: None,
        }
    }

    /// Makes it, and puts in what has turned up; the bond, once it has a card.
    pub(super) fn tend(&mut self, cards: &[Link], wiring: &Wiring) -> Option<Link> {
        let found = self.try_tend(cards, wiring);
        found.unwrap_or_else(|error| {
            // At first its module is only being loaded.
            if self.complained.is_none_or(|then| then.elapsed() >= NEWS) {
                self.complained = Some(Instant::now());
                log::warn!("bond={NAME} mode={} {error}", self.bond.mode);
            }
            None
        })
    }

    fn try_tend(&self, cards: &[Link], wiring: &Wiring) -> io::Result<Option<Link>> {
        let mut members: Vec<&Link> = cards.iter().filter(|card| self.wants(card)).collect();
        // The first card gives the bond its MAC: it should be the one a DHCP server has seen before.
        let first = self.bond.cards.first().or(wiring.preferred.as_ref());
        let is_first = |card: &&Link| is_preferred(card, first);
        members.sort_by_key(|card| !is_first(card));
        let waits = first.is_some() && self.started.elapsed() < PREFERRED_WAIT;
        if members.is_empty() || (waits && !members.iter().any(is_first)) {
            return Ok(None);
        }
        let mut netlink = Netlink::open()?;
        let bond = match netlink.link(NAME)? {
            Some(bond) => bond,
            None => {
                netlink.add_bond(NAME, self.bond.mode)?;
                let made = netlink.link(NAME)?;
                made.ok_or_else(|| io::Error::other("the kernel made no bond"))?
            }
        };
        let mut has_card = members.iter().any(|card| card.bond == Some(bond.index));
        for card in members.iter().filter(|card| card.bond.is_none()) {
            match netlink.enslave(card, &bond) {
                Ok(()) => {
                    has_card = true;
                    log::info!(
                        "bond={NAME} mode={} card={} state=in",
                        self.bond.mode,
                        card.name
                    );
                }
                Err(error) => log::warn!("bond={NAME} card={} {error}", card.name),
            }
        }
        match has_card {
            // Its MAC is that of its first card only now.
            true => netlink.link(NAME),
            false => Ok(None),
        }
    }

    fn wants(&self, card: &Link) -> bool {
        self.bond.cards.is_empty()
            || self
                .bond
                .cards
                .iter()
                .any(|named| is_preferred(card, Some(named)))
    }
}

/// The VLAN on this link, made when it is not there, and up.
///
/// # Errors
/// When the kernel cannot: its module may only be being loaded.
pub(super) fn vlan_on(lower: &Link, vlan: VlanId) -> io::Result<Link> {
    let mut netlink = Netlink::open()?;
    let name = vlan_name(lower, vlan);
    if netlink.link(&name)?.is_none() {
        netlink.add_vlan(&name, lower, vlan)?;
    }
    let made = netlink.link(&name)?;
    let link = made.ok_or_else(|| io::Error::other("the kernel made no VLAN"))?;
    netlink.set_up(&link)?;
    Ok(link)
}

/// `eth0.20`; where that is too long for a name, by the card's number.
fn vlan_name(lower: &Link, vlan: VlanId) -> String {
    let name = format!("{}.{vlan}", lower.name);
    match name.len() <= NAME_MAX {
        true => name,
        false => format!("n{}.{vlan}", lower.index),
    }
}

#[cfg(test)]
mod tests {
    use netflash_pxe::Mac;

    use super::*;

    fn link(name: &str) -> Link {
        Link {
            index: 7,
            name: name.into(),
            mac: Mac([2, 0, 0, 0, 0, 7]),
            permanent: Mac([2, 0, 0, 0, 0, 7]),
            up: false,
            carrier: false,
            mtu: 1500,
            bond: None,
        }
    }

    #[test]
    fn a_vlan_is_named_after_its_card_as_far_as_names_go() {
        let vlan = "4094".parse().unwrap();
        assert_eq!(vlan_name(&link("eth0"), vlan), "eth0.4094");
        assert_eq!(vlan_name(&link("enx525400770001"), vlan), "n7.4094");
    }

    #[test]
    fn a_bond_takes_the_cards_it_names_or_all() {
        let wants = |bond: &str, name: &str| Bonding::new(bond.parse().unwrap()).wants(&link(name));
        assert!(wants("802.3ad", "eth3"));
        assert!(wants("active-backup:eth0+eth3", "eth3"));
        assert!(wants("active-backup:02:00:00:00:00:07", "eth3"));
        assert!(!wants("active-backup:eth0", "eth3"));
    }
}
