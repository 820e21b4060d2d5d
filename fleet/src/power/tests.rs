//! Drivers against real programs and a socket that speaks QMP.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use super::{PowerAction, PowerOutcome, PowerState, PowerTarget, Words, act_on_all};
use crate::config::PowerProfile;

fn words(template: &str) -> Vec<String> {
    template.split(' ').map(str::to_owned).collect()
}

fn target(name: &str, power: &str) -> PowerTarget {
    PowerTarget {
        name: name.to_owned(),
        mac: "52:54:00:00:00:01".to_owned(),
        power: Some(power.to_owned()),
    }
}

fn shell(
    on: &str,
    off: &str,
    status: &str,
    deadline_seconds: u64,
) -> BTreeMap<String, PowerProfile> {
    let sh = |script: &str| {
        vec![
            "sh".to_owned(),
            "-c".to_owned(),
            script.to_owned(),
            "{address}".to_owned(),
        ]
    };
    let profile = PowerProfile::Command {
        on: sh(on),
        off: sh(off),
        cycle: Vec::new(),
        status: sh(status),
        deadline_seconds,
    };
    BTreeMap::from([("plug".to_owned(), profile)])
}

#[test]
fn placeholders_are_filled_once() {
    let words_of = Words {
        name: "{address}",
        address: "a b",
        mac: "m",
    };
    assert_eq!(
        words_of.fill(&words("x{name}y {address}{mac} {other} {")),
        ["x{address}y", "a bm", "{other}", "{"]
    );
}

#[test]
fn commands_switch_and_the_state_is_read_back() {
    let scratch = tempfile::tempdir().unwrap();
    let lamp = scratch.path().join("lamp");
    let profiles = shell(
        "touch $0",
        "rm -f $0",
        "test -e $0 && echo on || echo off",
        5,
    );
    let targets = [target("a", &format!("plug:{}", lamp.display()))];
    let state = |action| act_on_all(&profiles, &targets, action)[0].state;
    assert_eq!(state(PowerAction::Status), Some(PowerState::Off));
    assert_eq!(state(PowerAction::On), Some(PowerState::On));
    assert!(lamp.exists());
    fs::write(&lamp, "marked").unwrap();
    assert_eq!(state(PowerAction::Cycle), Some(PowerState::On));
    assert_eq!(
        fs::read(&lamp).unwrap(),
        b"",
        "a cycle without its own command is off, then on"
    );
    assert_eq!(state(PowerAction::Off), Some(PowerState::Off));
}

#[test]
fn an_order_that_has_no_effect_is_not_success() {
    let profiles = shell("true", "true", "echo off", 1);
    let outcome = &act_on_all(&profiles, &[target("a", "plug:x")], PowerAction::On)[0];
    assert_eq!(
        outcome.error.as_deref(),
        Some("accepted, but not on after 1 s")
    );
}

#[test]
fn a_program_that_hangs_is_ended_and_the_others_go_on() {
    let mut profiles = shell("true", "true", "sleep 60", 1);
    let quick = shell("true", "true", "echo on", 5);
    profiles.insert("quick".to_owned(), quick["plug"].clone());
    let begun = Instant::now();
    let outcomes: Vec<PowerOutcome> = act_on_all(
        &profiles,
        &[target("slow", "plug:x"), target("b", "quick:x")],
        PowerAction::Status,
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(
        outcomes[0]
            .error
            .as_deref()
            .is_some_and(|text| text.contains("no end after 1 s"))
    );
    assert_eq!(outcomes[1].state, Some(PowerState::On));
}

#[test]
fn a_machine_without_power_setting_or_profile_says_so() {
    let nothing = PowerTarget {
        power: None,
        ..target("a", "")
    };
    let outcomes = act_on_all(
        &BTreeMap::new(),
        &[nothing, target("b", "magic:x")],
        PowerAction::On,
    );
    assert!(
        outcomes[0]
            .error
            .as_deref()
            .is_some_and(|text| text.contains("no power setting"))
    );
    assert!(
        outcomes[1]
            .error
            .as_deref()
            .is_some_and(|text| text.contains("magic"))
    );
}

/// A socket that answers like QEMU until it is told to quit, with an event in between.
fn qmp_socket(path: &std::path::Path) -> thread::JoinHandle<Vec<String>> {
    let listener = UnixListener::bind(path).unwrap();
    let path = path.to_owned();
    thread::spawn(move || {
        let mut commands = Vec::new();
        loop {
            let (stream, _) = listener.accept().unwrap();
            let mut writer = stream.try_clone().unwrap();
            writeln!(
                writer,
                r#"{{"QMP": {{"version": {{}}, "capabilities": []}}}}"#
            )
            .unwrap();
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { break };
                let request: serde_json::Value = serde_json::from_str(&line).unwrap();
                let command = request["execute"].as_str().unwrap().to_owned();
                writeln!(
                    writer,
                    r#"{{"event": "NIC_RX_FILTER_CHANGED", "data": {{}}}}"#
                )
                .unwrap();
                let answer = match command.as_str() {
                    "query-status" => r#"{"return": {"status": "running", "running": true}}"#,
                    "qmp_capabilities" | "system_reset" | "quit" => r#"{"return": {}}"#,
                    _ => r#"{"error": {"class": "CommandNotFound", "desc": "what?"}}"#,
                };
                writeln!(writer, "{answer}").unwrap();
                let over = command == "quit";
                commands.push(command);
                if over {
                    fs::remove_file(&path).unwrap();
                    return commands;
                }
            }
        }
    })
}

#[test]
fn qmp_resets_ends_and_sees_that_the_machine_is_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let socket = scratch.path().join("qmp");
    let server = qmp_socket(&socket);
    let targets = [target("vm", &format!("qmp:{}", socket.display()))];
    let act = |action| act_on_all(&BTreeMap::new(), &targets, action)[0].clone();
    assert_eq!(act(PowerAction::Status).state, Some(PowerState::On));
    assert_eq!(act(PowerAction::Cycle).state, Some(PowerState::On));
    assert_eq!(act(PowerAction::Off).state, Some(PowerState::Off));
    let commands = server.join().unwrap();
    assert!(
        commands.contains(&"system_reset".to_owned()) && commands.ends_with(&["quit".to_owned()])
    );
    let on = act(PowerAction::On);
    assert!(
        on.error
            .is_some_and(|text| text.contains("no start command"))
    );
}
