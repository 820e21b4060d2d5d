//! Drivers against real programs and a socket that speaks QMP; ladders and orders.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use super::{
    Failure, Keyring, Login, NextBoot, OrderView, Pin, Plan, PowerAction, PowerAddress, PowerError,
    PowerOutcome, PowerProfile, PowerState, PowerTarget, Switchboard,
};

/// Nobody has entered anything.
struct NoKeys;

impl Keyring for NoKeys {
    fn login(&self, _: &PowerAddress) -> Result<Option<Login>, PowerError> {
        Ok(None)
    }

    fn pin(&self, _: &str) -> Result<Option<Pin>, PowerError> {
        Ok(None)
    }
}

type Profiles = BTreeMap<String, PowerProfile>;

fn target(name: &str, power: &[&str]) -> PowerTarget {
    PowerTarget {
        id: name.bytes().map(i64::from).sum(),
        name: name.to_owned(),
        mac: "52:54:00:00:00:01".to_owned(),
        power: power.iter().map(|power| (*power).to_owned()).collect(),
    }
}

fn plan(action: PowerAction) -> Plan {
    Plan {
        action,
        soft: false,
        boot: NextBoot::Pxe,
        netboot: false,
        within_seconds: 0,
        accept: false,
        parallel: 16,
        stagger_ms: 0,
    }
}

/// A profile of shell scripts; `$0` is the address.
fn shell(on: &str, off: &str, status: &str, deadline_seconds: u64) -> PowerProfile {
    let sh = |script: &str| {
        let words = ["sh", "-c", script, "{address}"];
        words.map(str::to_owned).to_vec()
    };
    PowerProfile::Command {
        on: sh(on),
        off: sh(off),
        cycle: Vec::new(),
        reset: Vec::new(),
        status: sh(status),
        deadline_seconds,
    }
}

/// A lamp that is on while its file exists.
fn lamp() -> PowerProfile {
    shell(
        "touch $0",
        "rm -f $0",
        "test -e $0 && echo on || echo off",
        5,
    )
}

fn profiles(several: impl IntoIterator<Item = (&'static str, PowerProfile)>) -> Profiles {
    let named = several.into_iter();
    named
        .map(|(name, profile)| (name.to_owned(), profile))
        .collect()
}

fn carry_out(
    switchboard: &Switchboard,
    profiles: &Profiles,
    targets: &[PowerTarget],
    plan: Plan,
) -> OrderView {
    let order = switchboard
        .enter(plan, targets.to_vec(), Duration::from_secs(5))
        .unwrap();
    order.carry_out(switchboard, profiles, &NoKeys, &|_, _| {});
    order.view()
}

fn act(profiles: &Profiles, targets: &[PowerTarget], action: PowerAction) -> Vec<PowerOutcome> {
    carry_out(&Switchboard::default(), profiles, targets, plan(action)).outcomes
}

#[test]
fn commands_switch_and_the_state_is_read_back() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("lamp");
    let profiles = profiles([("plug", lamp())]);
    let targets = [target("a", &[&format!("plug:{}", file.display())])];
    let state = |action| act(&profiles, &targets, action)[0].state;
    assert_eq!(state(PowerAction::Status), Some(PowerState::Off));
    assert_eq!(state(PowerAction::On), Some(PowerState::On));
    assert!(file.exists());
    fs::write(&file, "marked").unwrap();
    assert_eq!(state(PowerAction::Cycle), Some(PowerState::On));
    let content = fs::read(&file).unwrap();
    assert_eq!(
        content, b"",
        "a cycle without its own command is off, then on"
    );
    let reset = act(&profiles, &targets, PowerAction::Reset);
    assert_eq!(reset[0].failure, Some(Failure::Unsupported));
    assert_eq!(state(PowerAction::Off), Some(PowerState::Off));
    assert_eq!(
        state(PowerAction::Reset),
        Some(PowerState::On),
        "it was off"
    );
}

#[test]
fn an_order_that_has_no_effect_is_not_success() {
    let profiles = profiles([("plug", shell("true", "true", "echo off", 3))]);
    let outcomes = act(&profiles, &[target("a", &["plug:x"])], PowerAction::On);
    assert_eq!(outcomes[0].failure, Some(Failure::NotConfirmed));
    let error = outcomes[0].error.as_deref().unwrap();
    assert_eq!(error, "accepted, not confirmed: not on within 3 s");
}

#[test]
fn a_program_that_hangs_is_ended_with_its_children_and_the_others_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let pid = scratch.path().join("pid");
    let hang = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let quick = shell("true", "true", "echo on", 5);
    let profiles = profiles([("slow", shell("true", "true", &hang, 3)), ("quick", quick)]);
    let begun = Instant::now();
    let targets = [target("a", &["slow:x"]), target("b", &["quick:x"])];
    let outcomes = act(&profiles, &targets, PowerAction::Status);
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(outcomes[0].failure, Some(Failure::TimedOut));
    assert_eq!(outcomes[1].state, Some(PowerState::On));
    let child = fs::read_to_string(pid).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    // It was told to end; that it has takes the kernel a moment.
    loop {
        let state = fs::read_to_string(&stat).unwrap_or_default();
        if state.is_empty() || state.contains(" Z ") {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it still runs: {state}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_machine_without_power_setting_or_profile_says_so() {
    let targets = [target("a", &[]), target("b", &["magic:x"])];
    let outcomes = act(&BTreeMap::new(), &targets, PowerAction::On);
    let says = |at: usize, text: &str| {
        assert_eq!(outcomes[at].failure, Some(Failure::Setting));
        assert!(outcomes[at].error.as_deref().unwrap().contains(text));
    };
    says(0, "no power setting");
    says(1, "magic");
}

#[test]
fn the_next_rung_does_what_the_first_one_cannot_and_both_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("lamp");
    fs::write(&file, "").unwrap();
    let deaf = shell("true", "true", "echo on", 3);
    let broken = shell("false", "false", "false", 1);
    let profiles = profiles([("deaf", deaf), ("broken", broken), ("plug", lamp())]);
    let plug = format!("plug:{}", file.display());
    let machine = target("a", &["deaf:x", "broken:x", &plug]);
    let outcome = act(&profiles, &[machine], PowerAction::Off).remove(0);
    assert_eq!(
        (outcome.state, outcome.failure),
        (Some(PowerState::Off), None)
    );
    assert_eq!(outcome.by, Some(plug));
    let words: Vec<Failure> = outcome.attempts.iter().map(|a| a.failure).collect();
    assert_eq!(words, [Failure::NotConfirmed, Failure::Refused]);
    assert!(!file.exists());
}

#[test]
fn a_machine_takes_one_order_at_a_time() {
    let scratch = tempfile::tempdir().unwrap();
    let begun = scratch.path().join("begun");
    let slow = format!("touch {}; sleep 3", begun.display());
    let profiles = profiles([("plug", shell(&slow, "true", "echo off", 2))]);
    let machine = target("a", &["plug:x"]);
    let switchboard = Switchboard::default();
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            carry_out(
                &switchboard,
                &profiles,
                std::slice::from_ref(&machine),
                plan(PowerAction::On),
            )
        });
        while !begun.exists() {
            thread::sleep(Duration::from_millis(10));
        }
        let second = carry_out(
            &switchboard,
            &profiles,
            std::slice::from_ref(&machine),
            plan(PowerAction::Off),
        );
        assert_eq!(second.outcomes[0].failure, Some(Failure::Busy));
        assert_eq!(
            first.join().unwrap().outcomes[0].failure,
            Some(Failure::TimedOut)
        );
    });
    let looked = carry_out(
        &switchboard,
        &profiles,
        &[machine],
        plan(PowerAction::Status),
    );
    assert_eq!(
        looked.outcomes[0].state,
        Some(PowerState::Off),
        "it is free again"
    );
}

#[test]
fn starts_are_apart_and_no_more_than_the_cap_run_at_once() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().display();
    let on = format!(
        "touch {dir}/run.$$; ls {dir}/run.* | wc -l >> {dir}/counts; sleep 0.3; rm {dir}/run.$$; touch $0"
    );
    let profiles = profiles([(
        "plug",
        shell(&on, "true", "test -e $0 && echo on || echo off", 30),
    )]);
    let targets: Vec<PowerTarget> = (0..9)
        .map(|at| target(&"x".repeat(at + 1), &[&format!("plug:{dir}/lamp{at}")]))
        .collect();
    let wanted = Plan {
        parallel: 3,
        stagger_ms: 100,
        ..plan(PowerAction::On)
    };
    let order = carry_out(&Switchboard::default(), &profiles, &targets, wanted);
    assert!(order.over && order.outcomes.iter().all(|outcome| outcome.error.is_none()));
    assert!(order.seconds >= 0.8, "nine starts, 100 ms apart");
    let counts = fs::read_to_string(scratch.path().join("counts")).unwrap();
    let most = counts
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .max();
    assert!(most.is_some_and(|most: u32| most <= 3), "{counts}");
}

#[test]
fn a_boot_from_the_network_is_proved_by_the_machines_question() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("lamp");
    let profiles = profiles([("plug", lamp())]);
    let machine = target("a", &[&format!("plug:{}", file.display())]);
    let switchboard = Switchboard::default();
    switchboard.machine_seen(machine.id);
    let netboot = |within_seconds| Plan {
        netboot: true,
        within_seconds,
        ..plan(PowerAction::Cycle)
    };
    let targets = [machine.clone()];
    carry_out(&switchboard, &profiles, &targets, plan(PowerAction::On));
    let running = Plan {
        action: PowerAction::On,
        ..netboot(600)
    };
    let running = carry_out(&switchboard, &profiles, &targets, running);
    assert_eq!(
        running.outcomes[0].failure,
        Some(Failure::Refused),
        "it boots nothing now"
    );
    let unseen = carry_out(&switchboard, &profiles, &targets, netboot(1));
    let outcome = &unseen.outcomes[0];
    assert_eq!(
        outcome.failure,
        Some(Failure::NotSeen),
        "seen before does not count"
    );
    assert_eq!(outcome.state, Some(PowerState::On));
    thread::scope(|scope| {
        let order = scope.spawn(|| carry_out(&switchboard, &profiles, &targets, netboot(600)));
        while !order.is_finished() {
            switchboard.machine_seen(machine.id);
            thread::sleep(Duration::from_millis(20));
        }
        let seen = order.join().unwrap();
        assert!(seen.outcomes[0].seen_seconds.is_some() && seen.outcomes[0].error.is_none());
    });
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
    let targets = [target("vm", &[&format!("qmp:{}", socket.display())])];
    let act = |action| act(&BTreeMap::new(), &targets, action).remove(0);
    assert_eq!(act(PowerAction::Status).state, Some(PowerState::On));
    assert_eq!(act(PowerAction::Cycle).state, Some(PowerState::On));
    assert_eq!(act(PowerAction::Off).state, Some(PowerState::Off));
    let commands = server.join().unwrap();
    assert!(
        commands.contains(&"system_reset".to_owned()) && commands.ends_with(&["quit".to_owned()])
    );
    let on = act(PowerAction::On);
    assert!(on.error.unwrap().contains("no start command"));
}
