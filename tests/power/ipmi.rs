//! IPMI against OpenIPMI's simulator, which knows nothing of us.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::bmc::IpmiSim;

use crate::desk::{Desk, lab};
use crate::faults::{Fault, Relay};

/// A profile for `ipmi_sim`: it knows no suite 17 and forgets the flag for UEFI.
const PROFILE: &str = "[power.bmc]\ndriver = \"ipmi\"\nfirmware = \"bios\"\n";

/// Machines of the great room: alive, and not.
const LIVE: u8 = 90;
const DEAD: u8 = 10;
/// The profile's time-out in that room, in seconds, and what may come on top of it.
const TIME_OUT: f64 = 20.0;
const MARGIN: f64 = 5.0;

fn here() -> Command {
    Command::new("env")
}

fn simulate(directory: &Path) -> Result<IpmiSim> {
    fs::create_dir_all(directory)?;
    let mut simulator = IpmiSim::start(directory, lab(), here())?;
    simulator.await_answer(here)?;
    Ok(simulator)
}

fn logged_in(profiles: &str) -> Result<Desk> {
    let desk = Desk::open(profiles)?;
    desk.login("bmc", IpmiSim::USER, IpmiSim::PASSWORD)?;
    Ok(desk)
}

#[test]
fn a_controller_is_switched_read_back_and_told_what_to_boot() -> Result<()> {
    let desk = logged_in(PROFILE)?;
    let simulator = simulate(&desk.scratch.path().join("a"))?;
    desk.add("a", 1, &[&format!("bmc:127.0.0.1:{}", simulator.port())])?;
    let state = |words: &[&str]| -> Result<String> {
        let outcome = desk.power(words)?;
        let state = outcome["state"].as_str();
        Ok(state
            .with_context(|| format!("no state: {outcome}"))?
            .to_owned())
    };
    let board = simulator.board();
    assert_eq!(state(&["status", "a"])?, "off");
    desk.ask(&["power", "bootdev", "pxe", "a"])?;
    assert_eq!(state(&["on", "a"])?, "on");
    assert!(board.is_on()?);
    assert_eq!(state(&["reset", "a"])?, "on");
    assert_eq!(state(&["cycle", "a"])?, "on");
    assert_eq!(board.starts()?, ["network", "disk", "disk"], "chosen once");
    desk.ask(&["power", "bootdev", "pxe", "a"])?;
    desk.ask(&["power", "bootdev", "usual", "a"])?;
    assert_eq!(state(&["cycle", "a"])?, "on");
    assert_eq!(board.starts()?[3], "disk", "chosen, and chosen again");
    assert_eq!(state(&["off", "a"])?, "off");
    assert!(!board.is_on()?);
    Ok(())
}

#[test]
fn each_fault_has_its_word_and_the_neighbour_is_unharmed() -> Result<()> {
    let desk = logged_in(PROFILE)?;
    let simulator = simulate(&desk.scratch.path().join("a"))?;
    let way = |fault| Relay::start(simulator.port(), fault);
    let (good, slow) = (
        way(Fault::None)?,
        way(Fault::Slow(Duration::from_millis(300)))?,
    );
    let (garbage, silent) = (way(Fault::Garbage)?, way(Fault::Silence)?);
    let closed = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let ways = [
        ("good", good.port()),
        ("slow", slow.port()),
        ("garbage", garbage.port()),
        ("silent", silent.port()),
        ("closed", closed),
    ];
    for (number, (name, port)) in ways.into_iter().enumerate() {
        desk.add(name, number as u8, &[&format!("bmc:127.0.0.1:{port}")])?;
    }
    let words = desk.words("status")?;
    for name in ["good", "slow"] {
        assert_eq!(words[name], "off", "{name}");
    }
    for name in ["garbage", "silent", "closed"] {
        assert_eq!(words[name], "unreachable", "{name}");
    }
    Ok(())
}

#[test]
fn a_wrong_password_is_tried_once_until_it_is_entered_anew() -> Result<()> {
    let desk = Desk::open(PROFILE)?;
    let simulator = simulate(&desk.scratch.path().join("a"))?;
    let relay = Relay::start(simulator.port(), Fault::None)?;
    let power = format!("bmc:127.0.0.1:{}", relay.port());
    desk.add("a", 1, &[&power])?;
    assert_eq!(
        desk.power(&["status", "a"])?["failure"],
        "setting",
        "no login yet"
    );

    desk.login("bmc", IpmiSim::USER, "wrong horse")?;
    for words in [
        ["status", "a"],
        ["on", "a"],
        ["cycle", "a"],
        ["status", "a"],
    ] {
        assert_eq!(
            desk.power(&words)?["failure"],
            "wrong-password",
            "{words:?}"
        );
    }
    assert_eq!(relay.logins(), 1, "more tries would lock the account");

    desk.login("bmc", "nobody", IpmiSim::PASSWORD)?;
    assert_eq!(desk.power(&["status", "a"])?["failure"], "wrong-password");
    assert_eq!(relay.logins(), 2);

    // One device may have a login of its own.
    desk.login(&power, IpmiSim::USER, IpmiSim::PASSWORD)?;
    assert_eq!(desk.power(&["status", "a"])?["state"], "off");
    let logins = desk.ask(&["power", "logins"])?;
    assert_eq!(logins.as_array().map(Vec::len), Some(2));
    desk.ask(&["power", "logout", &power])?;
    assert_eq!(desk.power(&["status", "a"])?["failure"], "wrong-password");
    Ok(())
}

#[test]
fn no_password_is_in_the_database_the_log_or_an_answer() -> Result<()> {
    let desk = logged_in(PROFILE)?;
    let simulator = simulate(&desk.scratch.path().join("a"))?;
    desk.add("a", 1, &[&format!("bmc:127.0.0.1:{}", simulator.port())])?;
    desk.power(&["on", "a"])?;
    let answers = [
        desk.ask(&["power", "logins"])?,
        desk.ask(&["machine", "show", "a"])?,
        desk.ask(&["status"])?,
    ];
    let secret = IpmiSim::PASSWORD;
    assert!(
        answers
            .iter()
            .all(|answer| !answer.to_string().contains(secret))
    );
    assert!(!desk.log().contains(secret));
    let mut files = 0;
    for entry in fs::read_dir(desk.scratch.path())? {
        let path = entry?.path();
        if path.is_file() {
            let bytes = fs::read(&path)?;
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            ensure!(!found, "{} holds the password", path.display());
            files += 1;
        }
    }
    assert!(files > 5, "database, keys, log");
    Ok(())
}

#[test]
fn a_ladder_goes_from_a_dead_controller_to_the_outlet() -> Result<()> {
    let plug = "[power.plug]\ndriver = \"command\"\n\
                on = [\"touch\", \"{address}\"]\noff = [\"rm\", \"-f\", \"{address}\"]\n\
                status = [\"sh\", \"-c\", \"test -e $0 && echo on || echo off\", \"{address}\"]\n";
    let desk = logged_in(&format!("{PROFILE}deadline_seconds = 3\n{plug}"))?;
    let dead = UdpSocket::bind("127.0.0.1:0")?;
    let lamp = desk.scratch.path().join("lamp");
    let bmc = format!("bmc:{}", dead.local_addr()?);
    let outlet = format!("plug:{}", lamp.display());
    desk.add("a", 1, &[&bmc, &outlet])?;
    let outcome = desk.power(&["on", "a"])?;
    assert_eq!(
        (&outcome["state"], &outcome["by"]),
        (&"on".into(), &outlet.into())
    );
    assert_eq!(outcome["attempts"][0]["power"], bmc);
    assert_eq!(outcome["attempts"][0]["failure"], "timed-out");
    assert!(lamp.exists());
    Ok(())
}

#[test]
fn ninety_live_and_ten_dead_controllers_take_one_time_out() -> Result<()> {
    let desk = logged_in(PROFILE)?;
    let directory = desk.scratch.path().to_owned();
    let mut live = Vec::new();
    for number in 0..LIVE {
        let place = directory.join(format!("live{number}"));
        fs::create_dir(&place)?;
        live.push(IpmiSim::start(&place, lab(), here())?);
    }
    let mut rows = "name,mac,power,group\n".to_owned();
    let mut row = |name: &str, number: u8, port: u16| {
        rows += &format!("{name},52:54:00:98:00:{number:02x},bmc:127.0.0.1:{port},room\n");
    };
    for (number, simulator) in live.iter_mut().enumerate() {
        simulator.await_answer(here)?;
        row(&format!("live{number}"), number as u8, simulator.port());
    }
    let dead: Vec<UdpSocket> = (0..DEAD)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    for (number, socket) in dead.iter().enumerate() {
        let number = number as u8;
        row(
            &format!("dead{number}"),
            LIVE + number,
            socket.local_addr()?.port(),
        );
    }
    fs::write(directory.join("room.csv"), rows)?;
    let list = directory.join("room.csv").display().to_string();
    desk.ask(&["machine", "import", &list])?;

    for words in [
        &["power", "status", "--group", "room"][..],
        &["power", "on", "--group", "room"],
    ] {
        let ended = desk.run(words)?;
        println!("{words:?}: {}", ended.said.trim().replace('\n', "; "));
        assert_eq!(ended.code, 1);
        assert!(
            ended
                .said
                .contains("100 machines, 32 at a time, time-out 20 s each")
        );
        let outcomes = ended.printed.as_array().context("a list")?.clone();
        assert_eq!(outcomes.len(), 100);
        let wanted = if words[1] == "on" { "on" } else { "off" };
        for outcome in &outcomes {
            let name = outcome["machine"].as_str().context("a name")?;
            let expected = if name.starts_with("live") {
                outcome["state"] == wanted && outcome["failure"].is_null()
            } else {
                outcome["state"].is_null() && outcome["failure"] == "unreachable"
            };
            assert!(expected, "{outcome}");
        }
        let over = ended
            .said
            .lines()
            .find_map(|line| line.strip_prefix("over after "));
        let seconds: f64 = over.context("no time")?.trim_end_matches(" s").parse()?;
        assert!(seconds < TIME_OUT + MARGIN, "it took {seconds} s");
    }
    for simulator in &live {
        assert!(simulator.board().is_on()?);
    }
    Ok(())
}
