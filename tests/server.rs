//! A real server process, and a client that plays firmware, agent and operator.
//!
//! Everything happens on loopback and in a scratch directory; the agent's side is spoken by another TLS client than
//! the command line's, with the CA certificate and nothing else.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

const MAC: &str = "52:54:00:aa:00:01";

/// A server in a directory of its own, ended by force with this value.
struct Server {
    scratch: TempDir,
    process: Child,
    https: SocketAddrV4,
    http: SocketAddrV4,
}

impl Server {
    /// Starts a server; `group` keeps the sessions of different tests apart.
    fn start(group: &str) -> Result<Server> {
        let scratch = tempfile::tempdir()?;
        let config = format!(
            "[listen]\nhttps = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             [multicast]\ninterface = \"127.0.0.1\"\nloopback = true\ngroup = \"{group}\"\n"
        );
        fs::write(scratch.path().join("netflash.toml"), config)?;
        Server::start_in(scratch)
    }

    fn start_in(scratch: TempDir) -> Result<Server> {
        let log = fs::File::create(scratch.path().join("server.log"))?;
        let mut process = Command::new(netflash()?)
            .arg("--dir")
            .arg(scratch.path())
            .args(["--json", "serve"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting netflash serve")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("its output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("no ready line: {line:?}"))?;
        let address = |name: &str| -> Result<SocketAddrV4> {
            Ok(ready[name].as_str().context("an address")?.parse()?)
        };
        Ok(Server {
            https: address("https")?,
            http: address("http")?,
            scratch,
            process,
        })
    }

    /// Ends the server as a power cut would, and starts another one on its directory.
    fn restart(mut self) -> Result<Server> {
        self.process.kill()?;
        self.process.wait()?;
        let scratch = std::mem::replace(&mut self.scratch, tempfile::tempdir()?);
        Server::start_in(scratch)
    }

    fn netflash(&self, words: &[&str]) -> Result<(i32, Value, String)> {
        let output = Command::new(netflash()?)
            .arg("--dir")
            .arg(self.scratch.path())
            .arg("--json")
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        let code = output.status.code().context("it was killed")?;
        let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Ok((
            code,
            value,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ))
    }

    /// A command that must succeed.
    fn ask(&self, words: &[&str]) -> Result<Value> {
        let (code, value, said) = self.netflash(words)?;
        ensure!(code == 0, "netflash {words:?} ended with {code}: {said}");
        Ok(value)
    }

    /// A small image, entered as `tiny`.
    fn add_image(&self) -> Result<()> {
        let raw = self.scratch.path().join("tiny.raw");
        fs::write(&raw, vec![9; 2 << 20])?;
        let image = self.scratch.path().join("tiny.img.zst");
        self.ask(&["image", "create", text(&raw), text(&image)])?;
        self.ask(&["image", "add", "tiny", text(&image)])?;
        Ok(())
    }

    /// What iPXE asks, and what it is answered.
    fn boot(&self, mac: &str, platform: &str) -> Result<String> {
        let query = format!(
            "mac={}&uuid=&serial=&platform={platform}",
            mac.replace(':', "-")
        );
        let (status, body) = self.fetch(&format!("/boot/ipxe?{query}"))?;
        ensure!(status == 200, "status {status}");
        Ok(String::from_utf8(body)?)
    }

    /// A file over plain HTTP.
    fn fetch(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut response = agent.get(format!("http://{}{path}", self.http)).call()?;
        let status = response.status().as_u16();
        Ok((status, response.body_mut().read_to_vec()?))
    }

    /// The token a machine gets with its boot script.
    fn token(&self, mac: &str) -> Result<String> {
        let script = self.boot(mac, "pcbios")?;
        let ticket = script
            .split("token.img?ticket=")
            .nth(1)
            .context("no token in the script")?;
        let ticket = ticket.split_whitespace().next().context("no ticket")?;
        let (_, archive) = self.fetch(&format!("/boot/token.img?ticket={ticket}"))?;
        ensure!(archive.len() % 4 == 0, "not padded");
        let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
        // The token is the only run of 64 digits that follows the file's name.
        let name = b"netflash/token\0";
        let at = archive
            .windows(name.len())
            .position(|w| w == name)
            .context("no token file")?;
        let token = archive[at..]
            .windows(64)
            .find(|w| digits(w))
            .context("no token")?;
        Ok(String::from_utf8(token.to_vec())?)
    }

    fn agent(&self) -> Result<AgentClient> {
        AgentClient::new(&self.scratch.path().join("ca.pem"), self.https)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug)]
struct Fixed(SocketAddrV4);

impl Resolver for Fixed {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0.into());
        Ok(addresses)
    }
}

/// What an agent would say.
struct AgentClient {
    http: ureq::Agent,
    port: u16,
}

impl AgentClient {
    fn new(ca: &Path, server: SocketAddrV4) -> Result<AgentClient> {
        let ca = Certificate::from_pem(&fs::read(ca)?)?.to_owned();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&[ca]))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        Ok(AgentClient {
            http: ureq::Agent::with_parts(config, DefaultConnector::default(), Fixed(server)),
            port: server.port(),
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://server.netflash.internal:{}{path}", self.port)
    }

    fn post(&self, path: &str, bearer: &str, body: &[u8]) -> Result<(u16, Value)> {
        let mut response = self
            .http
            .post(self.url(path))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {bearer}"))
            .send(body)?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string()?;
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    fn get(&self, path: &str, bearer: &str) -> Result<(u16, Value)> {
        let request = self.http.get(self.url(path));
        let mut response = request
            .header("authorization", format!("Bearer {bearer}"))
            .call()?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string()?;
        Ok((
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        ))
    }

    fn hello(&self, token: &str, key: u8) -> Result<(u16, Value)> {
        let hello = json!({
            "token": token,
            "identity": { "macs": [MAC] },
            "inventory": { "cpu": "test \u{1b}[2J", "disks": [{ "path": "/dev/vda", "bytes": 1 << 30 }] },
            "agent_key": format!("{key:02x}").repeat(32),
            "agent_version": "test",
        });
        self.post("/agent/v1/hello", "", hello.to_string().as_bytes())
    }
}

fn netflash() -> Result<PathBuf> {
    let path =
        std::env::var_os("NETFLASH_BIN").context("NETFLASH_BIN is not set: run ./scripts/test")?;
    Ok(path.into())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch paths are UTF-8")
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
    assert_eq!((status, &again["job"]), (200, &welcome["job"]));
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
        shown["inventory"]["cpu"], "test [2J",
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
    assert_eq!(
        agent.hello(&token, 1)?,
        (200, welcome.clone()),
        "a lost answer is asked for again"
    );
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
    let (_, welcome) = server.agent()?.hello(&server.token(MAC)?, 1)?;
    let server = server.restart()?;
    let bearer = welcome["bearer"].as_str().context("a bearer")?;
    let (status, answer) = server.agent()?.get("/agent/v1/job", bearer)?;
    assert_eq!(status, 200, "the same authority, the same bearer");
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
