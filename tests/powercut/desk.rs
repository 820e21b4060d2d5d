//! A real server, and a machine that speaks with it by `curl`: firmware, agent, and operator in one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use netflash_imager::{SealOptions, Source, seal_to};
use serde_json::{Value, json};
use tests::sim::Chance;

/// The captured disk, bytes; it does not compress.
const DISK_BYTES: usize = 6 << 20;
/// How much the machine sends at a time.
const PART_BYTES: usize = 300_000;
/// How long the server may take to check an image.
const PATIENCE: Duration = Duration::from_secs(60);
const MAC: &str = "52:54:00:aa:00:01";
const HOST: &str = "server.netflash.internal";

/// How far a capture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Capturing,
    Sealing,
    Ready,
}

/// A server on the file system mounted at a directory.
pub(crate) struct Server {
    process: Child,
    directory: PathBuf,
    https: String,
    http: String,
}

impl Server {
    /// Starts one on `directory`.
    pub(crate) fn start(directory: &Path) -> Result<Server> {
        let program = netflash()?;
        let config = "[listen]\nhttps = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
                      [multicast]\ninterface = \"127.0.0.1\"\nloopback = true\n\
                      [boot]\nfruitless_boots_max = 1000\n";
        if !directory.join("netflash.toml").exists() {
            fs::write(directory.join("netflash.toml"), config)?;
        }
        let log = File::create(directory.with_extension("log"))?;
        let mut process = Command::new(program)
            .arg("--dir")
            .arg(directory)
            .args(["--json", "serve"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting netflash serve")?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("its output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let mut server = Server {
            process,
            directory: directory.to_owned(),
            https: String::new(),
            http: String::new(),
        };
        let ready: Value = serde_json::from_str(&line).with_context(|| {
            let log = fs::read_to_string(directory.with_extension("log"));
            format!("no ready line {line:?}: {log:?}")
        })?;
        let address = |name: &str| ready[name].as_str().map(str::to_owned);
        server.https = address("https").context("an address")?;
        server.http = address("http").context("an address")?;
        Ok(server)
    }

    /// A command that must succeed.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Value> {
        let output = Command::new(netflash()?)
            .arg("--dir")
            .arg(&self.directory)
            .arg("--json")
            .args(words)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "netflash {words:?}: {said}");
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// What firmware would fetch.
    fn fetch(&self, path: &str) -> Result<Vec<u8>> {
        curl(&[&format!("http://{}{path}", self.http)], &[])
    }

    /// A machine that was switched on: its agent's bearer and its job.
    pub(crate) fn machine(&self, key: u8) -> Result<(String, u64)> {
        let mac = MAC.replace(':', "-");
        let script = self.fetch(&format!(
            "/boot/ipxe?mac={mac}&uuid=&serial=&platform=pcbios"
        ))?;
        let script = String::from_utf8(script)?;
        let ticket = script.split("ticket=").nth(1).context("no ticket")?;
        let ticket = ticket.split_whitespace().next().context("no ticket")?;
        let archive = self.fetch(&format!("/boot/token.img?ticket={ticket}"))?;
        let name = b"netflash/token\0";
        let mut windows = archive.windows(name.len());
        let at = windows.position(|window| window == name);
        let token = archive[at.context("no token file")?..]
            .windows(64)
            .find(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let hello = json!({
            "token": String::from_utf8_lossy(token.context("no token")?),
            "identity": { "macs": [MAC] },
            "inventory": { "disks": [{ "path": "/dev/vda", "bytes": DISK_BYTES }] },
            "agent_key": format!("{key:02x}").repeat(32),
            "agent_version": "test",
        });
        let welcome = self.agent("/agent/v1/hello", "", "POST", hello.to_string().as_bytes())?;
        let bearer = welcome["bearer"].as_str().context("a bearer")?;
        let job = welcome["job"]["id"].as_u64().context("a job")?;
        Ok((bearer.to_owned(), job))
    }

    /// One request of an agent.
    pub(crate) fn agent(&self, path: &str, bearer: &str, verb: &str, body: &[u8]) -> Result<Value> {
        let port = self.https.rsplit(':').next().context("a port")?;
        let ca = self.directory.join("ca.pem");
        let resolve = format!("{HOST}:{port}:127.0.0.1");
        let secret = format!("authorization: Bearer {bearer}");
        let url = format!("https://{HOST}:{port}{path}");
        let mut words = vec!["--cacert", ca.to_str().context("a plain name")?];
        words.extend(["--resolve", &resolve, "-X", verb, "-H", &secret]);
        words.extend(["-H", "content-type: application/json"]);
        if verb != "GET" {
            words.extend(["--data-binary", "@-"]);
        }
        words.push(&url);
        Ok(serde_json::from_slice(&curl(&words, body)?)?)
    }

    /// Makes the machine known and orders the capture of its disk as `copy`.
    pub(crate) fn order(&self) -> Result<()> {
        self.ask(&["machine", "add", "lab1", "--mac", MAC])?;
        self.ask(&["job", "capture", "copy", "--machine", "lab1"])?;
        Ok(())
    }

    /// Brings the capture to its end: a machine sends what lacks, unless nothing does.
    pub(crate) fn capture(&self, image: &Sealed, key: u8) -> Result<()> {
        if self.judge(image)? == Stage::Capturing {
            let visit = Visit::begin(self, key)?;
            visit.send(image, image.bytes.len())?;
            visit.end(image)?;
        }
        self.await_ready(image)
    }

    /// Waits until the image is in the list, ready and whole.
    pub(crate) fn await_ready(&self, image: &Sealed) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.judge(image)? != Stage::Ready {
            ensure!(Instant::now() < deadline, "the image is not ready");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// How far the image is by the list: when it is ready it must be whole, and it must be in the list.
    pub(crate) fn judge(&self, image: &Sealed) -> Result<Stage> {
        let images = self.ask(&["image", "list"])?;
        let named = |list: &Value| {
            let rows = list.as_array().cloned().unwrap_or_default();
            rows.into_iter().find(|row| row["name"] == "copy")
        };
        let row = named(&images).with_context(|| format!("the capture is forgotten: {images}"))?;
        match row["state"].as_str() {
            Some("ready") => {
                let path = row["path"].as_str().context("a path")?;
                self.ask(&["image", "verify", path])?;
                ensure!(fs::read(path)? == image.bytes, "another image");
                Ok(Stage::Ready)
            }
            Some("capturing") => Ok(Stage::Capturing),
            Some("sealing") => Ok(Stage::Sealing),
            other => bail!("the capture is {other:?}: {}", self.ask(&["job", "list"])?),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A machine that was switched on and speaks with the server.
pub(crate) struct Visit<'a> {
    server: &'a Server,
    bearer: String,
    path: String,
}

impl Visit<'_> {
    pub(crate) fn begin(server: &Server, key: u8) -> Result<Visit<'_>> {
        let (bearer, job) = server.machine(key)?;
        let path = format!("/agent/v1/jobs/{job}/capture");
        Ok(Visit {
            server,
            bearer,
            path,
        })
    }

    /// What the server has.
    pub(crate) fn state(&self) -> Result<Value> {
        self.server.agent(&self.path, &self.bearer, "GET", &[])
    }

    /// Sends what the server lacks of the first `end` bytes; gives how many it had.
    pub(crate) fn send(&self, image: &Sealed, end: usize) -> Result<usize> {
        let had = self.state()?;
        let bytes = had["bytes"].as_u64().context("a number")? as usize;
        let same = bytes <= image.bytes.len()
            && had["hash"] == blake3::hash(&image.bytes[..bytes]).to_hex().as_str();
        let mut at = if same { bytes } else { 0 };
        while at < end {
            let next = (at + PART_BYTES).min(end);
            self.part(at, &image.bytes[at..next])?;
            at = next;
        }
        Ok(if same { bytes } else { 0 })
    }

    /// Says that all is there.
    pub(crate) fn end(&self, image: &Sealed) -> Result<()> {
        let end = json!({
            "bytes": image.bytes.len(), "image_id": image.id, "disk": "/dev/vda", "took_ms": 1,
        });
        let body = end.to_string();
        self.server
            .agent(&self.path, &self.bearer, "POST", body.as_bytes())?;
        Ok(())
    }

    /// Sends one part.
    pub(crate) fn part(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let place = format!("{}?offset={at}", self.path);
        self.server.agent(&place, &self.bearer, "PUT", bytes)?;
        Ok(())
    }
}

/// An image as a machine would send it.
pub(crate) struct Sealed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) id: String,
}

impl Sealed {
    /// The image of a disk of noise.
    pub(crate) fn make(directory: &Path, chance: &mut Chance) -> Result<Sealed> {
        let disk = directory.join("captured.raw");
        fs::write(&disk, chance.bytes(DISK_BYTES))?;
        let source = Source::open(&disk, directory)?;
        let options = SealOptions {
            used_only: true,
            whole: Default::default(),
            only: None,
            level: 1,
            note: String::new(),
            parent: None,
            created: 0,
            threads: 2,
        };
        let (mut bytes, stop) = (Vec::new(), AtomicBool::new(false));
        let sealed = seal_to(source, &mut bytes, &options, &mut |_| {}, &stop)?;
        let id = sealed.manifest.id().to_string();
        Ok(Sealed { bytes, id })
    }
}

/// Sends a request; an answer that is no success is an error.
fn curl(words: &[&str], body: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--max-time",
            "30",
        ])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting curl: run ./scripts/setup")?;
    let mut stdin = child.stdin.take().context("its input")?;
    let sent = stdin.write_all(body);
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() && (sent.is_ok() || body.is_empty()),
        "curl {words:?}: {} {}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(output.stdout)
}

fn netflash() -> Result<PathBuf> {
    let path =
        std::env::var_os("NETFLASH_BIN").context("NETFLASH_BIN is not set: run ./scripts/test")?;
    Ok(path.into())
}
