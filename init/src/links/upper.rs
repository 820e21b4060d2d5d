//! Links that are made of other links: a VLAN on a card, a bond of several.

use std::io;

use netflash_pxe::{BondMode, VlanId};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BondLacpRate, BondMode as KernelMode, BondXmitHashPolicy, InfoBond, InfoData, InfoKind,
    InfoVlan, LinkAttribute, LinkInfo, LinkMessage,
};

use super::{Link, Netlink};

/// How often the kernel looks whether a card of a bond has a signal, in milliseconds.
const SIGNAL_MS: u32 = 100;

impl Netlink {
    /// Makes the link that is a VLAN of another.
    ///
    /// # Errors
    /// When it exists, or the kernel cannot: module 8021q is not there (yet).
    pub(crate) fn add_vlan(&mut self, name: &str, lower: &Link, vlan: VlanId) -> io::Result<()> {
        let info = vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(vlan.number())])),
        ];
        self.add(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(lower.index),
            LinkAttribute::LinkInfo(info),
        ])
    }

    /// Makes a bond without cards.
    ///
    /// # Errors
    /// When it exists, or the kernel cannot: module bonding is not there (yet).
    pub(crate) fn add_bond(&mut self, name: &str, mode: BondMode) -> io::Result<()> {
        let mut options = vec![InfoBond::MiiMon(SIGNAL_MS)];
        match mode {
            // Fast: a partner that went away is noticed after three seconds, not after ninety.
            BondMode::Lacp => options.extend([
                InfoBond::Mode(KernelMode::Ieee8023Ad),
                InfoBond::AdLacpRate(BondLacpRate::Fast),
                InfoBond::XmitHashPolicy(BondXmitHashPolicy::Layer23),
            ]),
            BondMode::ActiveBackup => options.push(InfoBond::Mode(KernelMode::ActiveBackup)),
        }
        // The kernel takes options in the order of their numbers, and some only after the mode.
        options.sort_by_key(netlink_packet_core::Nla::kind);
        let info = vec![
            LinkInfo::Kind(InfoKind::Bond),
            LinkInfo::Data(InfoData::Bond(options)),
        ];
        self.add(vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(info),
        ])
    }

    /// Puts a card into a bond, which brings it up.
    ///
    /// # Errors
    /// When the card is up already or the bond does not take it.
    pub(crate) fn enslave(&mut self, card: &Link, bond: &Link) -> io::Result<()> {
        self.change(card.index, LinkAttribute::Controller(bond.index))
    }

    /// Sets the largest packet of a link, in bytes.
    ///
    /// # Errors
    /// When the driver, or the link below, cannot.
    pub(crate) fn set_mtu(&mut self, link: &Link, mtu: u16) -> io::Result<()> {
        self.change(link.index, LinkAttribute::Mtu(mtu.into()))
    }

    fn add(&mut self, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.attributes = attributes;
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.request(RouteNetlinkMessage::NewLink(message), flags, |_| {})
    }

    fn change(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![attribute];
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK, |_| {})
    }
}
