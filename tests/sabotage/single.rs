//! Promises that are proved at one particular moment.

use std::time::Duration;

use netflash_multicast::{
    Announce, Instant, ObjectId, Phase, Receiver, ReceiverEvent, ReedSolomon,
};
use tests::sim::{Crowd, play};

use super::room::{
    Expect, Pair, SESSION, SYMBOL, addresses, announce_until, data, key, receiver, sealed, sender,
};

/// Where a report has the number of its machine.
const RECEIVER_AT: usize = 14;
/// Where a report has its number.
const NUMBER_AT: usize = 10;
/// The phase of a report whose machine lacks blocks.
const RECEIVING: u8 = 2;
/// Memory a receiver may hold of incomplete blocks, and of datagrams that came too early.
const HELD_MAX: usize = 28 << 20;

pub(super) fn promise(holds: bool, how: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(how()) }
}

/// Somebody floods a machine that has not found its session.
pub(super) fn early_datagrams_are_few() -> Result<(), String> {
    let mut machine = receiver(Expect::default());
    let (from, _) = addresses();
    for sequence in 0..40_000 {
        let datagram = data(SESSION, sequence, sequence, 0, &[5; 1400]);
        machine.handle_datagram(Instant::ZERO, from, &datagram);
    }
    let held = machine.held_bytes();
    promise(held <= HELD_MAX, || format!("{held} bytes are held"))
}

fn joins(mut machine: Receiver<ReedSolomon>, session: u32, seed: u8) -> bool {
    let mut other = sender(session, seed, &[5000]);
    let (from, _) = addresses();
    let mut now = Instant::ZERO;
    for _ in 0..1000 {
        now = now.after(Duration::from_millis(1));
        other.handle_timeout(now);
        while other.poll_event().is_some() {}
        let mut datagram = Vec::new();
        if other.poll_transmit(now, &mut datagram).is_some() {
            machine.handle_datagram(now, from, &datagram);
        }
        while let Some(event) = machine.poll_event() {
            if matches!(event, ReceiverEvent::Joined { .. }) {
                return true;
            }
        }
    }
    false
}

fn joins_only(right: impl Fn() -> Expect, wrong: Expect) -> Result<(), String> {
    promise(joins(receiver(right()), SESSION, 1), || {
        "the right session is not joined".to_owned()
    })?;
    promise(!joins(receiver(wrong), SESSION, 1), || {
        "a wrong session is joined".to_owned()
    })
}

pub(super) fn only_the_given_key_is_joined() -> Result<(), String> {
    let expect = |seed| Expect {
        verify_key: Some(key(seed).verify_key()),
        ..Expect::default()
    };
    joins_only(|| expect(1), expect(2))
}

pub(super) fn only_the_given_object_is_joined() -> Result<(), String> {
    joins_only(Expect::default, Expect::another_object())
}

pub(super) fn only_the_given_session_is_joined() -> Result<(), String> {
    let expect = |session| Expect {
        session: Some(session),
        ..Expect::default()
    };
    joins_only(|| expect(SESSION), expect(SESSION + 1))
}

/// The reports of a machine reach the sender of another session.
pub(super) fn reports_of_others_are_not_heard() -> Result<(), String> {
    let mut pair = Pair::new(&[50_000], Expect::default());
    pair.play(3000, |pair| pair.reports.len() > 3);
    promise(!pair.reports.is_empty(), || {
        "the machine reports nothing".to_owned()
    })?;
    let mut other = sender(SESSION + 1, 1, &[50_000]);
    announce_until(pair.now, &mut other);
    let (_, from) = addresses();
    pair.reports
        .iter()
        .for_each(|report| other.handle_datagram(pair.now, from, report));
    let known = other.receivers(pair.now).len();
    promise(known == 0, || {
        format!("{known} machines of another session are in the books")
    })
}

/// Somebody invents ten thousand machines.
pub(super) fn the_books_are_bounded() -> Result<(), String> {
    let mut pair = Pair::new(&[50_000], Expect::default());
    pair.play(3000, |pair| pair.reports.len() > 1);
    let genuine = pair
        .reports
        .last()
        .cloned()
        .ok_or("the machine reports nothing")?;
    let (_, from) = addresses();
    for number in 0..20_000_u64 {
        let mut report = genuine[..genuine.len() - 4].to_vec();
        report[RECEIVER_AT..RECEIVER_AT + 8].copy_from_slice(&(number << 8).to_be_bytes());
        pair.sender.handle_datagram(pair.now, from, &sealed(report));
    }
    let known = pair.sender.receivers(pair.now).len();
    promise(known <= 16_384, || {
        format!("{known} machines are in the books")
    })
}

/// Somebody opens every block with one symbol of each.
pub(super) fn open_blocks_are_bounded() -> Result<(), String> {
    let blocks = [2 << 20; 40];
    let mut pair = Pair::new(&blocks, Expect::default());
    pair.play(3000, Pair::has_begun);
    promise(pair.has_begun(), || "the machine did not begin".to_owned())?;
    for block in 0..blocks.len() as u32 {
        pair.inject(&data(SESSION, block, block, 0, &[1; SYMBOL as usize]));
    }
    let held = pair.receiver.held_bytes();
    promise(held <= HELD_MAX, || format!("{held} bytes are held"))
}

/// Reports that were overtaken on the way arrive after the last one.
pub(super) fn what_is_had_stays_had() -> Result<(), String> {
    let mut pair = Pair::new(&[50_000; 8], Expect::default());
    let done = |pair: &Pair| {
        let books = pair.sender.receivers(pair.now);
        books
            .first()
            .is_some_and(|machine| machine.phase == Phase::Done)
    };
    pair.play(20_000, done);
    promise(done(&pair), || "the machine is never done".to_owned())?;
    let (_, from) = addresses();
    for report in pair.reports.clone() {
        pair.sender.handle_datagram(pair.now, from, &report);
        promise(done(&pair), || {
            "a machine that is done is not done any more".to_owned()
        })?;
    }
    Ok(())
}

/// The sender of another key, with the number of our session, says that the session is over.
pub(super) fn a_stranger_ends_nothing() -> Result<(), String> {
    let mut pair = Pair::new(&[500_000], Expect::default());
    pair.play(3000, Pair::has_begun);
    let mut stranger = sender(SESSION, 2, &[500_000]);
    let mut now = Instant::ZERO;
    let mut over = false;
    // It has announced more often than ours, so that it is news.
    for _ in 0..60_000 {
        now = now.after(Duration::from_millis(1));
        if !over && now >= Instant::ZERO.after(Duration::from_secs(50)) {
            stranger.end(now);
            over = true;
        }
        stranger.handle_timeout(now);
        while stranger.poll_event().is_some() {}
        let mut datagram = Vec::new();
        if stranger.poll_transmit(now, &mut datagram).is_some() && over {
            pair.inject(&datagram);
        }
    }
    let failed = pair
        .events
        .iter()
        .find(|event| matches!(event, ReceiverEvent::Failed(_)));
    promise(failed.is_none(), || format!("{failed:?}"))
}

/// A report of long ago says "all of it", when nearly all of it has been sent since.
pub(super) fn nothing_is_repaired_twice() -> Result<(), String> {
    let symbols = 400;
    let mut pair = Pair::new(&[symbols * u32::from(SYMBOL)], Expect::default());
    let receiving = |report: &&Vec<u8>| report[1] == RECEIVING;
    pair.play(5000, |pair| {
        pair.reports.iter().any(|report| receiving(&report))
    });
    let early = pair
        .reports
        .iter()
        .find(receiving)
        .cloned()
        .ok_or("nothing is reported")?;
    let sent =
        |pair: &Pair| pair.sender.stats().source_symbols + pair.sender.stats().repair_symbols;
    let before = sent(&pair);
    pair.play(5000, |pair| {
        sent(pair) - before >= u64::from(symbols) * 9 / 10
    });
    // It arrives last, so that its order is no reason to ignore it.
    let mut report = early[..early.len() - 4].to_vec();
    report[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&1_000_000_u32.to_be_bytes());
    let (_, from) = addresses();
    let before = sent(&pair);
    pair.sender.handle_datagram(pair.now, from, &sealed(report));
    for _ in 0..2 * symbols {
        pair.sender.poll_transmit(pair.now, &mut Vec::new());
    }
    let again = sent(&pair) - before;
    promise(again < u64::from(symbols) / 2, || {
        format!("{again} symbols are sent again")
    })
}

/// A sequence number from the far future.
pub(super) fn a_jump_is_not_loss() -> Result<(), String> {
    let mut pair = Pair::new(&[200_000], Expect::default());
    pair.play(3000, Pair::has_begun);
    let before = pair.receiver.stats().lost;
    pair.inject(&data(SESSION, 1 << 29, 0, 3, &[1; SYMBOL as usize]));
    let lost = pair.receiver.stats().lost - before;
    promise(lost < 1 << 21, || format!("{lost} datagrams count as lost"))
}

/// A session whose symbols are so small that a block has more of them than can be numbered.
pub(super) fn tiny_symbols_are_refused() -> Result<(), String> {
    let mut machine = receiver(Expect::default());
    let announce = Announce {
        session: SESSION,
        sequence: 0,
        number: 1,
        started: false,
        ended: false,
        verify_key: key(1).verify_key(),
        reply_to: None,
        object_id: ObjectId([1; 32]),
        preamble_bytes: 100,
        symbol_bytes: 2,
        interval_millis: 20,
        receivers: 0,
        served: Vec::new(),
        acked: Vec::new(),
    };
    let mut datagram = Vec::new();
    announce.pack(&key(1), &mut datagram);
    let (from, _) = addresses();
    machine.handle_datagram(Instant::ZERO, from, &datagram);
    let heard = machine.poll_event();
    promise(heard.is_none(), || format!("{heard:?}"))
}

/// Symbols that are too short fill a block.
pub(super) fn short_symbols_build_nothing() -> Result<(), String> {
    let mut pair = Pair::new(&[10 * u32::from(SYMBOL)], Expect::default());
    pair.play(3000, Pair::has_begun);
    for symbol in 0..10 {
        let short = [9; SYMBOL as usize - 2];
        pair.inject(&data(SESSION, u32::from(symbol), 0, symbol, &short));
    }
    let built = pair
        .events
        .iter()
        .any(|event| matches!(event, ReceiverEvent::Block { .. }));
    promise(!built, || "a block is built of them".to_owned())
}

/// A room of two, and a third to which one datagram of a thousand comes.
pub(super) fn nobody_waits_for_a_laggard() -> Result<(), String> {
    let mut two = Crowd::uniform(8, 2, 0.01).with_blocks(32);
    two.rate_bits = 80_000_000;
    let alone = play(&two).last();
    let others = play(&two.with_a_laggard(0.999).until(2)).last_of(2);
    let bound = alone.map(|alone| alone.mul_f64(1.1));
    promise(others.is_some() && others <= bound, || {
        format!(
            "two machines take {others:?} beside a third that is nearly cut off, {alone:?} without it"
        )
    })
}
