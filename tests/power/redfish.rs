//! Redfish against a strict controller, in the ways of six vendors; clients of others prove it first.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::bmc::Board;

use crate::controller::Controller;
use crate::desk::Desk;
use crate::service::{Answering, Asked, OwnCertificate, Reply, Service};
use crate::vendor::{VENDORS, Vendor};

/// The interpreter that has the distribution's packages.
const PYTHON: &str = "/usr/bin/python3";
const PROFILE: &str = "[power.bmc]\ndriver = \"redfish\"\n";

/// A controller, its service and its board.
struct Rig {
    controller: Arc<Controller>,
    service: Service,
    board: Board,
}

impl Rig {
    fn new(desk: &Desk, name: &str, vendor: Vendor) -> Result<Rig> {
        let directory = desk.scratch.path().join(name);
        fs::create_dir(&directory)?;
        let board = Board::at(&directory);
        let controller = Arc::new(Controller::new(vendor, board.clone(), "UEFI"));
        let certificate = OwnCertificate::make(&directory)?;
        let answering = Arc::clone(&controller) as Arc<dyn Answering>;
        let service = Service::start("127.0.0.1", Some(&certificate), answering)?;
        Ok(Rig {
            controller,
            service,
            board,
        })
    }
}

fn desk() -> Result<Desk> {
    let desk = Desk::open(PROFILE)?;
    desk.login("bmc", Controller::USER, Controller::PASSWORD)?;
    Ok(desk)
}

/// Runs a client of somebody else; what it printed.
fn judge(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(words)
        // Proxies and authorities of the desk have no say here.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}: run ./scripts/setup"))?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    ensure!(output.status.success(), "{program} {words:?}: {out}{err}");
    Ok(out)
}

#[test]
fn clients_of_others_can_drive_the_controller() -> Result<()> {
    let desk = desk()?;
    // The one whose ETags nobody gets right is for ours alone.
    let vendors = VENDORS.iter().filter(|vendor| vendor.name != "Supermicro");
    for vendor in vendors {
        let rig = Rig::new(&desk, vendor.name, *vendor)?;
        let address = rig.service.address.to_string();
        if vendor.sessions && !vendor.settings {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/judge/redfish_sushy.py");
            let words = [script, &address, Controller::USER, Controller::PASSWORD];
            let said = judge(PYTHON, &words).with_context(|| vendor.name)?;
            assert!(said.contains("sushy is content"), "{}: {said}", vendor.name);
            assert_eq!(rig.board.starts()?, ["network", "disk"], "{}", vendor.name);
        }
        let url = format!("https://{address}");
        let login = [
            "-r",
            &address,
            "-u",
            Controller::USER,
            "-p",
            Controller::PASSWORD,
        ];
        let secure = ["-S", "Always", "-A", "Basic", "-I", vendor.system];
        let words = [
            &login[..],
            &secure,
            &[
                "Systems",
                "reset",
                if rig.board.is_on()? { "ForceOff" } else { "On" },
            ],
        ];
        judge("redfishtool", &words.concat())
            .with_context(|| format!("{} at {url}", vendor.name))?;
        assert_eq!(rig.controller.wrong(), 0);
    }
    Ok(())
}

#[test]
fn every_vendor_is_switched_and_boots_the_network_once() -> Result<()> {
    let desk = desk()?;
    for (number, vendor) in VENDORS.iter().enumerate() {
        let rig = Rig::new(&desk, vendor.name, *vendor)?;
        let name = vendor.name.to_lowercase();
        desk.add(
            &name,
            number as u8,
            &[&format!("bmc:{}", rig.service.address)],
        )?;
        desk.ask(&["power", "trust", &name, "--yes"])?;
        let does = |words: &[&str], state: &str| -> Result<()> {
            let outcome = desk.power(words)?;
            ensure!(
                outcome["state"] == state,
                "{words:?}: {outcome}; {:?}",
                rig.controller.asked()
            );
            Ok(())
        };
        does(&["status", &name], "off")?;
        desk.ask(&["power", "bootdev", "pxe", &name])
            .with_context(|| format!("{:?}", rig.controller.asked()))?;
        does(&["on", &name], "on")?;
        does(&["on", &name], "on")?;
        does(&["cycle", &name], "on")?;
        desk.ask(&["power", "bootdev", "pxe", &name])?;
        desk.ask(&["power", "bootdev", "usual", &name])?;
        does(&["reset", &name], "on")?;
        does(&["off", &name], "off")?;
        let starts = rig.board.starts()?;
        assert_eq!(starts[0], "network", "{name}: {starts:?}");
        assert!(
            starts.len() >= 3 && starts[1..].iter().all(|s| s == "disk"),
            "{starts:?}"
        );
        assert_eq!(
            rig.controller.sessions(),
            0,
            "{name}: every session is closed"
        );
        let http = desk.power(&["bootdev", "http", &name])?;
        assert_eq!(http["failure"], "unsupported", "{http}");
    }
    Ok(())
}

#[test]
fn an_operating_system_that_does_not_listen_is_switched_off() -> Result<()> {
    let desk = Desk::open(&format!("{PROFILE}deadline_seconds = 5\n"))?;
    desk.login("bmc", Controller::USER, Controller::PASSWORD)?;
    let rig = Rig::new(&desk, "a", VENDORS[1])?;
    desk.add("a", 1, &[&format!("bmc:{}", rig.service.address)])?;
    desk.ask(&["power", "trust", "a", "--yes"])?;
    desk.power(&["on", "a"])?;
    assert_eq!(desk.power(&["off", "a", "--soft"])?["state"], "off");
    assert!(!rig.board.is_on()?);
    Ok(())
}

#[test]
fn another_certificate_ends_it_before_the_password_is_sent() -> Result<()> {
    let desk = desk()?;
    let rig = Rig::new(&desk, "a", VENDORS[1])?;
    desk.add("a", 1, &[&format!("bmc:{}", rig.service.address)])?;
    let unknown = desk.power(&["status", "a"])?;
    assert_eq!(unknown["failure"], "tls-mismatch");
    assert!(
        unknown["error"].to_string().contains("power trust"),
        "{unknown}"
    );
    let shown = desk.power(&["trust", "a"])?;
    let pin = shown["certificate"]
        .as_str()
        .context("a certificate")?
        .to_owned();
    let fingerprint = judge(
        "openssl",
        &[
            "x509",
            "-noout",
            "-fingerprint",
            "-sha256",
            "-in",
            &desk
                .scratch
                .path()
                .join("a/device.pem")
                .display()
                .to_string(),
        ],
    )?;
    let digits: String = fingerprint
        .split('=')
        .nth(1)
        .context("a fingerprint")?
        .chars()
        .filter(char::is_ascii_hexdigit)
        .collect();
    assert_eq!(pin, digits.to_lowercase());
    assert_eq!(
        desk.power(&["status", "a"])?["failure"],
        "tls-mismatch",
        "shown is not kept"
    );
    desk.ask(&["power", "trust", "a", "--yes"])?;
    assert_eq!(desk.power(&["status", "a"])?["state"], "off");
    let before = rig.controller.asked().len();

    // Somebody else answers at the same address.
    let address = rig.service.address;
    drop(rig);
    let other = OwnCertificate::make(desk.scratch.path())?;
    let trap = Arc::new(Controller::new(
        VENDORS[1],
        Board::at(desk.scratch.path()),
        "UEFI",
    ));
    let _service = Service::start_at(
        address,
        Some(&other),
        Arc::clone(&trap) as Arc<dyn Answering>,
    )?;
    let refused = desk.power(&["status", "a"])?;
    assert_eq!(refused["failure"], "tls-mismatch", "{refused}");
    assert!(refused["error"].to_string().contains(&pin), "{refused}");
    assert!(
        before > 0 && trap.asked().is_empty(),
        "it heard {:?}",
        trap.asked()
    );
    Ok(())
}

#[test]
fn a_wrong_password_is_tried_once_and_a_lost_session_is_made_anew() -> Result<()> {
    let desk = Desk::open(PROFILE)?;
    for (number, vendor) in [VENDORS[1], VENDORS[5]].into_iter().enumerate() {
        let rig = Rig::new(&desk, vendor.name, vendor)?;
        let name = vendor.name.to_lowercase();
        desk.login("bmc", Controller::USER, "wrong")?;
        desk.add(
            &name,
            number as u8,
            &[&format!("bmc:{}", rig.service.address)],
        )?;
        desk.ask(&["power", "trust", &name, "--yes"])?;
        for action in ["status", "on", "cycle", "status"] {
            let outcome = desk.power(&[action, &name])?;
            assert_eq!(outcome["failure"], "wrong-password", "{action}: {outcome}");
        }
        assert_eq!(
            rig.controller.wrong(),
            1,
            "more tries would lock the account"
        );
        desk.login("bmc", Controller::USER, Controller::PASSWORD)?;
        assert_eq!(desk.power(&["on", &name])?["state"], "on");
        rig.controller.be_busy(2);
        assert_eq!(
            desk.power(&["status", &name])?["state"],
            "on",
            "busy is not for ever"
        );
        rig.controller.forget_sessions();
        assert_eq!(desk.power(&["off", &name])?["state"], "off");
    }
    Ok(())
}

/// Answers without sense, in one of several ways.
struct Nonsense(&'static str);

impl Answering for Nonsense {
    fn answer(&self, _: &Asked) -> Reply {
        Reply {
            status: 200,
            headers: vec![("Connection", "close".to_owned())],
            body: self.0.to_owned(),
        }
    }
}

#[test]
fn nonsense_is_told_as_such_and_the_neighbours_are_unharmed() -> Result<()> {
    let desk =
        Desk::open("[power.bmc]\ndriver = \"redfish\"\ntls = false\ndeadline_seconds = 4\n")?;
    desk.login("bmc", Controller::USER, Controller::PASSWORD)?;
    let bodies = [
        "",
        "<html>login</html>",
        "[]",
        "{}",
        "{\"Systems\": {\"@odata.id\": \"a b\"}}",
    ];
    let mut services = Vec::new();
    for (number, body) in bodies.into_iter().enumerate() {
        let service = Service::start("127.0.0.1", None, Arc::new(Nonsense(body)))?;
        let power = format!("bmc:{}", service.address);
        desk.add(&format!("nonsense{number}"), number as u8, &[&power])?;
        services.push(service);
    }
    // One that takes the call and says nothing, one that is not there, and one that is no HTTP.
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    desk.add("silent", 20, &[&format!("bmc:{}", silent.local_addr()?)])?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    desk.add("closed", 21, &[&format!("bmc:{closed}")])?;
    let shell = std::net::TcpListener::bind("127.0.0.1:0")?;
    desk.add("shell", 22, &[&format!("bmc:{}", shell.local_addr()?)])?;
    let greeter = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut socket, _) = shell.accept()?;
        std::io::Write::write_all(&mut socket, b"SSH-2.0-Thing\r\n")
    });
    let directory = desk.scratch.path().join("good");
    fs::create_dir(&directory)?;
    let good = Arc::new(Controller::new(VENDORS[0], Board::at(&directory), "UEFI"));
    let service = Service::start("127.0.0.1", None, good)?;
    desk.add("good", 23, &[&format!("bmc:{}", service.address)])?;

    let ended = desk.run(&["power", "status", "--all"])?;
    let word = |name: &str| -> Result<String> {
        let all = ended.printed.as_array().context("a list")?;
        let one = all
            .iter()
            .find(|one| one["machine"] == name)
            .context("the machine")?;
        let word = |field: &str| one[field].as_str().map(str::to_owned);
        word("failure").or_else(|| word("state")).context("a word")
    };
    for (number, body) in bodies.iter().enumerate() {
        assert_eq!(word(&format!("nonsense{number}"))?, "garbage", "{:?}", body);
    }
    assert_eq!(word("silent")?, "timed-out");
    assert_eq!(word("closed")?, "unreachable");
    assert_eq!(word("shell")?, "garbage");
    assert_eq!(word("good")?, "off", "{}", ended.printed);
    greeter.join().expect("the greeter does not panic")?;
    Ok(())
}

#[test]
fn a_group_trusts_all_its_certificates_at_once() -> Result<()> {
    let desk = desk()?;
    let rigs = [
        Rig::new(&desk, "a", VENDORS[0])?,
        Rig::new(&desk, "b", VENDORS[1])?,
    ];
    for (number, rig) in rigs.iter().enumerate() {
        let name = format!("m{number}");
        desk.add(
            &name,
            number as u8,
            &[&format!("bmc:{}", rig.service.address)],
        )?;
    }
    let pins = desk.ask(&["power", "trust", "--all", "--yes"])?;
    let pins: Vec<&Value> = pins
        .as_array()
        .context("a list")?
        .iter()
        .map(|one| &one["certificate"])
        .collect();
    assert!(pins[0].is_string() && pins[1].is_string() && pins[0] != pins[1]);
    desk.ask(&["power", "on", "--all"])?;
    assert!(rigs.iter().all(|rig| rig.board.is_on().unwrap_or(false)));
    Ok(())
}
