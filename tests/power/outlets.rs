//! Outlets by SNMP against Debian's `snmpsim`.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::bmc::Board;
use tests::lab::wait_until;

use crate::desk::Desk;
use crate::pdu::{FAMILIES, Pdu, SIMPLE, boards};

/// A relay's time to move.
const DELAY: Duration = Duration::from_millis(100);
/// How long a board may take after that.
const WORDS: Duration = Duration::from_secs(20);
const PROFILE: &str = "[power.pdu]\ndriver = \"snmp\"\npdu = \"apc-rpdu\"\noff_seconds = 1\n";

fn here() -> Command {
    Command::new("env")
}

/// A server with these profiles, its login `pdu` for the community, and a PDU.
fn rack(profiles: &str, busy: u32) -> Result<(Desk, Pdu, [Board; 2])> {
    let desk = Desk::open(profiles)?;
    desk.login("pdu", "", Pdu::COMMUNITY)?;
    let boards = boards(desk.scratch.path())?;
    let mut pdu = Pdu::start(desk.scratch.path(), DELAY, busy, here())?;
    pdu.await_answer(here)?;
    Ok((desk, pdu, boards))
}

#[test]
fn net_snmp_itself_switches_an_outlet_and_hears_what_a_pdu_says() -> Result<()> {
    let (_desk, pdu, [board, _]) = rack(PROFILE, 1)?;
    let outlet = format!("{SIMPLE}.7");
    let get = |community: &str| pdu.net_snmp(here(), "snmpget", community, &[&outlet]);
    let set = |community: &str, object: &str, value: &str| {
        pdu.net_snmp(here(), "snmpset", community, &[object, "i", value])
    };
    assert_eq!(get(Pdu::COMMUNITY)?, "2");
    assert!(set(Pdu::COMMUNITY, &outlet, "1")?.contains("resourceUnavailable"));
    assert_eq!(set(Pdu::COMMUNITY, &outlet, "1")?, "1");
    wait_until("the relay", WORDS, || board.is_on())?;
    assert_eq!(get("public")?, "1");
    assert!(set("public", &outlet, "2")?.contains("notWritable"));
    assert!(set(Pdu::COMMUNITY, &outlet, "9")?.contains("wrongValue"));
    assert!(pdu.is_silent(here(), "nobody")? && !pdu.is_silent(here(), "public")?);
    let none = set(Pdu::COMMUNITY, &format!("{SIMPLE}.99"), "1")?;
    assert!(none.starts_with("No Such"), "{none}");
    assert!(board.is_on()?, "nothing of that has switched it");
    Ok(())
}

#[test]
fn each_family_of_pdus_is_switched_and_read_back() -> Result<()> {
    let profile = |(family, _): &(&str, _)| {
        format!("[power.{family}]\ndriver = \"snmp\"\npdu = \"{family}\"\n")
    };
    let profiles: String = FAMILIES.iter().map(profile).collect();
    let (desk, pdu, [board, _]) = rack(&(profiles + PROFILE), 0)?;
    for (number, (family, _)) in (0..).zip(FAMILIES) {
        desk.login(family, "", Pdu::COMMUNITY)?;
        let power = format!("{family}:{}", pdu.outlet("7"));
        desk.add(family, number, &[&power])?;
        for state in ["on", "off"] {
            let outcome = desk.power(&[state, family])?;
            assert_eq!(outcome["state"], state, "{outcome}");
            assert_eq!(board.is_on()?, state == "on", "{family}");
        }
    }
    Ok(())
}

#[test]
fn an_outlet_cycles_chooses_no_boot_and_resets_nothing() -> Result<()> {
    let (desk, pdu, [a, b]) = rack(PROFILE, 1)?;
    desk.add("one", 1, &[&format!("pdu:{}", pdu.outlet("7"))])?;
    assert_eq!(
        desk.power(&["on", "one"])?["state"],
        "on",
        "busy is not for ever"
    );
    assert_eq!(desk.power(&["cycle", "one"])?["state"], "on");
    assert_eq!(a.starts()?.len(), 2, "off, then on");
    for words in [&["bootdev", "pxe", "one"][..], &["reset", "one"]] {
        assert_eq!(desk.power(words)?["failure"], "unsupported", "{words:?}");
    }
    // Two power supplies: it is off when both are.
    desk.add("two", 2, &[&format!("pdu:{}", pdu.outlet("7+8"))])?;
    assert!(!b.is_on()?);
    assert_eq!(desk.power(&["status", "two"])?["state"], "on");
    assert_eq!(desk.power(&["off", "two"])?["state"], "off");
    assert!(!a.is_on()?);
    assert_eq!(desk.power(&["on", "two"])?["state"], "on");
    wait_until("both relays", WORDS, || Ok(a.is_on()? && b.is_on()?))
}

#[test]
fn an_outlet_that_was_on_all_along_does_not_pass_for_a_machine_that_woke() -> Result<()> {
    let wake =
        "[power.wake]\ndriver = \"wol\"\nbroadcast = [\"127.255.255.255\"]\ndeadline_seconds = 1\n";
    let (desk, pdu, [board, _]) = rack(&format!("{PROFILE}{wake}"), 0)?;
    let outlet = format!("pdu:{}", pdu.outlet("7"));
    desk.add("a", 1, &["wake:", &outlet])?;
    let on = desk.power(&["on", "a"])?;
    assert_eq!((&on["by"], &on["state"]), (&outlet.into(), &"on".into()));
    assert_eq!(on["attempts"][0]["failure"], "not-confirmed");
    let again = desk.power(&["on", "a"])?;
    assert_eq!(again["failure"], "not-confirmed", "{again}");
    assert_eq!(board.starts()?.len(), 1, "its current was not taken away");
    assert_eq!(desk.power(&["cycle", "a"])?["state"], "on");
    assert_eq!(board.starts()?.len(), 2, "unless it is asked for");
    Ok(())
}

#[test]
fn version_3_is_spoken_with_a_password_for_each_purpose() -> Result<()> {
    let three = |name: &str, more: &str| {
        format!(
            "[power.{name}]\ndriver = \"snmp\"\npdu = \"apc-rpdu\"\nversion = \"3\"\nhash = \"sha-256\"\n{more}"
        )
    };
    let profiles = [
        PROFILE.to_owned(),
        three("three", ""),
        three("open", "privacy = \"none\"\n"),
    ];
    let (desk, pdu, [board, _]) = rack(&profiles.concat(), 0)?;
    for (number, profile) in (1..).zip(["three", "open"]) {
        desk.login(profile, Pdu::USER, Pdu::PASSWORD)?;
        desk.add(
            profile,
            number,
            &[&format!("{profile}:{}", pdu.outlet("7"))],
        )?;
    }
    desk.login("three:privacy", Pdu::USER, Pdu::PRIVACY)?;
    assert_eq!(desk.power(&["on", "three"])?["state"], "on");
    assert!(board.is_on()?);
    assert_eq!(desk.power(&["off", "three"])?["state"], "off");
    assert_eq!(
        desk.power(&["status", "open"])?["failure"],
        "refused",
        "the user is set up with privacy"
    );
    desk.login("three", Pdu::USER, "another password")?;
    for action in ["status", "on"] {
        let outcome = desk.power(&[action, "three"])?;
        assert_eq!(outcome["failure"], "wrong-password", "{outcome}");
    }
    desk.login("three", Pdu::USER, "short")?;
    assert_eq!(desk.power(&["status", "three"])?["failure"], "setting");
    Ok(())
}

#[test]
fn each_fault_of_a_pdu_has_its_word_and_the_neighbour_is_unharmed() -> Result<()> {
    let communities = ["nobody", "public", "slow", "garbage", "unclear"];
    let profile = |name: &&str| PROFILE.replace("power.pdu", &format!("power.{name}"));
    let profiles: String = communities.iter().map(profile).collect();
    let (desk, pdu, [board, _]) = rack(&(profiles + PROFILE), 0)?;
    for (number, name) in (1..).zip(communities) {
        desk.login(name, "", name)?;
        desk.add(name, number, &[&format!("{name}:{}", pdu.outlet("7"))])?;
    }
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    let silent = format!("pdu:{}/7", silent.local_addr()?);
    desk.add("silent", 11, &[&silent])?;
    desk.add("nowhere", 12, &["pdu:nowhere.invalid/7"])?;
    desk.add("absent", 13, &[&format!("pdu:{}", pdu.outlet("99"))])?;
    desk.add("good", 14, &[&format!("pdu:{}", pdu.outlet("8"))])?;

    let words = desk.words("on")?;
    for (name, expected) in [
        ("nobody", "unreachable"),
        ("silent", "unreachable"),
        ("nowhere", "unreachable"),
        ("public", "refused"),
        ("slow", "on"),
        ("garbage", "garbage"),
        ("unclear", "garbage"),
        ("absent", "setting"),
        ("good", "on"),
    ] {
        assert_eq!(words[name], expected, "{name}");
    }
    assert!(board.is_on()?, "by the slow one");
    Ok(())
}

#[test]
fn a_community_is_in_no_argument() -> Result<()> {
    let desk = Desk::open(&format!("{PROFILE}deadline_seconds = 2\n"))?;
    desk.login("pdu", "", Pdu::COMMUNITY)?;
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    silent.set_read_timeout(Some(WORDS))?;
    let place = silent.local_addr()?.to_string();
    desk.add("a", 1, &[&format!("pdu:{place}/7")])?;
    thread::scope(|scope| {
        let asked = scope.spawn(|| desk.power(&["status", "a"]));
        let mut question = [0; 1500];
        let length = silent.recv(&mut question).context("no question came")?;
        // It waits for an answer now.
        let lines = arguments("snmpget")?;
        let question = String::from_utf8_lossy(&question[..length]);
        ensure!(question.contains(Pdu::COMMUNITY), "not asked with it");
        let ours: Vec<_> = lines.iter().filter(|line| line.contains(&place)).collect();
        ensure!(ours.len() == 1, "whose question is it? {lines:?}");
        ensure!(!ours[0].contains(Pdu::COMMUNITY), "{ours:?}");
        let asked = asked.join().ok().context("the question died")?;
        ensure!(asked?["failure"] == "timed-out", "nobody answered");
        Ok(())
    })
}

/// The command lines of all running processes of a program.
fn arguments(program: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // A process may end while we look.
        let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.starts_with(program) {
            found.push(line);
        }
    }
    Ok(found)
}
