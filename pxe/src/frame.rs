//! Questions to a DHCP server as they are on the wire, and answers to be put there: Ethernet, IPv4, UDP.
//!
//! A proxy must hear what the DHCP server on its own host hears, and the port belongs to that one: taken twice, one
//! of the two would hear half. So the proxy looks at frames, and takes no port from anybody.

use std::net::Ipv4Addr;

use crate::Mac;
use crate::question::QUESTION_BYTES_MAX;

/// The port of DHCP servers and relays, and that of clients.
pub const DHCP_SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;
const TIME_TO_LIVE: u8 = 64;
/// "More fragments" and the offset of one.
const FRAGMENT: u16 = 0x3fff;

/// Longest frame with a question, in bytes.
pub const FRAME_BYTES_MAX: usize = ETHERNET_BYTES + IP_BYTES + UDP_BYTES + QUESTION_BYTES_MAX;

/// A datagram to a DHCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DhcpFrame<'a> {
    /// The neighbour it came from: the machine, or the router of the relay.
    pub neighbour: Mac,
    /// What it holds.
    pub payload: &'a [u8],
}

impl<'a> DhcpFrame<'a> {
    /// Reads a frame; `None` when it is anything else.
    ///
    /// The checksum of UDP is not looked at: a card that computes it itself leaves it open in frames of its own host
    /// and of virtual machines, and who is answered wrongly only gets an answer with his own transaction.
    pub fn parse(frame: &'a [u8]) -> Option<DhcpFrame<'a>> {
        let (ethernet, packet) = frame.split_at_checked(ETHERNET_BYTES)?;
        let neighbour = Mac(ethernet[6..12].try_into().ok()?);
        if ethernet[12..] != ETHERTYPE_IPV4 || neighbour.0[0] & 1 == 1 {
            return None;
        }
        let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        // Ethernet pads short packets: what counts is the length that IP says.
        let (header, datagram) = packet.get(..length)?.split_at_checked(header_bytes)?;
        if header.len() < IP_BYTES || header[0] >> 4 != 4 || header[9] != UDP {
            return None;
        }
        if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT != 0 {
            return None;
        }
        let (udp, payload) = datagram.split_at_checked(UDP_BYTES)?;
        let field = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let fits = usize::from(field(4)) == datagram.len();
        (field(2) == DHCP_SERVER_PORT && fits).then_some(DhcpFrame { neighbour, payload })
    }
}

/// The frame with an answer from `server`, whose card has the address `card`.
///
/// Without a relay it goes to all, because the machine has no address yet. With one it goes to the relay, back the
/// way the question came: over `neighbour`.
pub fn answer_frame(
    server: Ipv4Addr,
    card: Mac,
    relay: Option<(Ipv4Addr, Mac)>,
    payload: &[u8],
) -> Vec<u8> {
    let (to, neighbour, port) = match relay {
        Some((relay, neighbour)) => (relay, neighbour, DHCP_SERVER_PORT),
        None => (Ipv4Addr::BROADCAST, Mac([0xff; 6]), CLIENT_PORT),
    };
    let udp_bytes = (UDP_BYTES + payload.len()) as u16;
    let mut ip = [0; IP_BYTES];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(IP_BYTES as u16 + udp_bytes).to_be_bytes());
    ip[8] = TIME_TO_LIVE;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&server.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let sum = !folded(sum(&ip));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = [0; UDP_BYTES];
    udp[..2].copy_from_slice(&DHCP_SERVER_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&port.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_bytes.to_be_bytes());
    let pseudo = sum_of(&[&ip[12..20], &[0, UDP], &udp_bytes.to_be_bytes()]);
    let sum = !folded(pseudo + sum_of(&[&udp, payload]));
    // RFC 768: nought would mean "no checksum".
    let sum = if sum == 0 { 0xffff } else { sum };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());

    [
        &neighbour.0,
        &card.0,
        &ETHERTYPE_IPV4[..],
        &ip,
        &udp,
        payload,
    ]
    .concat()
}

/// The sum of pieces of which all but the last have an even length.
fn sum_of(pieces: &[&[u8]]) -> u64 {
    pieces.iter().map(|piece| sum(piece)).sum()
}

/// RFC 1071, before folding.
fn sum(bytes: &[u8]) -> u64 {
    let pair = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    bytes.chunks(2).map(pair).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::{DhcpFrame, IP_BYTES, answer_frame, folded, sum, sum_of};
    use crate::Mac;

    const SERVER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 1);
    const CARD: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn to_a_relay(payload: &[u8]) -> Vec<u8> {
        let relay = ("10.78.0.9".parse().unwrap(), Mac([2, 0, 0, 0, 0, 9]));
        answer_frame(SERVER, CARD, Some(relay), payload)
    }

    #[test]
    fn an_answer_without_relay_goes_to_all_clients() {
        let frame = answer_frame(SERVER, CARD, None, b"x");
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[30..34], [255; 4]);
        assert_eq!(frame[34..38], [0, 67, 0, 68]);
    }

    #[test]
    fn a_fragment_another_port_and_another_protocol_are_not_looked_at() {
        let frame = to_a_relay(b"question");
        assert_eq!(DhcpFrame::parse(&frame).unwrap().payload, b"question");
        for (at, value) in [
            (12, 0x86),
            (14, 0x65),
            (20, 0x20),
            (21, 1),
            (23, 6),
            (37, 68),
            (39, 9),
        ] {
            let mut other = frame.clone();
            other[at] = value;
            assert_eq!(DhcpFrame::parse(&other), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_though_ethernet_pads_it(
            payload in vec(any::<u8>(), 0..700), padding in 0..50_usize
        ) {
            let mut frame = to_a_relay(&payload);
            frame.resize(frame.len() + padding, 0);
            let read = DhcpFrame::parse(&frame).unwrap();
            prop_assert_eq!(read.payload, payload);
            prop_assert_eq!(read.neighbour, CARD);
        }

        #[test]
        fn both_checksums_are_right(payload in vec(any::<u8>(), 0..700)) {
            let frame = to_a_relay(&payload);
            let (ip, datagram) = frame[14..].split_at(IP_BYTES);
            prop_assert_eq!(folded(sum(ip)), 0xffff);
            let length = (datagram.len() as u16).to_be_bytes();
            let pseudo = sum_of(&[&ip[12..20], &[0, 17], &length]);
            prop_assert_eq!(folded(pseudo + sum(datagram)), 0xffff);
        }

        #[test]
        fn no_frame_is_a_surprise(frame in vec(any::<u8>(), 0..1600)) {
            if let Some(read) = DhcpFrame::parse(&frame) {
                prop_assert!(read.payload.len() < frame.len());
            }
        }
    }
}
