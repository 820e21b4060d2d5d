//! Real sockets on the loopback interface.

use std::{sync::atomic::Ordering, time::Instant};

use super::*;
use crate::{
    family::Family,
    interface::{Interface, InterfaceChoice},
};

fn group(port: u16) -> SocketAddr {
    SocketAddr::from(([239, 255, 77, 1], port))
}

fn loopback(family: Family) -> Interface {
    let choice = InterfaceChoice::Named("lo".to_owned());
    Interface::choose(&choice, family).expect("there is always a loopback interface")
}

/// Datagrams heard until `count` are there or two seconds are over.
fn hear(endpoint: &Endpoint, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut inbox = Inbox::new();
    let mut heard = Vec::new();
    let end = Instant::now() + Duration::from_secs(2);
    while heard.len() < count && Instant::now() < end {
        if endpoint.wait(Duration::from_millis(50)).expect("ppoll") {
            endpoint
                .receive(&mut inbox, |from, bytes| heard.push((from, bytes.to_vec())))
                .expect("recvmmsg");
        }
    }
    heard
}

fn batch(segment: usize) -> Vec<u8> {
    // The last datagram is shorter than the others.
    (0..BATCH_SEGMENTS * segment - 5)
        .map(|index| (index / segment) as u8)
        .collect()
}

fn assert_batch_arrives(segmentation: bool, port: u16) {
    let receiver = Endpoint::receiver(&loopback(Family::V4), group(port), true).expect("receiver");
    let sender = Endpoint::sender(&loopback(Family::V4), 1, true).expect("sender");
    sender.segmentation.store(segmentation, Ordering::Relaxed);
    let sent = batch(1000);
    sender.send(group(port), &sent, 1000).expect("send");
    let heard = hear(&receiver, BATCH_SEGMENTS);
    assert_eq!(heard.len(), BATCH_SEGMENTS);
    assert!(
        heard
            .iter()
            .all(|(from, _)| *from == sender.local_address().expect("bound"))
    );
    let joined: Vec<u8> = heard.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert_eq!(joined, sent);
}

#[test]
fn a_batch_arrives_as_datagrams_with_segmentation() {
    assert_batch_arrives(true, 47_011);
}

#[test]
fn a_batch_arrives_as_datagrams_without_segmentation() {
    assert_batch_arrives(false, 47_012);
}

#[test]
fn an_answer_reaches_the_sender_alone() {
    let receiver =
        Endpoint::receiver(&loopback(Family::V4), group(47_013), true).expect("receiver");
    let sender = Endpoint::sender(&loopback(Family::V4), 1, true).expect("sender");
    receiver
        .send(sender.local_address().expect("bound"), b"deficit", 7)
        .expect("send");
    assert_eq!(hear(&sender, 1)[0].1, b"deficit");
    assert!(!receiver.wait(Duration::from_millis(20)).expect("ppoll"));
}

#[test]
fn a_group_nobody_joined_here_is_not_heard() {
    let _other = Endpoint::receiver(
        &loopback(Family::V4),
        SocketAddr::from(([239, 255, 77, 2], 47_014)),
        true,
    );
    let receiver =
        Endpoint::receiver(&loopback(Family::V4), group(47_014), true).expect("receiver");
    let sender = Endpoint::sender(&loopback(Family::V4), 1, true).expect("sender");
    sender
        .send(SocketAddr::from(([239, 255, 77, 2], 47_014)), b"foreign", 7)
        .expect("send");
    assert!(!receiver.wait(Duration::from_millis(50)).expect("ppoll"));
}

#[test]
fn an_overflow_is_counted() {
    let receiver =
        Endpoint::receiver(&loopback(Family::V4), group(47_015), true).expect("receiver");
    socket2::SockRef::from(&receiver.socket)
        .set_recv_buffer_size(8_192)
        .expect("small buffer");
    let sender = Endpoint::sender(&loopback(Family::V4), 1, true).expect("sender");
    for _ in 0..100 {
        sender
            .send(group(47_015), &batch(1000), 1000)
            .expect("send");
    }
    hear(&receiver, 1);
    // The count comes with the next datagram that found room.
    sender.send(group(47_015), b"next", 4).expect("send");
    hear(&receiver, 1);
    assert!(receiver.overflow() > 0);
}

#[test]
fn the_mtu_towards_a_group_is_that_of_the_interface() {
    let mtu = Endpoint::mtu_towards(&loopback(Family::V4), group(47_016)).expect("probe");
    assert!(mtu >= 1_500, "{mtu}");
}
