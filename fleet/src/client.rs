//! The command line's way to the server: HTTPS with the server's own authority, under its fixed name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use netflash_pxe::{SERVER_NAME, plain};

use crate::data_dir::Running;
use crate::exit::{Exit, ExitError};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take; switching many machines takes longest.
const ANSWER: Duration = Duration::from_secs(300);
/// Largest answer, in bytes.
const ANSWER_MAX: u64 = 256 << 20;

/// Where the server is, and what proves it and us.
#[derive(Debug, Clone)]
struct Access {
    address: SocketAddr,
    token: String,
    ca: Vec<u8>,
}

impl Access {
    /// From `NETFLASH_SERVER`, `NETFLASH_TOKEN` and `NETFLASH_CA`, and for what is not set from the server's directory.
    fn find(dir: &Path) -> anyhow::Result<Access> {
        let address = match env::var("NETFLASH_SERVER") {
            Ok(text) => text.parse().context("NETFLASH_SERVER must be IP:PORT")?,
            Err(_) => running(dir)?,
        };
        let token = match env::var("NETFLASH_TOKEN") {
            Ok(token) => token,
            Err(_) => String::from_utf8_lossy(&read(&dir.join("admin.token"))?).into_owned(),
        };
        let ca = env::var_os("NETFLASH_CA").map_or_else(|| dir.join("ca.pem"), PathBuf::from);
        Ok(Access {
            address,
            token: token.trim().to_owned(),
            ca: read(&ca)?,
        })
    }
}

fn running(dir: &Path) -> anyhow::Result<SocketAddr> {
    let path = dir.join("serve.json");
    let text = fs::read_to_string(&path).map_err(|_| {
        let text = format!(
            "no server runs in {}; start it with netflash serve, or say where it is with --dir or NETFLASH_SERVER",
            dir.display()
        );
        ExitError::new(Exit::Unreachable, text)
    })?;
    let running: Running =
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let mut address = running.https;
    if address.ip().is_unspecified() {
        let loopback: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    Ok(address)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The server's fixed name, and nothing else, leads to its address.
#[derive(Debug)]
struct Fixed(SocketAddr);

impl Resolver for Fixed {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        if uri.host() != Some(SERVER_NAME) {
            return Err(ureq::Error::HostNotFound);
        }
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

/// A server that can be asked.
pub(crate) struct Client {
    agent: Agent,
    access: Access,
}

impl Client {
    /// The server of a directory, or of the environment.
    pub(crate) fn find(dir: &Path) -> anyhow::Result<Client> {
        let access = Access::find(dir)?;
        let certificate =
            Certificate::from_pem(&access.ca).context("reading the server's CA certificate")?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(std::sync::Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .root_certs(RootCerts::new_with_certs(&[certificate.to_owned()]))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(ANSWER))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Fixed(access.address));
        Ok(Client { agent, access })
    }

    /// Ask for something.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let request = self
            .agent
            .get(self.url(path))
            .header("authorization", self.authorization());
        self.answer(request.call())
    }

    /// Ask the server to do something.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let request = self
            .agent
            .post(self.url(path))
            .header("authorization", self.authorization());
        self.answer(request.send_json(body))
    }

    /// Ask the server to forget something.
    pub(crate) fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self
            .agent
            .delete(self.url(path))
            .header("authorization", self.authorization());
        self.answer::<Value>(request.call()).map(drop)
    }

    fn url(&self, path: &str) -> String {
        format!(
            "https://{SERVER_NAME}:{}/api/v1/{path}",
            self.access.address.port()
        )
    }

    fn authorization(&self) -> String {
        format!("Bearer {}", self.access.token)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        outcome: Result<Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let address = self.access.address;
        let mut response = outcome.map_err(|error| {
            ExitError::new(
                Exit::Unreachable,
                format!("the server at {address} does not answer: {error}"),
            )
        })?;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_MAX)
            .read_to_string();
        let body = body.with_context(|| format!("reading the answer of {address}"))?;
        if status.is_success() {
            return serde_json::from_str(&body)
                .with_context(|| format!("understanding the answer of {address}"));
        }
        let said = serde_json::from_str::<Value>(&body).ok();
        let said = said
            .as_ref()
            .and_then(|value| value.get("error"))
            .and_then(Value::as_str);
        let said = plain(said.unwrap_or(&body), 500);
        let said = if said.is_empty() {
            status.to_string()
        } else {
            said
        };
        Err(ExitError::new(Exit::Failed, said).into())
    }
}
