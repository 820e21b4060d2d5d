//! The client against a server of a few lines.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use netflash_pxe::Mac;
use proptest::prelude::any;
use proptest::proptest;

use super::{DhcpClient, DhcpEvent, Lease, prefix_of};

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

fn client(now: Instant) -> DhcpClient {
    DhcpClient::new(MAC, Some([7; 16]), 42, now)
}

fn sent(client: &mut DhcpClient) -> Option<(Ipv4Addr, Message)> {
    let transmit = client.poll_transmit()?;
    let message = Message::decode(&mut Decoder::new(&transmit.bytes)).unwrap();
    Some((transmit.to, message))
}

fn reply(request: &Message, kind: MessageType) -> Message {
    let mut reply = request.clone();
    reply.set_opcode(Opcode::BootReply).set_yiaddr(ADDRESS);
    let options = reply.opts_mut();
    options.clear();
    options.insert(DhcpOption::MessageType(kind));
    options.insert(DhcpOption::ServerIdentifier(SERVER));
    options.insert(DhcpOption::AddressLeaseTime(3600));
    options.insert(DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)));
    options.insert(DhcpOption::Router(vec![SERVER]));
    reply
}

fn answer(client: &mut DhcpClient, now: Instant, kind: MessageType) -> Message {
    client.handle_timeout(now);
    let (_, request) = sent(client).expect("a message is due");
    let reply = reply(&request, kind);
    client.handle_datagram(now, &reply.to_vec().unwrap());
    request
}

fn bound(now: Instant) -> DhcpClient {
    let mut client = client(now);
    answer(&mut client, now, MessageType::Offer);
    answer(&mut client, now, MessageType::Ack);
    assert_eq!(client.poll_event(), Some(DhcpEvent::Bound(lease())));
    client
}

fn lease() -> Lease {
    Lease {
        address: ADDRESS,
        prefix: 24,
        router: Some(SERVER),
        mtu: None,
        server: SERVER,
        duration: Duration::from_secs(3600),
    }
}

#[test]
fn an_offer_becomes_a_lease() {
    let now = Instant::now();
    let mut client = client(now);
    let discover = answer(&mut client, now, MessageType::Offer);
    assert!(discover.flags().broadcast());
    let request = answer(&mut client, now, MessageType::Ack);
    assert_eq!(
        request.opts().get(OptionCode::RequestedIpAddress),
        Some(&DhcpOption::RequestedIpAddress(ADDRESS))
    );
    assert_eq!(client.poll_event(), Some(DhcpEvent::Bound(lease())));
    assert_eq!(client.poll_timeout(), now + Duration::from_secs(1800));
}

#[test]
fn the_client_identifier_is_the_one_of_ipxe() {
    let now = Instant::now();
    let mut client = client(now);
    client.handle_timeout(now);
    let (_, message) = sent(&mut client).unwrap();
    let expected = DhcpOption::ClientIdentifier(vec![1, 0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!(
        message.opts().get(OptionCode::ClientIdentifier),
        Some(&expected)
    );
}

#[test]
fn a_silent_network_is_asked_beyond_two_minutes_and_never_more_often_than_each_second() {
    let start = Instant::now();
    let mut client = client(start);
    let mut last = start;
    let mut asked = 0;
    while last < start + Duration::from_secs(120) {
        let now = client.poll_timeout();
        client.handle_timeout(now);
        assert!(sent(&mut client).is_some());
        assert!(asked == 0 || now - last >= Duration::from_secs(1));
        assert!(now - last <= Duration::from_secs(18));
        (last, asked) = (now, asked + 1);
    }
    assert!(asked >= 9);
}

#[test]
fn half_way_the_server_alone_is_asked_and_then_everybody() {
    let start = Instant::now();
    let mut client = bound(start);
    client.handle_timeout(client.poll_timeout());
    let (to, request) = sent(&mut client).unwrap();
    assert_eq!((to, request.ciaddr()), (SERVER, ADDRESS));
    let late = start + Duration::from_secs(3200);
    client.handle_timeout(late);
    let (to, _) = sent(&mut client).unwrap();
    assert_eq!(to, Ipv4Addr::BROADCAST);
}

#[test]
fn a_renewal_goes_on_without_a_gap() {
    let start = Instant::now();
    let mut client = bound(start);
    let half = client.poll_timeout();
    answer(&mut client, half, MessageType::Ack);
    assert_eq!(client.poll_event(), Some(DhcpEvent::Bound(lease())));
    assert_eq!(client.poll_timeout(), half + Duration::from_secs(1800));
}

/// A client whose lease ran out in silence, and when that was.
fn overdue(start: Instant) -> (DhcpClient, Instant) {
    let mut client = bound(start);
    while client.events.is_empty() {
        client.handle_timeout(client.poll_timeout());
    }
    assert_eq!(client.poll_event(), Some(DhcpEvent::Overdue(lease())));
    let end = start + Duration::from_secs(3600);
    client.poll_transmit();
    (client, end)
}

#[test]
fn an_address_whose_server_fell_silent_is_kept_and_asked_for_again() {
    let (mut client, end) = overdue(Instant::now());
    let mut asked = 0;
    while client.poll_timeout() < end + Duration::from_secs(600) {
        client.handle_timeout(client.poll_timeout());
        let (to, message) = sent(&mut client).expect("a search is due");
        assert_eq!(to, Ipv4Addr::BROADCAST);
        assert_eq!(message.opts().msg_type(), Some(MessageType::Discover));
        assert_eq!(
            message.opts().get(OptionCode::RequestedIpAddress),
            Some(&DhcpOption::RequestedIpAddress(ADDRESS))
        );
        asked += 1;
    }
    assert!(asked > 30, "{asked}");
    assert_eq!(client.poll_event(), None);
    let now = client.poll_timeout();
    answer(&mut client, now, MessageType::Offer);
    answer(&mut client, now, MessageType::Ack);
    assert_eq!(client.poll_event(), Some(DhcpEvent::Bound(lease())));
    assert_eq!(client.poll_event(), None);
}

#[test]
fn a_kept_address_goes_when_a_server_lends_another_or_says_no() {
    let (mut client, end) = overdue(Instant::now());
    let now = end + Duration::from_secs(60);
    let other = Ipv4Addr::new(10, 77, 0, 51);
    for kind in [MessageType::Offer, MessageType::Ack] {
        client.handle_timeout(now);
        let (_, request) = sent(&mut client).unwrap();
        let mut reply = reply(&request, kind);
        reply.set_yiaddr(other);
        client.handle_datagram(now, &reply.to_vec().unwrap());
    }
    assert_eq!(client.poll_event(), Some(DhcpEvent::Lost(lease())));
    let bound = Lease {
        address: other,
        ..lease()
    };
    assert_eq!(client.poll_event(), Some(DhcpEvent::Bound(bound)));

    let (mut client, end) = overdue(Instant::now());
    let now = end + Duration::from_secs(60);
    answer(&mut client, now, MessageType::Offer);
    answer(&mut client, now, MessageType::Nak);
    assert_eq!(client.poll_event(), Some(DhcpEvent::Lost(lease())));
}

#[test]
fn a_short_lease_is_asked_for_several_times_before_it_ends() {
    let start = Instant::now();
    let mut client = client(start);
    answer(&mut client, start, MessageType::Offer);
    client.handle_timeout(start);
    let (_, request) = sent(&mut client).unwrap();
    let mut ack = reply(&request, MessageType::Ack);
    ack.opts_mut().insert(DhcpOption::AddressLeaseTime(40));
    client.handle_datagram(start, &ack.to_vec().unwrap());
    client.poll_event();
    let mut asked = 0;
    let mut last = start;
    while client.events.is_empty() {
        let now = client.poll_timeout();
        assert!(now - last >= Duration::from_millis(500), "{:?}", now - last);
        last = now;
        client.handle_timeout(now);
        asked += u32::from(sent(&mut client).is_some());
    }
    assert_eq!(last, start + Duration::from_secs(40));
    assert!(asked >= 5, "{asked}");
}

#[test]
fn only_a_sensible_mtu_is_taken() {
    for (mtu, taken) in [
        (576, None),
        (1279, None),
        (1400, Some(1400)),
        (9000, Some(9000)),
        (65535, None),
    ] {
        let now = Instant::now();
        let mut client = client(now);
        for kind in [MessageType::Offer, MessageType::Ack] {
            client.handle_timeout(now);
            let (_, request) = sent(&mut client).unwrap();
            let mut reply = reply(&request, kind);
            reply.opts_mut().insert(DhcpOption::InterfaceMtu(mtu));
            client.handle_datagram(now, &reply.to_vec().unwrap());
        }
        let expected = Lease {
            mtu: taken,
            ..lease()
        };
        assert_eq!(client.poll_event(), Some(DhcpEvent::Bound(expected)));
    }
}

#[test]
fn a_refused_renewal_starts_over() {
    let start = Instant::now();
    let mut client = bound(start);
    let half = client.poll_timeout();
    answer(&mut client, half, MessageType::Nak);
    assert_eq!(client.poll_event(), Some(DhcpEvent::Lost(lease())));
    answer(
        &mut client,
        half + Duration::from_secs(5),
        MessageType::Offer,
    );
}

#[test]
fn four_unanswered_requests_look_for_another_offer() {
    let start = Instant::now();
    let mut client = client(start);
    answer(&mut client, start, MessageType::Offer);
    let mut kinds = Vec::new();
    for _ in 0..6 {
        client.handle_timeout(client.poll_timeout());
        if let Some((_, message)) = sent(&mut client) {
            kinds.push(message.opts().msg_type().unwrap());
        }
    }
    use MessageType::{Discover, Request};
    assert_eq!(kinds, [Request, Request, Request, Request, Discover]);
}

#[test]
fn messages_for_others_are_ignored() {
    let now = Instant::now();
    let mut client = client(now);
    client.handle_timeout(now);
    let (_, discover) = sent(&mut client).unwrap();
    let mut foreign = reply(&discover, MessageType::Offer);
    foreign.set_xid(43);
    let mut other_card = reply(&discover, MessageType::Offer);
    other_card.set_chaddr(&[1; 6]);
    let mut no_address = reply(&discover, MessageType::Offer);
    no_address.set_yiaddr(Ipv4Addr::UNSPECIFIED);
    let mut bad_mask = reply(&discover, MessageType::Offer);
    let mask = Ipv4Addr::new(255, 0, 255, 0);
    bad_mask.opts_mut().insert(DhcpOption::SubnetMask(mask));
    for message in [foreign, other_card, no_address, bad_mask] {
        client.handle_datagram(now, &message.to_vec().unwrap());
        assert!(client.poll_timeout() > now, "still waits for an offer");
    }
}

#[test]
fn a_mask_is_ones_followed_by_zeros() {
    assert_eq!(prefix_of(Ipv4Addr::new(255, 255, 254, 0)), Some(23));
    assert_eq!(prefix_of(Ipv4Addr::new(0, 0, 0, 0)), Some(0));
    assert_eq!(prefix_of(Ipv4Addr::new(255, 0, 255, 0)), None);
}

proptest! {
    #[test]
    fn any_datagram_is_survived(mut bytes: Vec<u8>, at in 0usize..600, value: u8) {
        let now = Instant::now();
        let mut client = bound(now);
        client.handle_timeout(client.poll_timeout());
        let (_, request) = sent(&mut client).unwrap();
        client.handle_datagram(now, &bytes);
        // A valid answer with one byte changed gets much further in.
        bytes = reply(&request, MessageType::Ack).to_vec().unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        client.handle_datagram(now, &bytes);
        client.handle_timeout(client.poll_timeout());
    }

    #[test]
    fn any_options_are_survived(options in proptest::collection::vec(any::<u8>(), 0..300)) {
        let now = Instant::now();
        let mut client = client(now);
        client.handle_timeout(now);
        let (_, discover) = sent(&mut client).unwrap();
        let mut bytes = reply(&discover, MessageType::Offer).to_vec().unwrap();
        bytes.truncate(240);
        bytes.extend(options);
        client.handle_datagram(now, &bytes);
    }
}
