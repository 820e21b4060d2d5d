//! A real server process, and a client that plays firmware, agent and operator.
//!
//! Everything happens on loopback and in a scratch directory; the agent's side is spoken by another TLS client than
//! the command line's, with the CA certificate and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

#[path = "server/crowd.rs"]
mod crowd;
#[path = "server/desk.rs"]
mod desk;

use desk::{MAC, Server, netflash};

/// A job without the keys of its session, which are sealed anew for each answer.
fn without_keys(job: &Value) -> Value {
    let mut job = job.clone();
    let keys = job["order"]["session"]["keys"].take();
    assert!(keys.is_string(), "sealed keys in {job}");
    job
}

#[test]
fn an_empty_directory_becomes_a_server_and_a_machine_is_flashed_by_the_book() -> Result<()> {
    let server = Server::start("239.192.80.1:9201")?;
    server.add_image()?;
    server.ask(&["machine", "add", "lab1", "--mac", MAC])?;
    assert!(
        server.boot(MAC, "pcbios")?.contains("sanboot"),
        "nothing to do yet"
    );

    let jobs = server.ask(&["job", "flash", "tiny", "--machines", "lab1", "--yes"])?;
    let id = jobs[0]["id"].as_u64().context("a number")?;
    assert_eq!(jobs[0]["state"], "armed");
    let token = server.token(MAC)?;
    assert_eq!(
        server.ask(&["job", "show", &id.to_string()])?["state"],
        "booting"
    );

    let agent = server.agent()?;
    let (status, welcome) = agent.hello(&token, 1)?;
    assert_eq!(status, 200, "{welcome}");
    assert_eq!(welcome["name"], "lab1");
    assert_eq!(welcome["job"]["order"]["kind"], "flash");
    let session = welcome["job"]["order"]["session"]["session"].clone();
    let status_now = server.ask(&["status"])?;
    assert_eq!(status_now["sessions"][0]["session"], session);

    let bearer = welcome["bearer"].as_str().context("a bearer")?.to_owned();
    let (status, again) = agent.get("/agent/v1/job", &bearer)?;
    assert_eq!(
        (status, without_keys(&again["job"])),
        (200, without_keys(&welcome["job"]))
    );
    let report = json!({
        "image_id": welcome["job"]["order"]["image_id"], "disk": "/dev/vda", "seconds": 2.5, "received_bytes": 2_100_000,
        "repair_symbols": 3, "lost_symbols": 4, "kept_frames": 0, "written_frames": 2, "verified": true,
    });
    let mut done = json!({ "kind": "done" });
    done.as_object_mut()
        .context("an object")?
        .extend(report.as_object().context("an object")?.clone());
    let events = json!([
        { "sequence": 0, "uptime_ms": 900, "event": { "kind": "phase", "phase": "receiving", "disk": "/dev/vda" } },
        { "sequence": 1, "uptime_ms": 990, "event": done },
    ]);
    let path = format!("/agent/v1/jobs/{id}/events");
    let (status, answer) = agent.post(&path, &bearer, events.to_string().as_bytes())?;
    assert_eq!((status, &answer["cancel"]), (200, &json!(false)));

    let watched = server.ask(&["job", "watch", &id.to_string()])?;
    assert_eq!(watched[0]["state"], "done");
    assert_eq!(watched[0]["report"]["verified"], true);
    assert!(
        server.boot(MAC, "efi")?.contains("exit 1"),
        "after success the disk boots"
    );
    assert_eq!(server.ask(&["status"])?["sessions"], json!([]));
    let shown = server.ask(&["machine", "show", "lab1"])?;
    assert_eq!(
        shown["inventory"]["cpu"], "test  [2J",
        "no control character survives"
    );
    Ok(())
}

#[test]
fn a_stranger_is_listed_and_never_gets_the_agent() -> Result<()> {
    let server = Server::start("239.192.80.2:9202")?;
    server.add_image()?;
    server.ask(&["machine", "add", "lab1", "--mac", MAC])?;
    server.ask(&["job", "flash", "tiny", "--all", "--yes"])?;
    for _ in 0..2 {
        let script = server.boot("52:54:00:aa:00:99", "pcbios")?;
        assert!(
            !script.contains("kernel") && script.contains("sanboot"),
            "{script}"
        );
    }
    let hostile = "/boot/ipxe?mac=%0a&uuid=%24%7Bx%7D%0Akernel+evil&serial=%00&platform=%FF";
    let (status, script) = server.fetch(hostile)?;
    assert!(status == 200 && !String::from_utf8(script)?.contains("evil"));
    let seen = server.ask(&["machine", "list"])?["seen"].clone();
    let stranger = seen
        .as_array()
        .context("a list")?
        .iter()
        .find(|s| s["times"] == 2);
    assert_eq!(
        stranger.context("the stranger")?["identity"]["macs"][0],
        "52:54:00:aa:00:99"
    );
    Ok(())
}

#[test]
fn a_copied_token_raises_an_alert() -> Result<()> {
    let server = Server::start("239.192.80.3:9203")?;
    server.add_image()?;
    server.ask(&["machine", "add", "lab1", "--mac", MAC])?;
    server.ask(&["job", "flash", "tiny", "--machines", "lab1", "--yes"])?;
    let token = server.token(MAC)?;
    let agent = server.agent()?;
    let (status, welcome) = agent.hello(&token, 1)?;
    assert_eq!(status, 200);
    let (status, again) = agent.hello(&token, 1)?;
    assert_eq!(status, 200, "a lost answer is asked for again");
    assert_eq!(again["bearer"], welcome["bearer"]);
    assert_eq!(without_keys(&again["job"]), without_keys(&welcome["job"]));
    assert_eq!(agent.hello(&token, 2)?.0, 403);
    let log = fs::read_to_string(server.scratch.path().join("server.log"))?;
    assert!(log.contains("alert machine=lab1"), "{log}");
    let bearer = welcome["bearer"].as_str().context("a bearer")?;
    assert_eq!(
        agent.get("/agent/v1/job", bearer)?.0,
        200,
        "the first agent goes on"
    );
    Ok(())
}

#[test]
fn hostile_requests_are_refused_and_the_server_lives() -> Result<()> {
    let server = Server::start("239.192.80.4:9204")?;
    let agent = server.agent()?;
    let huge = vec![b' '; 4 << 20];
    let deep = "[".repeat(100_000);
    for (path, body) in [
        ("/agent/v1/hello", &b"{"[..]),
        ("/agent/v1/hello", b"\xff\xfe"),
        ("/agent/v1/hello", deep.as_bytes()),
        ("/agent/v1/jobs/1/events", b"[]"),
        ("/agent/v1/jobs/99999999999999999999999/events", b"[]"),
        ("/api/v1/jobs/flash", b"{}"),
        ("/no/such/path", b""),
    ] {
        let (status, answer) = agent.post(path, "wrong", body)?;
        assert!((400..500).contains(&status), "{path}: {status} {answer}");
    }
    // The server may close before all is sent.
    if let Ok((status, _)) = agent.post("/agent/v1/hello", "", &huge) {
        assert_eq!(status, 413);
    }
    let mut many = json!({
        "token": "x", "identity": { "macs": vec![MAC; 1000] }, "inventory": {},
        "agent_key": "00".repeat(32), "agent_version": "x",
    });
    assert_eq!(
        agent
            .post("/agent/v1/hello", "", many.to_string().as_bytes())?
            .0,
        400
    );
    many["identity"] = json!({});
    assert_eq!(
        agent
            .post("/agent/v1/hello", "", many.to_string().as_bytes())?
            .0,
        403
    );
    for path in [
        "/boot/../admin.token",
        "/boot/%2e%2e/admin.token",
        "/boot/admin.token",
        "/boot/token.img?ticket=x",
    ] {
        assert_eq!(server.fetch(path)?.0, 404, "{path}");
    }
    let mut raw = TcpStream::connect(server.http)?;
    raw.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")?;
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer);
    assert_eq!(server.ask(&["status"])?["machines"], 0, "it still answers");
    Ok(())
}

#[test]
fn after_a_power_cut_of_the_server_jobs_go_on() -> Result<()> {
    let server = Server::start("239.192.80.5:9205")?;
    server.add_image()?;
    server.ask(&["machine", "add", "lab1", "--mac", MAC])?;
    server.ask(&["job", "flash", "tiny", "--machines", "lab1", "--yes"])?;
    let token = server.token(MAC)?;
    let (_, welcome) = server.agent()?.hello(&token, 1)?;
    let server = server.restart()?;
    let bearer = welcome["bearer"].as_str().context("a bearer")?;
    let (status, _) = server.agent()?.get("/agent/v1/job", bearer)?;
    assert_eq!(status, 401, "the agent's key was in memory only");
    let (status, answer) = server.agent()?.hello(&token, 1)?;
    assert_eq!(status, 200, "the same authority, the same token");
    assert_eq!(answer["bearer"], welcome["bearer"]);
    assert_eq!(answer["job"]["id"], welcome["job"]["id"]);
    let session = |answer: &Value| answer["job"]["order"]["session"]["session"].clone();
    assert_ne!(
        session(&answer),
        session(&welcome),
        "a new process is a new session"
    );
    Ok(())
}

#[test]
fn commands_end_with_the_code_that_says_why() -> Result<()> {
    let server = Server::start("239.192.80.6:9206")?;
    server.ask(&[
        "machine",
        "add",
        "lab1",
        "--mac",
        MAC,
        "--power",
        "qmp:/no/such/socket",
    ])?;
    let code = |words: &[&str]| server.netflash(words).map(|(code, ..)| code);
    assert_eq!(
        code(&["machine", "add", "lab1", "--mac", "52:54:00:aa:00:02"])?,
        1
    );
    assert_eq!(code(&["machine", "add", "lab2", "--mac", "nonsense"])?, 2);
    assert_eq!(
        code(&["job", "flash", "none", "--machines", "lab1", "--yes"])?,
        1
    );
    assert_eq!(
        code(&["job", "flash", "none", "--machines", "lab1"])?,
        1,
        "nobody to ask"
    );
    assert_eq!(code(&["power", "on", "lab1"])?, 1);
    let power = server.ask(&["power", "status", "lab1"])?;
    assert_eq!(power[0]["state"], "off");
    server.ask(&["machine", "rm", "lab1"])?;
    assert_eq!(code(&["machine", "show", "lab1"])?, 1);
    let second = Command::new(netflash()?)
        .arg("--dir")
        .arg(server.scratch.path())
        .arg("serve")
        .output()?;
    assert_eq!(
        second.status.code(),
        Some(1),
        "two servers in one directory"
    );
    let nowhere = tempfile::tempdir()?;
    let lonely = Command::new(netflash()?)
        .arg("--dir")
        .arg(nowhere.path())
        .arg("status")
        .output()?;
    assert_eq!(lonely.status.code(), Some(3));
    Ok(())
}

#[test]
fn the_trust_file_is_an_archive_with_authority_and_address() -> Result<()> {
    let server = Server::start("239.192.80.7:9207")?;
    let (status, archive) = server.fetch("/boot/trust.img")?;
    assert_eq!((status, archive.len() % 4), (200, 0));
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "--extract", "--to-stdout", "netflash/server"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cpio is needed: run ./scripts/setup")?;
    cpio.stdin
        .take()
        .context("its input")?
        .write_all(&archive)?;
    let output = cpio.wait_with_output()?;
    assert_eq!(
        String::from_utf8(output.stdout)?.trim(),
        format!("127.0.0.1:{}", server.https.port())
    );
    Ok(())
}
