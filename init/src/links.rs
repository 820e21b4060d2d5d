//! Network links, addresses and routes over rtnetlink, synchronously.
//!
//! Only this file and the one below it name the netlink crates: their interfaces change with every release.

mod upper;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netflash_pxe::Mac;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkHeader, LinkLayerType, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Links we look at; more than this is a machine we were not made for.
const LINKS_MAX: usize = 256;

/// One Ethernet link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// The kernel's number.
    pub index: u32,
    /// The kernel's name.
    pub name: String,
    /// The address it has now.
    pub mac: Mac,
    /// The address it was made with; docks and bonds change the other.
    pub permanent: Mac,
    /// Whether it was brought up.
    pub up: bool,
    /// Whether there is a signal.
    pub carrier: bool,
    /// The largest packet it sends, in bytes.
    pub mtu: u32,
    /// The bond it belongs to, by its index.
    pub bond: Option<u32>,
}

/// A socket to the kernel's network configuration.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel has no rtnetlink.
    pub(crate) fn open() -> io::Result<Netlink> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink {
            socket,
            sequence: 0,
        })
    }

    /// All Ethernet links, in the kernel's order.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn links(&mut self) -> io::Result<Vec<Link>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links = Vec::new();
        self.request(request, NLM_F_DUMP, |message| {
            if let RouteNetlinkMessage::NewLink(message) = message
                && let Some(link) = link_of(&message)
                && links.len() < LINKS_MAX
            {
                links.push(link);
            }
        })?;
        Ok(links)
    }

    /// The link of this name, if there is one.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// When the driver refuses.
    pub(crate) fn set_up(&mut self, link: &Link) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header = LinkHeader {
            index: link.index,
            flags: LinkFlags::Up,
            change_mask: LinkFlags::Up,
            ..LinkHeader::default()
        };
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK, |_| {})
    }

    /// Gives a link an address with its network; an address it has already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let message = address_message(index, address, prefix);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewAddress(message), flags, |_| {})
    }

    /// Takes an address away.
    ///
    /// # Errors
    /// When the link does not have it.
    pub(crate) fn remove_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let message = address_message(index, address, prefix);
        self.request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, |_| {})
    }

    /// Sends everything else through a router; the lowest metric wins among several links.
    ///
    /// # Errors
    /// When the router is not on the link's network.
    pub(crate) fn add_default_route(
        &mut self,
        index: u32,
        router: Ipv4Addr,
        metric: u32,
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Dhcp,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes = vec![
            RouteAttribute::Gateway(router.into()),
            RouteAttribute::Oif(index),
            RouteAttribute::Priority(metric),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.request(RouteNetlinkMessage::NewRoute(message), flags, |_| {})
    }

    /// Sends a request and reads answers to it until the kernel says that was all.
    fn request(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        mut answer: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages::<RouteNetlinkMessage>(&datagram) {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(_) => Err(error.to_io()),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => answer(inner),
                    _ => {}
                }
            }
        }
    }
}

/// The messages of one datagram; what cannot be read is left out.
fn messages<T: NetlinkDeserializable>(datagram: &[u8]) -> Vec<NetlinkMessage<T>> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < 16 || length > rest.len() {
            break;
        }
        if let Ok(message) = NetlinkMessage::deserialize(&rest[..length]) {
            found.push(message);
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    found
}

fn link_of(message: &LinkMessage) -> Option<Link> {
    if message.header.link_layer_type != LinkLayerType::Ether {
        return None;
    }
    let mut name = None;
    let mut mac = None;
    let mut permanent = None;
    let mut mtu = 0;
    let mut bond = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Address(bytes) => mac = to_mac(bytes),
            LinkAttribute::PermAddress(bytes) => permanent = to_mac(bytes),
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Controller(index) => bond = Some(*index).filter(|&index| index != 0),
            _ => {}
        }
    }
    let mac = mac?;
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        // Drivers that know no permanent address say nothing or zeros.
        permanent: permanent.filter(|mac| mac.0 != [0; 6]).unwrap_or(mac),
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        mtu,
        bond,
    })
}

fn to_mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Address(address),
        AddressAttribute::Local(address),
    ];
    match address {
        IpAddr::V4(address) => {
            message.header.family = AddressFamily::Inet;
            message.header.prefix_len = prefix.min(32);
            let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
            let broadcast = AddressAttribute::Broadcast(broadcast);
            message.attributes.push(broadcast);
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.prefix_len = prefix.min(128);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_loopback_link_is_not_ethernet() {
        let links = Netlink::open().unwrap().links().unwrap();
        assert!(links.iter().all(|link| link.name != "lo"));
    }

    #[test]
    fn an_address_carries_its_broadcast_address() {
        for (prefix, last) in [(24, [10, 7, 0, 255]), (32, [10, 7, 0, 9]), (0, [255; 4])] {
            let message = address_message(1, [10, 7, 0, 9].into(), prefix);
            let expected = AddressAttribute::Broadcast(Ipv4Addr::from(last));
            assert!(message.attributes.contains(&expected), "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_datagram_is_read_without_harm(bytes: Vec<u8>) {
            messages::<RouteNetlinkMessage>(&bytes);
        }
    }
}
