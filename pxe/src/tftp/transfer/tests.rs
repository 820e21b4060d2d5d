//! A client of its own, written down from the RFCs, takes files over a network that loses, doubles and delays.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::{RETRIES_MAX, RETRIES_UNHEARD_MAX, TftpOutcome, TftpTransfer, TftpTransmit};
use crate::tftp::{TftpHeard, TftpRead};

fn request(block_bytes: Option<u16>, window_blocks: Option<u16>) -> TftpRead {
    TftpRead {
        path: "file".to_owned(),
        block_bytes,
        wants_size: block_bytes.is_some(),
        timeout_seconds: None,
        window_blocks,
    }
}

fn drain(transfer: &mut TftpTransfer) -> Vec<TftpTransmit> {
    std::iter::from_fn(|| transfer.poll_transmit()).collect()
}

fn numbers(sent: &[TftpTransmit]) -> Vec<u16> {
    let number = |one: &TftpTransmit| match one {
        TftpTransmit::Block { number, .. } => *number,
        TftpTransmit::Options(_) => panic!("options in mid-file"),
    };
    sent.iter().map(number).collect()
}

#[test]
fn without_options_the_file_comes_in_blocks_of_512() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(None, None), 1024);
    let mut lengths = Vec::new();
    for number in 1..=3 {
        let sent = drain(&mut transfer);
        let [TftpTransmit::Block { length, .. }] = sent[..] else {
            panic!("{sent:?}");
        };
        lengths.push(length);
        transfer.handle(now, TftpHeard::Acknowledged(number));
    }
    // A file that is a multiple of the block ends with an empty one.
    assert_eq!(lengths, [512, 512, 0]);
    assert_eq!(transfer.outcome(), Some(&TftpOutcome::Done));
}

#[test]
fn options_are_confirmed_before_the_first_block() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(Some(1024), Some(4)), 9999);
    let offer = b"\0\x06blksize\x001024\0tsize\x009999\0windowsize\x004\0".to_vec();
    assert_eq!(drain(&mut transfer), [TftpTransmit::Options(offer)]);
    transfer.handle(now, TftpHeard::Acknowledged(1));
    assert_eq!(drain(&mut transfer), []);
    transfer.handle(now, TftpHeard::Acknowledged(0));
    assert_eq!(numbers(&drain(&mut transfer)), [1, 2, 3, 4]);
}

#[test]
fn an_acknowledgement_inside_the_window_goes_back_behind_it() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(None, Some(4)), 1 << 20);
    drain(&mut transfer);
    transfer.handle(now, TftpHeard::Acknowledged(0));
    assert_eq!(numbers(&drain(&mut transfer)), [1, 2, 3, 4]);
    transfer.handle(now, TftpHeard::Acknowledged(2));
    assert_eq!(numbers(&drain(&mut transfer)), [3, 4, 5, 6]);
    // Block 3 was lost: the client says again what it has, and is heard once.
    transfer.handle(now, TftpHeard::Acknowledged(2));
    assert_eq!(numbers(&drain(&mut transfer)), [3, 4, 5, 6]);
    transfer.handle(now, TftpHeard::Acknowledged(2));
    assert_eq!(drain(&mut transfer), []);
}

#[test]
fn a_duplicate_acknowledgement_doubles_nothing() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(None, None), 4096);
    drain(&mut transfer);
    transfer.handle(now, TftpHeard::Acknowledged(1));
    assert_eq!(numbers(&drain(&mut transfer)), [2]);
    transfer.handle(now, TftpHeard::Acknowledged(1));
    assert_eq!(drain(&mut transfer), []);
}

/// Runs out of time again and again; how many datagrams that brought, and how long it took.
fn wait_in_vain(transfer: &mut TftpTransfer, begun: Instant) -> (u32, Duration) {
    let mut now = begun;
    let mut sent = 0;
    while let Some(deadline) = transfer.poll_timeout() {
        sent += drain(transfer).len() as u32;
        now = deadline;
        transfer.handle_timeout(now);
    }
    (sent, now - begun)
}

#[test]
fn a_client_that_falls_silent_is_given_up_in_the_end() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(None, None), 4096);
    drain(&mut transfer);
    transfer.handle(now, TftpHeard::Acknowledged(1));
    let (sent, waited) = wait_in_vain(&mut transfer, now);
    assert_eq!(sent, RETRIES_MAX + 1);
    let silent = TftpOutcome::Silent { all_sent: false };
    assert_eq!(transfer.outcome(), Some(&silent));
    assert!(waited > Duration::from_secs(60) && waited < Duration::from_secs(120));
}

#[test]
fn a_forged_request_brings_its_victim_few_datagrams() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(Some(1468), Some(32)), 1 << 20);
    let (sent, _) = wait_in_vain(&mut transfer, now);
    assert_eq!(sent, RETRIES_UNHEARD_MAX + 1);
}

#[test]
fn a_wait_of_minutes_is_not_confirmed() {
    let now = Instant::now();
    for (asked, confirmed) in [(1, true), (8, true), (9, false), (255, false)] {
        let read = TftpRead {
            timeout_seconds: Some(asked),
            ..request(Some(512), None)
        };
        let mut transfer = TftpTransfer::new(now, &read, 4096);
        let [TftpTransmit::Options(options)] = &drain(&mut transfer)[..] else {
            panic!("no options");
        };
        let said = String::from_utf8_lossy(options).contains("timeout");
        assert_eq!(said, confirmed, "{asked}");
        let (_, waited) = wait_in_vain(&mut transfer, now);
        assert!(waited <= Duration::from_secs(8 * (1 + 2 + 4 + 8 + 8)));
    }
}

#[test]
fn a_client_that_only_asked_for_the_size_ends_it() {
    let now = Instant::now();
    let mut transfer = TftpTransfer::new(now, &request(Some(512), None), 4096);
    drain(&mut transfer);
    let heard = TftpHeard::parse(b"\0\x05\0\x08User aborted the transfer\0").unwrap();
    transfer.handle(now, heard);
    assert!(matches!(
        transfer.outcome(),
        Some(TftpOutcome::Aborted { code: 8, .. })
    ));
    assert_eq!(drain(&mut transfer), []);
}

/// A client as RFC 7440 section 4 describes it: it acknowledges the end of a window, and what it has at the first gap.
struct Client {
    window: u64,
    blocks: u64,
    /// Blocks it has, without a gap.
    has: u64,
    since: u64,
    taken: Vec<(u64, usize)>,
    /// It has said that it misses something, and waits for that.
    complained: bool,
}

impl Client {
    fn take(&mut self, transmit: TftpTransmit) -> Option<u16> {
        let TftpTransmit::Block {
            number,
            offset,
            length,
        } = transmit
        else {
            return (self.has == 0).then_some(0);
        };
        if number != ((self.has + 1) & 0xffff) as u16 {
            let first = !std::mem::replace(&mut self.complained, true);
            self.since = 0;
            return first.then_some((self.has & 0xffff) as u16);
        }
        self.complained = false;
        self.has += 1;
        self.since += 1;
        self.taken.push((offset, length));
        if self.since == self.window || self.has == self.blocks {
            self.since = 0;
            return Some((self.has & 0xffff) as u16);
        }
        None
    }
}

fn exchange(file_bytes: u64, block: u16, window: u16, mut chance: impl FnMut() -> u8) -> Client {
    let mut now = Instant::now();
    let request = request(Some(block), Some(window));
    let mut transfer = TftpTransfer::new(now, &request, file_bytes);
    let mut client = Client {
        window: window.into(),
        blocks: file_bytes / u64::from(block) + 1,
        has: 0,
        since: 0,
        taken: Vec::new(),
        complained: false,
    };
    let mut wire: VecDeque<TftpTransmit> = VecDeque::new();
    loop {
        match transfer.outcome() {
            None => {}
            // Given up before its first word was heard: a client asks again.
            Some(TftpOutcome::Silent { .. }) if client.has == 0 => {
                transfer = TftpTransfer::new(now, &request, file_bytes);
            }
            Some(_) => return client,
        }
        wire.extend(drain(&mut transfer));
        let Some(datagram) = wire.pop_front() else {
            now += Duration::from_millis(500);
            client.complained = false;
            transfer.handle_timeout(now);
            continue;
        };
        match chance() {
            0..=9 => continue,
            10..=14 => wire.push_back(datagram.clone()),
            15..=19 => {
                wire.push_back(datagram);
                continue;
            }
            _ => {}
        }
        if let Some(number) = client.take(datagram)
            && chance() > 9
        {
            transfer.handle(now, TftpHeard::Acknowledged(number));
        }
    }
}

proptest! {
    #[test]
    fn every_file_arrives_whole_over_a_bad_network(
        file_bytes in 0u64..60_000,
        block in 8u16..1468,
        window in 1u16..=32,
        seed in 1u64..u64::MAX,
    ) {
        let mut state = seed;
        let client = exchange(file_bytes, block, window, || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 100) as u8
        });
        // Whoever has everything may have said so in vain; nobody misses anything.
        prop_assert_eq!(client.has, client.blocks);
        let mut place = 0;
        for (offset, length) in client.taken {
            prop_assert_eq!(offset, place);
            place += length as u64;
        }
        prop_assert!(place == file_bytes);
    }
}

#[test]
fn block_numbers_begin_again_after_65535() {
    let client = exchange(8 * 70_000, 8, 32, || 99);
    assert_eq!(client.has, 70_001);
}
