//! The server, as the agent sees it: JSON over TLS, believed only by its private authority.
//!
//! One name is hard-wired and resolved by ourselves to the address in `trust.img`, so the TLS
//! library's own verification stays on, with no DNS and no clock that matters.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netflash_pxe::{
    API_ANNOUNCE, API_CAPTURE, API_EVENTS, API_HELLO, API_IMAGE, API_JOB, API_KNOCK, API_MANIFEST,
    AgentEvent, CaptureEnd, CaptureState, EventsAnswer, Hello, JobAnswer, Knock, KnockAnswer,
    POSITION_HEADER, SENDER_HEADER, SERVER_NAME, Welcome, plain,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::config::Config;
use ureq::http::{StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use crate::trust::Trust;

/// Longest wait for one request, from connecting to the last byte.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// Longest wait for a manifest or a part of an image: the server sends no faster than it likes.
const FETCH_MAX: Duration = Duration::from_secs(180);
/// Largest manifest or part of an image, in bytes.
const FETCH_BYTES_MAX: u64 = 64 << 20;
/// When to ask again, if the server does not say.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest part of a refusal that is shown.
const REFUSAL_MAX: usize = 200;

/// Why the server did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// It cannot be used at all: the authority is not one.
    #[error("the server's authority (ca.pem of trust.img) is damaged: {0}")]
    Authority(String),
    /// No connection, no trust, or no answer in time.
    #[error("server {address}: {problem}")]
    Unreachable {
        address: SocketAddr,
        problem: String,
    },
    /// It answered that it will not.
    #[error("server {address} refused ({status}): {message}")]
    Refused {
        address: SocketAddr,
        status: u16,
        message: String,
    },
    /// Others come first.
    #[error("server {address}: number {position} in the queue")]
    Busy {
        address: SocketAddr,
        position: u32,
        again: Duration,
    },
    /// It answered something else than the contract says.
    #[error("server {address} gave an answer that makes no sense: {problem}")]
    Nonsense {
        address: SocketAddr,
        problem: String,
    },
}

impl ServerError {
    /// The HTTP status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            ServerError::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether asking again later may help without anybody changing anything here.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            ServerError::Authority(_) => false,
            ServerError::Refused { status, .. } => *status == 429 || *status >= 500,
            ServerError::Unreachable { .. }
            | ServerError::Busy { .. }
            | ServerError::Nonsense { .. } => true,
        }
    }
}

/// A connection's worth of trust.
pub(crate) struct Server {
    agent: Agent,
    address: SocketAddr,
    hello: Hello,
    bearer: Mutex<String>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}

impl Server {
    /// Prepares to talk; nothing is sent yet.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub(crate) fn new(trust: &Trust, hello: Hello) -> Result<Server, ServerError> {
        let authority = Certificate::from_pem(&trust.authority)
            .map_err(|error| ServerError::Authority(error.to_string()))?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[authority]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(REQUEST_MAX))
            .timeout_connect(Some(CONNECT_MAX))
            .user_agent(concat!("netflash-init/", env!("CARGO_PKG_VERSION")))
            .build();
        let resolver = Fixed(trust.server);
        Ok(Server {
            agent: Agent::with_parts(config, DefaultConnector::default(), resolver),
            address: trust.server,
            hello,
            bearer: Mutex::new(String::new()),
        })
    }

    /// Our address on the way to the server, which names the card to receive by.
    ///
    /// # Errors
    /// When there is no route.
    pub(crate) fn local_address(&self) -> std::io::Result<IpAddr> {
        let anywhere: IpAddr = match self.address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((anywhere, 0))?;
        // Connecting a datagram socket sends nothing; it asks the kernel for the route.
        socket.connect(self.address)?;
        Ok(socket.local_addr()?.ip())
    }

    /// The server's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks what there is to do, without a token.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn knock(&self, again: bool) -> Result<KnockAnswer, ServerError> {
        let knock = Knock {
            identity: self.hello.identity.clone(),
            firmware: self.hello.inventory.firmware,
            again,
        };
        self.finish(self.agent.post(self.url(API_KNOCK)).send_json(&knock))
    }

    /// The same server, with the token that a knock brought.
    pub(crate) fn with_token(mut self, token: String) -> Server {
        self.hello.token = token;
        self
    }

    /// Says who we are, and remembers the secret for what follows.
    ///
    /// # Errors
    /// See [`ServerError`]; 403 means that the token is spent or not ours.
    pub(crate) fn hello(&self) -> Result<Welcome, ServerError> {
        let request = self.agent.post(self.url(API_HELLO));
        let welcome: Welcome = self.finish(request.send_json(&self.hello))?;
        let mut bearer = self.bearer.lock().unwrap_or_else(PoisonError::into_inner);
        bearer.clone_from(&welcome.bearer);
        Ok(welcome)
    }

    /// What is there to do?
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn job(&self) -> Result<JobAnswer, ServerError> {
        self.with_bearer(|bearer| {
            let request = self.agent.get(self.url(API_JOB));
            self.finish(request.header("authorization", bearer).call())
        })
    }

    /// Tells what happened to a job.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn events(
        &self,
        job: u64,
        events: &[AgentEvent],
    ) -> Result<EventsAnswer, ServerError> {
        let path = API_EVENTS.replace("{id}", &job.to_string());
        self.with_bearer(|bearer| self.post(&path, bearer, events))
    }

    /// The announce of a job's session, and the address that sent it.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn announce(&self, job: u64) -> Result<(SocketAddr, Vec<u8>), ServerError> {
        let (sender, datagram) = self.fetch(API_ANNOUNCE, job, None)?;
        let sender = sender.ok_or_else(|| ServerError::Nonsense {
            address: self.address,
            problem: "an announce without its sender".to_owned(),
        })?;
        Ok((sender, datagram))
    }

    /// The manifest of a job's image.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn manifest(&self, job: u64) -> Result<Vec<u8>, ServerError> {
        Ok(self.fetch(API_MANIFEST, job, None)?.1)
    }

    /// A part of the file of a job's image.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn image(&self, job: u64, range: &Range<u64>) -> Result<Vec<u8>, ServerError> {
        Ok(self.fetch(API_IMAGE, job, Some(range))?.1)
    }

    /// What the server has of the image that is being captured.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn capture_state(&self, job: u64) -> Result<CaptureState, ServerError> {
        let url = self.url(&API_CAPTURE.replace("{id}", &job.to_string()));
        self.with_bearer(|bearer| {
            let request = self.agent.get(&url).header("authorization", bearer);
            let request = request.config().timeout_global(Some(FETCH_MAX)).build();
            self.finish(request.call())
        })
    }

    /// Sends the part of an image that begins at `offset`.
    ///
    /// # Errors
    /// See [`ServerError`]; 409 means that the image does not end there.
    pub(crate) fn capture_part(
        &self,
        job: u64,
        offset: u64,
        part: &[u8],
    ) -> Result<CaptureState, ServerError> {
        let path = API_CAPTURE.replace("{id}", &job.to_string());
        let url = format!("{}?offset={offset}", self.url(&path));
        self.with_bearer(|bearer| {
            let request = self.agent.put(&url).header("authorization", bearer);
            let request = request.config().timeout_global(Some(FETCH_MAX)).build();
            self.finish(request.send(part))
        })
    }

    /// Says that the image is complete.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub(crate) fn capture_end(
        &self,
        job: u64,
        end: &CaptureEnd,
    ) -> Result<CaptureState, ServerError> {
        let path = API_CAPTURE.replace("{id}", &job.to_string());
        self.with_bearer(|bearer| self.post(&path, bearer, end))
    }

    fn fetch(
        &self,
        path: &str,
        job: u64,
        range: Option<&Range<u64>>,
    ) -> Result<(Option<SocketAddr>, Vec<u8>), ServerError> {
        let path = path.replace("{id}", &job.to_string());
        self.with_bearer(|bearer| {
            let mut request = self
                .agent
                .get(self.url(&path))
                .header("authorization", bearer);
            if let Some(range) = range {
                let range = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
                request = request.header("range", range);
            }
            let request = request.config().timeout_global(Some(FETCH_MAX)).build();
            let response = request.call();
            let mut response = response.map_err(|error| self.unreachable(&error))?;
            let header = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
            if let Some(position) = header(POSITION_HEADER) {
                let again = header("retry-after")
                    .map(u64::from)
                    .map(Duration::from_secs);
                return Err(ServerError::Busy {
                    address: self.address,
                    position,
                    again: again.unwrap_or(AGAIN),
                });
            }
            let status = response.status();
            let sender = response.headers().get(SENDER_HEADER);
            let sender = sender.and_then(|value| value.to_str().ok()?.parse().ok());
            let body = response.body_mut().with_config().limit(FETCH_BYTES_MAX);
            let body = body.read_to_vec();
            let body = body.map_err(|error| self.unreachable(&error))?;
            self.accepted(status, &body)?;
            Ok((sender, body))
        })
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        bearer: &str,
        body: impl Serialize,
    ) -> Result<T, ServerError> {
        let request = self.agent.post(self.url(path));
        self.finish(request.header("authorization", bearer).send_json(body))
    }

    /// Does a request; when the server has forgotten us (it was restarted), says hello once more.
    fn with_bearer<T>(
        &self,
        request: impl Fn(&str) -> Result<T, ServerError>,
    ) -> Result<T, ServerError> {
        let outcome = request(&self.authorization());
        if outcome
            .as_ref()
            .is_err_and(|error| error.status() == Some(401))
        {
            self.hello()?;
            return request(&self.authorization());
        }
        outcome
    }

    fn authorization(&self) -> String {
        let bearer = self.bearer.lock().unwrap_or_else(PoisonError::into_inner);
        format!("Bearer {bearer}")
    }

    fn url(&self, path: &str) -> String {
        format!("https://{SERVER_NAME}:{}{path}", self.address.port())
    }

    /// Whether the server did as asked; if not, what it says.
    fn accepted(&self, status: StatusCode, body: &[u8]) -> Result<(), ServerError> {
        if status.is_success() {
            return Ok(());
        }
        Err(ServerError::Refused {
            address: self.address,
            status: status.as_u16(),
            message: plain(&String::from_utf8_lossy(body), REFUSAL_MAX),
        })
    }

    /// What went wrong before there was an answer.
    fn unreachable(&self, error: &ureq::Error) -> ServerError {
        ServerError::Unreachable {
            address: self.address,
            problem: error.to_string(),
        }
    }

    fn finish<T: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<Body>, ureq::Error>,
    ) -> Result<T, ServerError> {
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_MAX);
        let body = body.read_to_vec();
        let body = body.map_err(|error| self.unreachable(&error))?;
        self.accepted(status, &body)?;
        serde_json::from_slice(&body).map_err(|error| ServerError::Nonsense {
            address: self.address,
            problem: error.to_string(),
        })
    }
}

/// Every name is this address; the certificate decides whether it is the right one.
#[derive(Debug)]
struct Fixed(SocketAddr);

impl Resolver for Fixed {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

#[cfg(test)]
pub(crate) mod tests;
