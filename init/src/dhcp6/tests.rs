//! A client and a server that is played by hand.

use proptest::prelude::*;

use super::*;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
const TRANSACTION: u32 = 0x00ab_cdef;
const SERVER: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
}

/// A server's message to the client of these tests, with this in its association.
fn reply(kind: u8, transaction: u32, inside: &[u8]) -> Vec<u8> {
    let own = message::own_name(MAC, None);
    // IAID of the card, T1 of 40 s, T2 of 60 s.
    let association = [&[0, 0, 0, 7, 0, 0, 0, 40, 0, 0, 0, 60], inside].concat();
    [
        vec![kind],
        transaction.to_be_bytes()[1..].to_vec(),
        option(1, &own),
        option(2, SERVER),
        option(3, &association),
    ]
    .concat()
}

fn lends(address: &str, seconds: u32) -> Vec<u8> {
    let address: Ipv6Addr = address.parse().unwrap();
    let life = seconds.to_be_bytes();
    option(5, &[&address.octets()[..], &life, &life].concat())
}

fn client(now: Instant) -> Client {
    Client::new(MAC, None, TRANSACTION, now)
}

fn kind(client: &mut Client) -> Option<u8> {
    client.poll_transmit().map(|bytes| bytes[0])
}

/// A client that has an address for 100 seconds.
fn bound(now: Instant) -> Client {
    let mut client = client(now);
    client.handle_timeout(now);
    assert_eq!(kind(&mut client), Some(1));
    client.handle_datagram(now, &reply(2, TRANSACTION, &lends("fd77::9", 100)));
    client.handle_timeout(now);
    assert_eq!(kind(&mut client), Some(3));
    client.handle_datagram(now, &reply(7, TRANSACTION, &lends("fd77::9", 100)));
    assert!(matches!(client.poll_event(), Some(Event::Bound(lease))
        if lease.address == "fd77::9".parse::<Ipv6Addr>().unwrap() && lease.server == SERVER));
    client
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn four_messages_bring_an_address() {
    let now = Instant::now();
    let client = bound(now);
    assert_eq!(client.poll_timeout(), now + seconds(40));
}

#[test]
fn an_address_is_renewed_then_asked_of_everybody_and_then_kept() {
    let now = Instant::now();
    let mut client = bound(now);
    client.handle_timeout(now + seconds(40));
    assert_eq!(kind(&mut client), Some(5));
    client.handle_timeout(now + seconds(60));
    assert_eq!(kind(&mut client), Some(6));
    client.handle_timeout(now + seconds(100));
    assert!(matches!(client.poll_event(), Some(Event::Overdue(_))));
    // Asked for again, and given: nothing is lost on the way.
    client.handle_timeout(now + seconds(101));
    assert_eq!(kind(&mut client), Some(1));
    let later = now + seconds(102);
    client.handle_datagram(later, &reply(2, TRANSACTION + 1, &lends("fd77::9", 100)));
    client.handle_timeout(later);
    client.handle_datagram(later, &reply(7, TRANSACTION + 1, &lends("fd77::9", 100)));
    assert!(matches!(client.poll_event(), Some(Event::Bound(_))));
    assert_eq!(client.poll_event(), None);
}

#[test]
fn an_address_that_is_taken_away_is_lost() {
    let now = Instant::now();
    for inside in [lends("fd77::9", 0), option(13, &[0, 3]), Vec::new()] {
        let mut client = bound(now);
        client.handle_timeout(now + seconds(40));
        client.handle_datagram(now + seconds(41), &reply(7, TRANSACTION, &inside));
        assert!(matches!(client.poll_event(), Some(Event::Lost(_))));
    }
}

#[test]
fn a_link_that_comes_back_has_the_address_confirmed() {
    let now = Instant::now();
    let mut client = bound(now);
    client.handle_link_up(now + seconds(5));
    client.handle_timeout(now + seconds(5));
    assert_eq!(kind(&mut client), Some(6));
    client.handle_datagram(
        now + seconds(5),
        &reply(7, TRANSACTION, &lends("fd77::a", 100)),
    );
    assert!(
        matches!(client.poll_event(), Some(Event::Lost(_))),
        "another address"
    );
    assert!(matches!(client.poll_event(), Some(Event::Bound(_))));
}

#[test]
fn what_is_for_others_is_ignored() {
    let now = Instant::now();
    let mut client = client(now);
    client.handle_timeout(now);
    let good = reply(2, TRANSACTION, &lends("fd77::9", 100));
    let mut other_client = good.clone();
    other_client[13] ^= 1;
    let mut other_card = good.clone();
    *other_card
        .windows(4)
        .position(|four| four == [0, 0, 0, 7])
        .map(|at| &mut other_card[at + 3])
        .unwrap() = 8;
    for bad in [
        reply(2, TRANSACTION + 1, &lends("fd77::9", 100)),
        reply(2, TRANSACTION, &option(13, &[0, 2])),
        reply(2, TRANSACTION, &lends("ff02::1", 100)),
        other_client,
        other_card,
        good[..good.len() - 1].to_vec(),
    ] {
        client.handle_datagram(now, &bad);
        assert!(matches!(client.state, State::Soliciting), "{bad:?}");
    }
    client.handle_datagram(now, &good);
    assert!(matches!(client.state, State::Requesting { .. }));
}

#[test]
fn a_server_that_advertises_and_then_is_silent_is_given_up() {
    let now = Instant::now();
    let mut client = client(now);
    client.handle_timeout(now);
    client.handle_datagram(now, &reply(2, TRANSACTION, &lends("fd77::9", 100)));
    for _ in 0..=REQUESTS_MAX {
        let due = client.poll_timeout();
        client.handle_timeout(due);
    }
    assert!(matches!(client.state, State::Soliciting));
}

#[test]
fn a_machine_is_named_by_its_uuid_where_it_has_one() {
    assert_eq!(message::own_name(MAC, Some([9; 16]))[..3], [0, 4, 9]);
    assert_eq!(message::own_name(MAC, None)[..5], [0, 3, 0, 1, 2]);
}

proptest! {
    #[test]
    fn any_datagram_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let now = Instant::now();
        let mut client = client(now);
        client.handle_datagram(now, &bytes);
    }

    #[test]
    fn any_damage_is_read_without_harm(at in 0_usize..90, with: u8) {
        let now = Instant::now();
        let mut client = client(now);
        let mut bytes = reply(2, TRANSACTION, &lends("fd77::9", 100));
        let place = at % bytes.len();
        bytes[place] = with;
        client.handle_datagram(now, &bytes);
    }
}
