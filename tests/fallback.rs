//! Multicast that does not pass: the machines say in which way, fetch over HTTP what lacks, and harm nobody.
//!
//! The wall is nftables in the bridge, so sender and receivers are the programs an operator runs.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    lab::inside,
    net::{Blocked, Ended, Hall, Payload, Program, Wall, differing_mebibytes, wait_while},
};

#[path = "fallback/snooping.rs"]
mod snooping;

/// Size of the random disk, in MiB.
const MEBIBYTES: usize = 24;
/// How long a transfer of it may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const RECEIVERS: usize = 4;
/// Where the sender answers over HTTP.
const HATCH: &str = "10.78.0.1:9079";
/// How long a receiver waits for multicast before it tries the hatch: longer than the sender may take to start.
const PATIENCE: &str = "8s";

/// Four machines that may go over HTTP, their disks, and the sender.
struct Room {
    _directory: tempfile::TempDir,
    payload: Payload,
    hall: Hall,
    disks: Vec<PathBuf>,
    receivers: Vec<Program>,
    sender: Program,
}

impl Room {
    /// A room with `wall` in front of `blocked` from the start; everybody is started.
    fn start(blocked: &[&str], wall: Blocked, rate: &str) -> Result<(Room, Option<Wall>)> {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), MEBIBYTES)?;
        let hall = Hall::build(RECEIVERS, 0.0)?;
        let wall = match blocked {
            [] => None,
            some => Some(Wall::build(some, wall)?),
        };
        // First: it announces while it waits, and the receivers' patience begins with them.
        let count = RECEIVERS.to_string();
        let options = [
            "--receivers",
            &count,
            "--rate",
            rate,
            "--http",
            HATCH,
            "--http-rate",
            "80M",
        ];
        let sender = payload.send(hall.sender(), &options)?;
        let (mut disks, mut receivers) = (Vec::new(), Vec::new());
        for name in hall.receivers() {
            let disk = directory.path().join(format!("{name}.raw"));
            let options = ["--http", HATCH, "--patience", PATIENCE];
            receivers.push(payload.receive(&name, &disk, &options)?);
            disks.push(disk);
        }
        let room = Room {
            _directory: directory,
            payload,
            hall,
            disks,
            receivers,
            sender,
        };
        Ok((room, wall))
    }

    /// Everybody finishes and every disk is right; why each went over HTTP, and the sender's result.
    fn finish(self) -> Result<(Vec<Option<String>>, Value)> {
        let mut reasons = Vec::new();
        for receiver in self.receivers {
            let result = result_of(&receiver.succeed(LIMIT)?)?;
            reasons.push(result["fallback"]["reason"].as_str().map(str::to_owned));
        }
        let sent = result_of(&self.sender.succeed(LIMIT)?)?;
        for disk in &self.disks {
            self.payload.compare(disk)?;
        }
        let machines = sent["receivers"].as_array().context("receivers")?;
        let verified = machines.iter().filter(|one| one["verified"] == true);
        ensure!(
            verified.count() == RECEIVERS,
            "the sender missed one: {sent}"
        );
        let wire = self.hall.sent()?.bytes as f64 / self.payload.bytes as f64;
        println!(
            "reasons {reasons:?}; sender's interface {wire:.3} x payload, HTTP {}",
            sent["fallback"]
        );
        Ok((reasons, sent))
    }
}

fn result_of(ended: &Ended) -> Result<Value> {
    serde_json::from_str(&ended.stdout).context("reading the result")
}

fn says(reason: Option<&String>, words: &str) -> Result<()> {
    let reason = reason.context("a machine behind the wall gave no reason")?;
    ensure!(
        reason.contains(words),
        "the reason is {reason:?}, not {words:?}"
    );
    Ok(())
}

#[test]
fn one_of_four_that_hears_nothing_gets_everything_and_harms_nobody() -> Result<()> {
    inside(
        "one_of_four_that_hears_nothing_gets_everything_and_harms_nobody",
        || {
            let (room, _wall) = Room::start(&["r4"], Blocked::Multicast, "100M")?;
            let (reasons, sent) = room.finish()?;
            ensure!(reasons[..3].iter().all(Option::is_none), "{reasons:?}");
            says(reasons[3].as_ref(), "no announce heard")?;
            // The three needed each symbol once, and nothing was sent for the fourth.
            let payload = (MEBIBYTES << 20) as f64;
            let wire = sent["wire_bytes"].as_f64().context("wire_bytes")?;
            ensure!(
                wire < payload * 1.08,
                "{wire} bytes were multicast for {payload}"
            );
            Ok(())
        },
    )
}

#[test]
fn a_room_without_multicast_goes_over_http() -> Result<()> {
    inside("a_room_without_multicast_goes_over_http", || {
        let all = ["r1", "r2", "r3", "r4"];
        let (room, _wall) = Room::start(&all, Blocked::Multicast, "100M")?;
        let (reasons, _) = room.finish()?;
        reasons
            .iter()
            .try_for_each(|reason| says(reason.as_ref(), "no announce heard"))
    })
}

#[test]
fn announces_without_data_are_named_as_such() -> Result<()> {
    inside("announces_without_data_are_named_as_such", || {
        let (room, _wall) = Room::start(&["r2"], Blocked::LargeMulticast, "20M")?;
        let (reasons, _) = room.finish()?;
        says(reasons[1].as_ref(), "announces come, but none of")
    })
}

#[test]
fn multicast_that_dies_halfway_is_replaced() -> Result<()> {
    inside("multicast_that_dies_halfway_is_replaced", || {
        let (mut room, _) = Room::start(&[], Blocked::Multicast, "30M")?;
        let (raw, disk) = (room.payload.raw.clone(), room.disks[0].clone());
        wait_while(&mut room.receivers[0], "a third of the disk", LIMIT, || {
            Ok(disk.exists() && differing_mebibytes(&raw, &disk)? <= MEBIBYTES * 2 / 3)
        })?;
        let _wall = Wall::build(&["r1", "r2", "r3", "r4"], Blocked::Multicast)?;
        let (reasons, _) = room.finish()?;
        reasons
            .iter()
            .try_for_each(|reason| says(reason.as_ref(), "multicast stopped after"))
    })
}

#[test]
fn multicast_that_comes_back_is_used_again() -> Result<()> {
    inside("multicast_that_comes_back_is_used_again", || {
        let (mut room, wall) = Room::start(&["r3"], Blocked::Multicast, "10M")?;
        let (raw, disk) = (room.payload.raw.clone(), room.disks[2].clone());
        wait_while(&mut room.receivers[2], "something over HTTP", LIMIT, || {
            Ok(disk.exists() && differing_mebibytes(&raw, &disk)? < MEBIBYTES - 1)
        })?;
        drop(wall);
        let receiver = room.receivers.remove(2);
        let result = result_of(&receiver.succeed(LIMIT)?)?;
        let over_http = result["fallback"]["bytes"].as_u64().context("bytes")?;
        let multicast = result["receivers"][0]["received_bytes"]
            .as_u64()
            .context("bytes")?;
        println!("{over_http} bytes over HTTP, {multicast} by multicast");
        ensure!(over_http > 0 && multicast > 0, "both ways are used");
        room.payload.compare(&disk)
    })
}
