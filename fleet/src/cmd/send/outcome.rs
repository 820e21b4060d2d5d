//! What became of a session: the result in JSON, the table for people, and who is missing from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::bail;
use netflash_multicast::{Phase, ReceiverInfo, SendReport};

use crate::cmd::transfer::{
    FallbackResult, RateChangeResult, ReceiverResult, TransferResult, seconds,
};

/// Prints the result; a machine that did not finish, or was named and never came, makes it a failure.
pub(super) fn finish(
    report: &SendReport,
    image_id: &str,
    named: &BTreeSet<String>,
    over_http: Option<u64>,
    json: bool,
) -> anyhow::Result<()> {
    if json {
        let result = result_of(report, image_id, over_http);
        println!("{}", serde_json::to_string(&result)?);
    } else {
        print_table(report);
        if let Some(bytes) = over_http.filter(|&bytes| bytes > 0) {
            println!("{:.1} MB over HTTP", bytes as f64 / 1e6);
        }
    }
    let unfinished = unfinished(&report.receivers, named);
    if unfinished.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = unfinished.into_iter().collect();
    bail!(
        "{} did not finish: {}",
        machines(names.len()),
        names.join(", ")
    )
}

/// Names of machines that went before they were done and did not come back (under the same name from the same
/// address), or of those that were named and are not done.
fn unfinished<'a>(receivers: &'a [ReceiverInfo], named: &'a BTreeSet<String>) -> BTreeSet<&'a str> {
    let done: BTreeSet<_> = receivers
        .iter()
        .filter(|one| is_done(one))
        .map(identity)
        .collect();
    if !named.is_empty() {
        let finished: BTreeSet<&str> = done.iter().map(|(name, _)| *name).collect();
        let names = named.iter().map(String::as_str);
        return names.filter(|name| !finished.contains(name)).collect();
    }
    let lost = receivers.iter().filter(|one| !is_done(one));
    lost.filter(|one| !done.contains(&identity(one)))
        .map(|one| one.name.as_str())
        .collect()
}

/// The names of `named` that are not among the machines heard.
pub(super) fn missing<'a>(
    named: &'a BTreeSet<String>,
    heard: &BTreeMap<u64, String>,
) -> Vec<&'a str> {
    let heard: BTreeSet<&str> = heard.values().map(String::as_str).collect();
    let names = named.iter().map(String::as_str);
    names.filter(|name| !heard.contains(name)).collect()
}

fn identity(receiver: &ReceiverInfo) -> (&str, IpAddr) {
    (&receiver.name, receiver.address.ip())
}

/// Where the machines are that have everything.
pub(super) fn addresses_done(report: &SendReport) -> Vec<IpAddr> {
    let done = report.receivers.iter().filter(|one| is_done(one));
    done.map(|one| one.address.ip()).collect()
}

pub(super) fn is_done(receiver: &ReceiverInfo) -> bool {
    receiver.phase == Phase::Done
}

fn result_of(report: &SendReport, image_id: &str, over_http: Option<u64>) -> TransferResult {
    let receivers = report.receivers.iter().map(|receiver| ReceiverResult {
        name: receiver.name.clone(),
        seconds: seconds(receiver.took),
        received_bytes: receiver.received_bytes,
        lost_symbols: receiver.lost_symbols,
        verified: is_done(receiver),
    });
    let changes = report.rate_changes.iter().map(|change| RateChangeResult {
        seconds: seconds(change.at),
        bits: change.bits,
        reason: change.reason.to_string(),
    });
    TransferResult {
        image_id: image_id.to_owned(),
        seconds: seconds(report.took),
        wire_bytes: report.wire_bytes,
        datagrams: report.stats.datagrams,
        source_symbols: report.stats.source_symbols,
        repair_symbols: report.stats.repair_symbols,
        rate: Some(report.rate_bits),
        rate_changes: changes.collect(),
        receivers: receivers.collect(),
        fallback: over_http.map(|bytes| FallbackResult {
            reason: None,
            bytes,
        }),
    }
}

fn print_table(report: &SendReport) {
    println!(
        "{:<24} {:>8} {:>12} {:>8}  STATE",
        "MACHINE", "SECONDS", "RECEIVED MB", "LOST"
    );
    for receiver in &report.receivers {
        println!(
            "{:<24} {:>8.1} {:>12.1} {:>8}  {}",
            receiver.name,
            receiver.took.as_secs_f64(),
            receiver.received_bytes as f64 / 1e6,
            receiver.lost_symbols,
            if is_done(receiver) {
                "done"
            } else {
                "unfinished"
            }
        );
    }
    println!(
        "{:.1} MB on the wire in {:.1} s, {} source and {} repair symbols",
        report.wire_bytes as f64 / 1e6,
        report.took.as_secs_f64(),
        report.stats.source_symbols,
        report.stats.repair_symbols
    );
}

/// A number of machines in words.
pub(super) fn machines(count: usize) -> String {
    if count == 1 {
        "1 machine".to_owned()
    } else {
        format!("{count} machines")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn machine(id: u64, name: &str, phase: Phase) -> ReceiverInfo {
        ReceiverInfo {
            id,
            name: name.to_owned(),
            address: ([10, 0, 0, 1], 7).into(),
            phase,
            gone: phase != Phase::Done,
            wanted_blocks: 1,
            done_blocks: 0,
            received_bytes: 0,
            lost_symbols: 0,
            overflow: 0,
            backlog_bytes: 0,
            loss: 0.0,
            took: Duration::ZERO,
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn who_came_back_and_finished_is_not_missed() {
        let receivers = [
            machine(1, "a", Phase::Receiving),
            machine(2, "a", Phase::Done),
            machine(3, "b", Phase::Leaving),
        ];
        assert_eq!(unfinished(&receivers, &BTreeSet::new()), ["b"].into());
    }

    #[test]
    fn only_the_named_are_missed_but_also_when_they_never_came() {
        let receivers = [
            machine(1, "a", Phase::Done),
            machine(3, "stranger", Phase::Leaving),
        ];
        let named = names(&["a", "c"]);
        assert_eq!(unfinished(&receivers, &named), ["c"].into());
        let heard = [(1, "a".to_owned())].into();
        assert_eq!(missing(&named, &heard), ["c"]);
    }
}
