//! Sabotage: each guard is taken away in turn, and a promise with a name must break.
//!
//! A guard whose removal nobody notices guards nothing, and a promise that survives every removal
//! promises nothing. Without sabotage every proof passes first, on the same seeds.

#[path = "sabotage/room.rs"]
mod room;
#[path = "sabotage/sealed.rs"]
mod sealed;
#[path = "sabotage/single.rs"]
mod single;

use netflash_multicast::{GUARDS, Guard, Sabotage};
use tests::sim::{Check, Fault, Scenario, run};

/// How a guard's work is proved.
enum Proof {
    /// Rooms of so many machines with these faults keep this promise of the simulator.
    Room(Check, usize, &'static [Fault]),
    /// One promise, proved directly: its name, and what breaks it.
    Single(&'static str, fn() -> Result<(), String>),
}

use Proof::{Room, Single};

/// Seeds a room is played with, until the promise breaks.
const SEEDS: u64 = 24;

/// One line for each guard.
const CASES: &[(&str, Proof)] = &[
    (
        "announce_key",
        Single("a_stranger_ends_nothing", single::a_stranger_ends_nothing),
    ),
    (
        "announce_signature",
        Room(Check::OnlyTheRightSessionIsJoined, 3, &[Fault::Hostile]),
    ),
    (
        "block_bounds",
        Room(Check::NothingPanics, 3, &[Fault::Hostile]),
    ),
    ("crc", Room(Check::SinksGetOnlyTruth, 3, &[Fault::Corrupt])),
    (
        "deficit_as_of",
        Single(
            "nothing_is_repaired_twice",
            single::nothing_is_repaired_twice,
        ),
    ),
    (
        "done_ack",
        Room(Check::DoneIsAcknowledged, 3, &[Fault::ReportLoss]),
    ),
    (
        "duplicate_symbol",
        Room(Check::SessionEnds, 3, &[Fault::Duplicate, Fault::Loss]),
    ),
    (
        "early_bound",
        Single("early_datagrams_are_few", single::early_datagrams_are_few),
    ),
    (
        "expected_key",
        Single(
            "only_the_given_key_is_joined",
            single::only_the_given_key_is_joined,
        ),
    ),
    (
        "expected_object",
        Single(
            "only_the_given_object_is_joined",
            single::only_the_given_object_is_joined,
        ),
    ),
    (
        "expected_session",
        Single(
            "only_the_given_session_is_joined",
            single::only_the_given_session_is_joined,
        ),
    ),
    (
        "feedback_session",
        Single(
            "reports_of_others_are_not_heard",
            single::reports_of_others_are_not_heard,
        ),
    ),
    (
        "laggard",
        Single(
            "nobody_waits_for_a_laggard",
            single::nobody_waits_for_a_laggard,
        ),
    ),
    (
        "machine_starts",
        Single(
            "a_machine_takes_little_room",
            sealed::a_machine_takes_little_room,
        ),
    ),
    (
        "machine_table",
        Single("the_books_are_bounded", single::the_books_are_bounded),
    ),
    (
        "max_open",
        Single("open_blocks_are_bounded", single::open_blocks_are_bounded),
    ),
    (
        "nonce_end",
        Single("no_number_seals_twice", sealed::no_number_seals_twice),
    ),
    (
        "payload_verdict",
        Room(Check::ContentIsRight, 3, &[Fault::BadReadBack]),
    ),
    (
        "preamble_hash",
        Room(Check::SinksGetOnlyTruth, 3, &[Fault::Hostile]),
    ),
    (
        "reply_address",
        Single("reports_go_to_the_sender", sealed::reports_go_to_the_sender),
    ),
    (
        "report_echo",
        Single(
            "a_recording_revives_nobody",
            sealed::a_recording_revives_nobody,
        ),
    ),
    (
        "report_order",
        Single("what_is_had_stays_had", single::what_is_had_stays_had),
    ),
    (
        "sealed_data",
        Single(
            "what_no_key_sealed_builds_nothing",
            sealed::what_no_key_sealed_builds_nothing,
        ),
    ),
    (
        "sequence_jump",
        Single("a_jump_is_not_loss", single::a_jump_is_not_loss),
    ),
    (
        "session",
        Room(Check::SinksGetOnlyTruth, 3, &[Fault::ForeignSession]),
    ),
    ("silence", Room(Check::NobodyAliveIsGivenUp, 3, &[])),
    (
        "sink_room",
        Room(Check::FullSinksAreLeftAlone, 2, &[Fault::SlowDisk]),
    ),
    (
        "symbol_bytes",
        Single("tiny_symbols_are_refused", single::tiny_symbols_are_refused),
    ),
    (
        "symbol_size",
        Single(
            "short_symbols_build_nothing",
            single::short_symbols_build_nothing,
        ),
    ),
    (
        "unsealed_announce",
        Single(
            "a_key_joins_no_open_session",
            sealed::a_key_joins_no_open_session,
        ),
    ),
    (
        "unsealed_data",
        Single(
            "what_is_not_sealed_builds_nothing",
            sealed::what_is_not_sealed_builds_nothing,
        ),
    ),
    (
        "unsealed_report",
        Single(
            "open_reports_are_not_heard",
            sealed::open_reports_are_not_heard,
        ),
    ),
    (
        "wanted_filter",
        Room(
            Check::SinksGetOnlyWhatTheyWant,
            4,
            &[Fault::HalfDone, Fault::LateJoin],
        ),
    ),
    (
        "wanted_union",
        Room(Check::ResumeIsCheap, 1, &[Fault::HalfDone]),
    ),
    (
        "welcome",
        Single(
            "a_recording_is_not_received",
            sealed::a_recording_is_not_received,
        ),
    ),
];

fn scenarios(machines: usize, faults: &[Fault]) -> impl Iterator<Item = Scenario> {
    (0..SEEDS).map(move |seed| {
        let mut scenario = Scenario::with(7000 + seed, machines, faults);
        scenario.wait_for = machines as u32;
        scenario
    })
}

/// What breaks without sabotage.
fn whole(proof: &Proof) -> Result<(), String> {
    match proof {
        Single(_, proof) => proof(),
        Room(_, machines, faults) => scenarios(*machines, faults).try_for_each(|scenario| {
            let story = run(&scenario).story();
            if story.is_empty() {
                Ok(())
            } else {
                Err(format!("seed {}: {story}", scenario.seed))
            }
        }),
    }
}

/// Takes the guard away; the promise that broke, or an error when none did.
fn sabotaged(guard: &'static str, proof: &Proof) -> Result<String, String> {
    let _gone = Sabotage::remove(guard);
    match proof {
        Single(name, proof) => match proof() {
            Err(how) => Ok(format!("{name}: {how}")),
            Ok(()) => Err(format!("{name} holds without it")),
        },
        Room(check, machines, faults) => {
            let mut others = Vec::new();
            for scenario in scenarios(*machines, faults) {
                let outcome = run(&scenario);
                let hit = outcome
                    .violations
                    .iter()
                    .find(|violation| violation.check == *check);
                if let Some(hit) = hit {
                    return Ok(hit.to_string());
                }
                others.extend(outcome.violations.iter().map(|violation| violation.check));
            }
            others.dedup();
            Err(format!(
                "{check:?} holds without it; broken were {others:?}"
            ))
        }
    }
}

#[test]
fn every_guard_is_missed_by_the_promise_it_keeps() {
    let mut bad = Vec::new();
    for (guard, proof) in CASES {
        if let Err(how) = whole(proof) {
            bad.push(format!("{guard}: with every guard in place: {how}"));
            continue;
        }
        match sabotaged(guard, proof) {
            Ok(red) => println!("{guard:<20} red: {red}"),
            Err(how) => bad.push(format!("{guard}: {how}")),
        }
    }
    assert!(CASES.len() >= 12);
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_guard_has_a_case() {
    let mut cases: Vec<&str> = CASES.iter().map(|(guard, _)| *guard).collect();
    cases.sort_unstable();
    let mut guards: Vec<&str> = GUARDS.iter().map(|guard| guard.name).collect();
    guards.sort_unstable();
    assert_eq!(cases, guards);
}

/// The row of a guard in `docs/PROTOCOL.md`: what it is called, what happens without it, and what sees that.
fn row(guard: &Guard, proof: &Proof) -> String {
    let seen_by = match proof {
        Single(name, _) => format!("`{name}`"),
        Room(check, machines, faults) => {
            let faults: Vec<String> = faults.iter().map(|fault| format!("{fault:?}")).collect();
            let with = if faults.is_empty() {
                String::new()
            } else {
                format!(", {}", faults.join(", "))
            };
            format!("`{check:?}` in rooms of {machines}{with}")
        }
    };
    format!("| `{}` | {} | {seen_by} |", guard.name, guard.without)
}

#[test]
fn the_protocol_has_every_guard_with_its_fault_and_its_test() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let written: Vec<&str> = page
        .lines()
        .skip_while(|line| *line != "## Guards")
        .filter(|line| line.starts_with("| `"))
        .collect();
    let proof = |name| CASES.iter().find(|(guard, _)| *guard == name);
    let true_rows: Vec<String> = GUARDS
        .iter()
        .filter_map(|guard| proof(guard.name).map(|(_, proof)| row(guard, proof)))
        .collect();
    assert!(
        written == true_rows,
        "below \"## Guards\" in docs/PROTOCOL.md there must be these rows and no others:\n{}",
        true_rows.join("\n")
    );
}
