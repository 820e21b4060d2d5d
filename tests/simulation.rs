//! The transfer on a bad day, three hundred times.
//!
//! A seed that fails is printed with the command that plays it again:
//!
//! ```text
//! NETFLASH_SEED=1234 cargo test -p tests --test simulation one_seed -- --nocapture
//! ```
//!
//! `NETFLASH_SEEDS=first..last` plays another range.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netflash_multicast::Sabotage;
use tests::sim::{
    Bottleneck, Check, Crowd, CrowdOutcome, Fault, Scenario, Seat, expected_max, play, run,
};

/// Seeds of an ordinary run.
const SEEDS: std::ops::Range<u64> = 0..300;
/// Every kind of fault must have been in so many of them.
const COVERAGE_MIN: usize = 20;

fn again(seed: u64) -> String {
    format!("NETFLASH_SEED={seed} cargo test -p tests --test simulation one_seed -- --nocapture")
}

/// Plays `scenarios` on all cores; what failed, by seed.
fn play_all(scenarios: &[Scenario]) -> BTreeMap<u64, String> {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(scenario) = scenarios.get(at) else {
                        break;
                    };
                    let outcome = run(scenario);
                    if !outcome.violations.is_empty() {
                        let mut failed = failed.lock().expect("no thread panics with it");
                        failed.insert(scenario.seed, outcome.story());
                    }
                }
            });
        }
    });
    failed.into_inner().expect("all threads are done")
}

fn assert_none(failed: &BTreeMap<u64, String>, of: usize) {
    let stories: Vec<String> = failed
        .iter()
        .map(|(seed, story)| format!("{}\n{story}", again(*seed)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {of} seeds fail:\n{}",
        failed.len(),
        stories.join("\n")
    );
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("NETFLASH_SEEDS") else {
        return SEEDS;
    };
    let parsed = text
        .split_once("..")
        .and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("NETFLASH_SEEDS={text}: not like 0..300"))
}

#[test]
fn every_promise_holds_on_every_bad_day() {
    let seeds = seeds();
    println!("seeds {seeds:?}");
    let whole = seeds.end - seeds.start >= SEEDS.end;
    let scenarios: Vec<Scenario> = seeds.map(Scenario::from_seed).collect();
    println!("{:<16} seeds", "fault");
    for fault in Fault::ALL {
        let count = scenarios
            .iter()
            .filter(|scenario| scenario.faults.contains(&fault))
            .count();
        println!("{:<16} {count}", format!("{fault:?}"));
        assert!(
            count >= COVERAGE_MIN || !whole,
            "{fault:?} is in {count} seeds only"
        );
    }
    let sealed = scenarios.iter().filter(|scenario| scenario.sealed);
    let (sealed, insiders) = sealed.fold((0, 0), |(sealed, insiders), scenario| {
        let insider = scenario.faults.contains(&Fault::Hostile);
        (sealed + 1, insiders + usize::from(insider))
    });
    println!("sealed: {sealed}, with an insider: {insiders}");
    assert!(insiders >= COVERAGE_MIN || !whole, "{insiders} insiders");
    let largest = scenarios
        .iter()
        .map(|scenario| scenario.machines.len())
        .max();
    println!("machines in the largest room: {}", largest.unwrap_or(0));
    assert_none(&play_all(&scenarios), scenarios.len());
}

#[test]
fn every_fault_alone_is_survived() {
    let alone = |fault| (0..4).map(move |seed| Scenario::with(9000 + seed, 3, &[fault]));
    for fault in Fault::ALL {
        for scenario in alone(fault) {
            let outcome = run(&scenario);
            let story = outcome.story();
            assert!(
                story.is_empty(),
                "only {fault:?}, seed {}:\n{story}",
                scenario.seed
            );
        }
    }
}

#[test]
fn what_an_insider_seals_is_opened_and_only_found_wrong_afterwards() {
    let rooms = || {
        (0..16).map(|seed| Scenario {
            sealed: true,
            preamble_bytes: 5000,
            ..Scenario::with(9100 + seed, 3, &[Fault::Hostile, Fault::Loss])
        })
    };
    for scenario in rooms() {
        assert_eq!(run(&scenario).story(), "", "seed {}", scenario.seed);
    }
    // Nobody else could have sealed what a sink gets now.
    let _gone = Sabotage::remove("preamble_hash");
    let reaches_a_sink = rooms().any(|scenario| {
        let violations = run(&scenario).violations;
        violations
            .iter()
            .any(|violation| violation.check == Check::SinksGetOnlyTruth)
    });
    assert!(reaches_a_sink, "nothing that he sealed was opened");
}

#[test]
fn a_room_of_a_hundred_machines_with_loss_is_done() {
    let scenario = Scenario::with(100, 100, &[Fault::Loss]);
    let outcome = run(&scenario);
    assert_eq!(outcome.story(), "");
    assert_eq!(outcome.complete, 100);
}

#[test]
fn the_same_seed_plays_the_same_run() {
    for seed in [3, 14] {
        let text = || format!("{:?}", run(&Scenario::from_seed(seed)));
        assert_eq!(text(), text(), "{}", again(seed));
    }
}

/// Symbols sent for each that the unluckiest machine must be expected to need.
fn excess(outcome: &CrowdOutcome, machines: usize, loss: f64) -> f64 {
    let expected = |&(count, k): &(u32, u16)| {
        f64::from(count) * expected_max(machines as i32, loss, u32::from(k))
    };
    outcome.sent_symbols as f64 / outcome.blocks.iter().map(expected).sum::<f64>()
}

#[test]
fn a_crowd_costs_hardly_more_than_its_unluckiest_machine() {
    for (machines, loss, blocks) in [(1, 0.05, 64), (8, 0.2, 48), (100, 0.01, 24)] {
        let outcome = play(&Crowd::uniform(1, machines, loss).with_blocks(blocks));
        assert_eq!((outcome.complete(), outcome.lost), (machines, 0));
        let excess = excess(&outcome, machines, loss);
        println!("{machines} machines, loss {loss}: {excess:.4} of what is expected");
        assert!(
            excess <= 1.01,
            "{excess} with {machines} machines, loss {loss}"
        );
    }
}

#[test]
fn a_large_room_is_done_as_soon_as_one_machine() {
    let room = |machines| play(&Crowd::uniform(2, machines, 0.05).with_blocks(20));
    let (alone, crowd) = (room(1), room(400));
    let seconds = |outcome: &CrowdOutcome| outcome.last().expect("all are done").as_secs_f64();
    let (one, all) = (seconds(&alone), seconds(&crowd));
    let feedback = crowd.feedback_ratio();
    println!("one {one:.3} s, four hundred {all:.3} s, feedback {feedback:.5}");
    assert!(all <= 1.15 * one, "{all} s for all, {one} s for one");
    assert!(feedback <= 0.01, "{feedback}");
}

#[test]
fn nobody_waits_for_a_machine_that_loses_a_third_or_for_a_slow_disk() {
    let usual = Crowd::uniform(3, 30, 0.01).with_blocks(64);
    let mut mixed = usual.clone();
    let seat = usual.seats[0].clone();
    mixed.seats.push(Seat {
        loss: 0.3,
        ..seat.clone()
    });
    mixed.seats.push(Seat {
        disk: Some(usual.rate_bits / 80),
        ..seat
    });
    let (without, with) = (play(&usual), play(&mixed));
    let others = with.complete_after[..usual.seats.len()].iter().copied();
    let others: Option<Duration> = others.max().flatten();
    let (without, others) = (without.last(), others);
    println!(
        "{without:?} without the two, {others:?} with them, {:?} they",
        with.last()
    );
    let bound = without.map(|without| without.mul_f64(1.1));
    assert!(
        others.is_some() && others <= bound,
        "{others:?}, {without:?} without the two"
    );
    assert_eq!(with.complete(), mixed.seats.len());
}

#[test]
fn nobody_of_a_small_room_waits_for_a_machine_that_is_nearly_cut_off() {
    let mut bad = Vec::new();
    // The slower the session, the more of it a machine can ask for that never has enough.
    let rooms = [
        (1, 1000),
        (2, 1000),
        (3, 1000),
        (7, 1000),
        (1, 80),
        (2, 80),
        (7, 80),
    ];
    for (others, megabits) in rooms {
        let mut room =
            Crowd::uniform(6, others, 0.01).with_blocks(if megabits < 1000 { 32 } else { 48 });
        room.rate_bits = megabits * 1_000_000;
        let without = play(&room).last().expect("a good room is done");
        for loss in [0.3, 0.9, 0.999] {
            let with = play(&room.clone().with_a_laggard(loss).until(others)).last_of(others);
            let factor = with.map_or(f64::INFINITY, |with| with.div_duration_f64(without));
            println!(
                "{others} at {megabits} Mbit/s and one that loses {loss}: {factor:.3} of the time without it"
            );
            if factor > 1.1 {
                bad.push((others, megabits, loss, factor));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn whoever_loses_a_third_in_a_small_room_is_served_in_the_end() {
    for (others, loss) in [(1, 0.3), (3, 0.3), (1, 0.9)] {
        let room = Crowd::uniform(7, others, 0.01)
            .with_blocks(24)
            .with_a_laggard(loss);
        let outcome = play(&room);
        println!(
            "{others} and one that loses {loss}: {:?}",
            outcome.complete_after
        );
        assert_eq!((outcome.complete(), outcome.lost), (others + 1, 0));
    }
}

#[test]
fn half_of_a_room_that_loses_a_fifth_is_served_as_the_room() {
    let mut room = Crowd::uniform(8, 4, 0.0).with_blocks(32);
    room.seats[..2].iter_mut().for_each(|seat| seat.loss = 0.2);
    let outcome = play(&room);
    let (half, all) = (outcome.complete_after[2], outcome.last());
    println!(
        "half after {half:?}, all after {all:?}, {:.3} sent",
        outcome.wire_ratio()
    );
    assert!(outcome.wire_ratio() < 1.32 && all.is_some(), "{outcome:?}");
}

#[test]
fn steady_loss_of_all_does_not_collapse_the_automatic_rate() {
    for loss in [0.0, 0.2] {
        let room = Crowd::uniform(9, 20, loss).with_blocks(192);
        let outcome = play(&room.automatic(None));
        let settled = outcome.settled_rate() / 1e6;
        println!(
            "loss {loss}: {settled:.0} Mbit/s of 1000, {:?}",
            outcome.last()
        );
        assert_eq!(outcome.complete(), 20);
        assert!(settled >= 900.0, "{settled} Mbit/s, {:?}", outcome.rates);
    }
}

#[test]
fn the_automatic_rate_finds_a_place_of_a_tenth_of_the_link() {
    let narrow = Bottleneck {
        bits: 100_000_000,
        buffer_bytes: 512 << 10,
    };
    for loss in [0.0, 0.2] {
        let room = Crowd::uniform(10, 8, loss).with_blocks(48);
        let outcome = play(&room.automatic(Some(narrow)));
        let settled = outcome.settled_rate() / 1e6;
        println!(
            "loss {loss}: {settled:.0} Mbit/s of 100, {:?}",
            outcome.last()
        );
        assert_eq!(outcome.complete(), 8);
        assert!(
            (85.0..=105.0).contains(&settled),
            "{settled} Mbit/s, {:?}",
            outcome.rates
        );
    }
}

#[test]
fn the_automatic_rate_follows_the_disks_of_a_room_and_not_one_of_them() {
    let seconds = |slow: std::ops::Range<usize>| {
        let mut room = Crowd::uniform(11, 4, 0.001).with_blocks(160);
        for seat in &mut room.seats[slow] {
            seat.disk = Some(room.rate_bits / 8 / 10);
        }
        let outcome = play(&room.automatic(None).until(3));
        let last = outcome
            .last_of(3)
            .expect("three are complete")
            .as_secs_f64();
        println!(
            "three of four after {last:.3} s; Mbit/s: {:?}",
            megabits(&outcome)
        );
        last
    };
    let (none, one, all) = (seconds(0..0), seconds(3..4), seconds(0..4));
    assert!(
        one <= 1.1 * none,
        "{one} s beside a slow disk, {none} s without"
    );
    // Ten times as long as a block takes its disk, and no longer: what is too much is not sent.
    assert!((0.9..=1.3).contains(&(all / 18.6)), "{all} s");
}

/// The rate at the end of each second.
fn megabits(outcome: &CrowdOutcome) -> Vec<u64> {
    let seconds = outcome.rates.chunks(10).filter_map(|second| second.last());
    seconds.map(|bits| bits / 1_000_000).collect()
}

#[test]
fn a_motley_crowd_is_done() {
    let crowd = Crowd::motley(4, 120).with_blocks(12);
    let outcome = play(&crowd);
    assert_eq!(outcome.complete(), 120);
    assert!(
        outcome.feedback_ratio() <= 0.01,
        "{}",
        outcome.feedback_ratio()
    );
    let again = play(&crowd);
    assert_eq!(
        format!("{outcome:?}"),
        format!("{again:?}"),
        "from the same seed"
    );
}

/// Plays `NETFLASH_SEED` and tells all about it; seed 0 and only the verdict, when there is none.
#[test]
fn one_seed() {
    let asked = std::env::var("NETFLASH_SEED").ok();
    let seed = asked.as_ref().map_or(0, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("NETFLASH_SEED={text}: not a number"))
    });
    let scenario = Scenario::from_seed(seed);
    let outcome = run(&scenario);
    if asked.is_some() {
        println!("{scenario:#?}\n{outcome:#?}");
    }
    assert_eq!(outcome.story(), "", "{}", again(seed));
}
