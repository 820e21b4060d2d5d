//! A server process in a scratch directory, and the clients that talk to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddrV4;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// The machine of these tests.
pub(crate) const MAC: &str = "52:54:00:aa:00:01";

/// A server in a directory of its own, ended by force with this value.
pub(crate) struct Server {
    pub(crate) scratch: TempDir,
    process: Child,
    pub(crate) https: SocketAddrV4,
    pub(crate) http: SocketAddrV4,
}

impl Server {
    /// Starts a server; `group` keeps the sessions of different tests apart.
    pub(crate) fn start(group: &str) -> Result<Server> {
        Server::start_with(group, "")
    }

    /// The same with more lines of configuration, the first of them about multicast.
    pub(crate) fn start_with(group: &str, more: &str) -> Result<Server> {
        let scratch = tempfile::tempdir()?;
        let config = format!(
            "[listen]\nhttps = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
             [multicast]\ninterface = \"127.0.0.1\"\nloopback = true\ngroup = \"{group}\"\n{more}"
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
    pub(crate) fn restart(mut self) -> Result<Server> {
        self.process.kill()?;
        self.process.wait()?;
        let scratch = std::mem::replace(&mut self.scratch, tempfile::tempdir()?);
        Server::start_in(scratch)
    }

    pub(crate) fn netflash(&self, words: &[&str]) -> Result<(i32, Value, String)> {
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
    pub(crate) fn ask(&self, words: &[&str]) -> Result<Value> {
        let (code, value, said) = self.netflash(words)?;
        ensure!(code == 0, "netflash {words:?} ended with {code}: {said}");
        Ok(value)
    }

    /// A small image, entered as `tiny`.
    pub(crate) fn add_image(&self) -> Result<()> {
        self.add_image_of("tiny", &vec![9; 2 << 20]).map(drop)
    }

    /// The image of a disk with these bytes, entered under `name`; where its file is.
    pub(crate) fn add_image_of(&self, name: &str, disk: &[u8]) -> Result<PathBuf> {
        let raw = self.scratch.path().join(format!("{name}.raw"));
        fs::write(&raw, disk)?;
        let image = self.scratch.path().join(format!("{name}.img.zst"));
        self.ask(&["image", "create", text(&raw), text(&image)])?;
        self.ask(&["image", "add", name, text(&image)])?;
        Ok(image)
    }

    /// What iPXE asks, and what it is answered.
    pub(crate) fn boot(&self, mac: &str, platform: &str) -> Result<String> {
        let query = format!(
            "mac={}&uuid=&serial=&platform={platform}",
            mac.replace(':', "-")
        );
        let (status, body) = self.fetch(&format!("/boot/ipxe?{query}"))?;
        ensure!(status == 200, "status {status}");
        Ok(String::from_utf8(body)?)
    }

    /// A file over plain HTTP.
    pub(crate) fn fetch(&self, path: &str) -> Result<(u16, Vec<u8>)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut response = agent.get(format!("http://{}{path}", self.http)).call()?;
        let status = response.status().as_u16();
        Ok((status, response.body_mut().read_to_vec()?))
    }

    /// The token a machine gets with its boot script.
    pub(crate) fn token(&self, mac: &str) -> Result<String> {
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

    pub(crate) fn agent(&self) -> Result<AgentClient> {
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
pub(crate) struct AgentClient {
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

    pub(crate) fn post(&self, path: &str, bearer: &str, body: &[u8]) -> Result<(u16, Value)> {
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

    pub(crate) fn get(&self, path: &str, bearer: &str) -> Result<(u16, Value)> {
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

    /// A part of something, or all of it: the answer with its head and its bytes.
    pub(crate) fn fetch(
        &self,
        path: &str,
        bearer: &str,
        range: Option<Range<usize>>,
    ) -> Result<(Response<()>, Vec<u8>)> {
        let request = self.http.get(self.url(path));
        let mut request = request.header("authorization", format!("Bearer {bearer}"));
        if let Some(range) = range {
            request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        let (head, mut body) = request.call()?.into_parts();
        Ok((Response::from_parts(head, ()), body.read_to_vec()?))
    }

    pub(crate) fn hello(&self, token: &str, key: u8) -> Result<(u16, Value)> {
        self.hello_as(MAC, token, key)
    }

    pub(crate) fn hello_as(&self, mac: &str, token: &str, key: u8) -> Result<(u16, Value)> {
        let hello = json!({
            "token": token,
            "identity": { "macs": [mac] },
            "inventory": { "cpu": "test \u{1b}[2J", "disks": [{ "path": "/dev/vda", "bytes": 1 << 30 }] },
            "agent_key": format!("{key:02x}").repeat(32),
            "agent_version": "test",
        });
        self.post("/agent/v1/hello", "", hello.to_string().as_bytes())
    }
}

/// The program under test.
pub(crate) fn netflash() -> Result<PathBuf> {
    let path =
        std::env::var_os("NETFLASH_BIN").context("NETFLASH_BIN is not set: run ./scripts/test")?;
    Ok(path.into())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("scratch paths are UTF-8")
}
