//! Promises of sealed sessions.

use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{Instant, ReceiverEvent, SenderSeal};

use super::room::{
    Expect, Pair, SESSION, SYMBOL, addresses, announce_until, data, data_body, receiver, seal,
    sealed, sender, sender_with,
};
use super::single::promise;

/// First byte of a data datagram, of an announce.
const DATA: u8 = 0x11;
const ANNOUNCE: u8 = 0x12;
/// What says in the second byte that a datagram is sealed.
const SEALED: u8 = 0x80;
/// Where a report has its number.
const NUMBER_AT: usize = 10;
/// Symbols of the one block of small rooms.
const SYMBOLS: u16 = 10;

/// A machine of a sealed session that has heard no symbol of the payload but those that `forge` makes.
fn built_of(forge: impl Fn(u16) -> Vec<u8>) -> Result<(), String> {
    let mut pair = Pair::sealed(&[u32::from(SYMBOLS * SYMBOL)], seal());
    pair.play(3000, Pair::has_begun);
    promise(pair.has_begun(), || "the machine did not begin".to_owned())?;
    (0..SYMBOLS).for_each(|symbol| pair.inject(&forge(symbol)));
    let built = |event: &ReceiverEvent| matches!(event, ReceiverEvent::Block { .. });
    promise(!pair.events.iter().any(built), || {
        "a block is built of forged symbols".to_owned()
    })
}

/// Somebody without the key says that his symbols are sealed.
pub(super) fn what_no_key_sealed_builds_nothing() -> Result<(), String> {
    let bytes = [9; SYMBOL as usize + 16];
    built_of(|symbol| data_body(SEALED, SESSION, u32::from(symbol), 0, symbol, &bytes))
}

/// Somebody without the key does not even say so.
pub(super) fn what_is_not_sealed_builds_nothing() -> Result<(), String> {
    let bytes = [9; SYMBOL as usize];
    built_of(|symbol| data(SESSION, u32::from(symbol), 0, symbol, &bytes))
}

/// A session without a key is announced to a machine with one.
pub(super) fn a_key_joins_no_open_session() -> Result<(), String> {
    let mut machine = receiver(Expect::sealed());
    let mut open = sender(SESSION, 1, &[5000]);
    let mut datagram = Vec::new();
    open.poll_transmit(Instant::ZERO, &mut datagram);
    machine.handle_datagram(Instant::ZERO, addresses().0, &datagram);
    let heard = machine.poll_event();
    promise(heard.is_none(), || format!("{heard:?}"))
}

/// The reports of a machine without the key reach a sealing sender.
pub(super) fn open_reports_are_not_heard() -> Result<(), String> {
    let mut open = Pair::new(&[50_000], Expect::default());
    open.play(3000, |pair| pair.reports.len() > 3);
    let mut sealing = sender_with(SESSION, 1, &[50_000], Some(seal()));
    announce_until(open.now, &mut sealing);
    let (_, from) = addresses();
    for report in &open.reports {
        sealing.handle_datagram(open.now, from, report);
    }
    let known = sealing.receivers(open.now).len();
    promise(known == 0, || format!("{known} machines are in the books"))
}

/// A machine has been gone for long; a report of it, recorded and numbered anew, comes again.
pub(super) fn a_recording_revives_nobody() -> Result<(), String> {
    let mut pair = Pair::new(&[50_000], Expect::default());
    pair.play(3000, |pair| pair.reports.len() > 1);
    let recorded = pair.reports.first().ok_or("the machine reports nothing")?;
    let mut recorded = recorded[..recorded.len() - 4].to_vec();
    recorded[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&1_000_000_u32.to_be_bytes());
    for _ in 0..400 {
        pair.now = pair.now.after(Duration::from_millis(100));
        pair.sender.handle_timeout(pair.now);
        pair.sender.poll_transmit(pair.now, &mut Vec::new());
    }
    let gone = |pair: &Pair| pair.sender.receivers(pair.now).iter().all(|one| one.gone);
    promise(gone(&pair), || "a silent machine stays".to_owned())?;
    let (_, from) = addresses();
    pair.sender
        .handle_datagram(pair.now, from, &sealed(recorded));
    promise(gone(&pair), || {
        "a machine that is gone is here again".to_owned()
    })
}

/// Somebody repeats each announce from his own address, before it arrives.
pub(super) fn reports_go_to_the_sender() -> Result<(), String> {
    let mut pair = Pair::sealed(&[50_000], seal());
    pair.play(3000, |pair| !pair.reports.is_empty());
    let stranger = SocketAddr::from(([10, 77, 0, 99], 4077));
    for _ in 0..3000 {
        pair.now = pair.now.after(Duration::from_millis(1));
        let mut datagram = Vec::new();
        if pair.sender.poll_transmit(pair.now, &mut datagram).is_some() && datagram[0] == ANNOUNCE {
            pair.receiver.handle_datagram(pair.now, stranger, &datagram);
        }
        pair.receiver.handle_timeout(pair.now);
        pair.listen();
        if let Some(to) = pair.receiver.poll_transmit(pair.now, &mut Vec::new()) {
            promise(to != stranger, || "a report goes to a stranger".to_owned())?;
        }
    }
    Ok(())
}

/// A whole session was recorded, and is played to a machine that has the same key.
pub(super) fn a_recording_is_not_received() -> Result<(), String> {
    let mut pair = Pair::sealed(&[5000], seal());
    let complete = |pair: &Pair| pair.events.contains(&ReceiverEvent::Complete);
    pair.play(20_000, complete);
    promise(complete(&pair), || {
        "the session itself is not received".to_owned()
    })?;
    let mut later = Pair::sealed_again(&[5000], seal());
    for datagram in &pair.heard {
        later.now = later.now.after(Duration::from_millis(1));
        later.inject(datagram);
    }
    promise(!later.has_begun(), || {
        "a recording reaches the sink".to_owned()
    })
}

/// A machine with a number and a key of its own says that it starts again and again.
pub(super) fn a_machine_takes_little_room() -> Result<(), String> {
    let mut sender = sender_with(SESSION, 1, &[50_000], Some(seal()));
    let mut announce = Vec::new();
    sender.poll_transmit(Instant::ZERO, &mut announce);
    let (from_sender, from) = addresses();
    let mut now = Instant::ZERO;
    for starts in 0..20 {
        let mut machine = receiver(Expect {
            starts,
            ..Expect::numbered(7)
        });
        machine.handle_datagram(now, from_sender, &announce);
        now = now.after(Duration::from_millis(100));
        machine.handle_timeout(now);
        let mut report = Vec::new();
        machine.poll_transmit(now, &mut report);
        sender.handle_datagram(now, from, &report);
    }
    let known = sender.receivers(now).len();
    promise((1..=4).contains(&known), || {
        format!("{known} starts of one machine are in the books")
    })
}

/// A sender that may seal so many datagrams, and a machine that never has enough.
pub(super) fn no_number_seals_twice() -> Result<(), String> {
    const MAX: u32 = 300;
    let seal: SenderSeal = seal().up_to(MAX);
    let mut pair = Pair::sealed(&[200_000; 4], seal);
    pair.play(5000, |pair| pair.heard.len() > 2 * MAX as usize);
    let is_data = |datagram: &&Vec<u8>| datagram[0] == DATA;
    let sequences = pair.heard.iter().filter(is_data).map(|datagram| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&datagram[6..10]);
        u32::from_be_bytes(bytes)
    });
    let last = sequences.max().unwrap_or(0);
    promise(last + 1 == MAX, || {
        format!("numbers up to {last} seal, {MAX} are allowed")
    })
}
