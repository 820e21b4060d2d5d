//! A connection to a device: TCP, TLS with a pinned certificate, one HTTP exchange after the other.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::address::Host;
use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::http::{Answer, AnswerReader};
use super::pin::{Pin, PinVerifier};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Shortest time-out of a socket: zero would be none.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// How the connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// Not at all, as the operator chose.
    None,
    /// TLS, and this certificate only.
    Pinned(Pin),
    /// TLS, and no certificate is known yet: nothing can be sent.
    Unknown,
}

/// One request.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    /// Begins with `/`.
    pub(super) path: &'a str,
    /// Without `Host` and `Content-Length`. Values may be secrets: they are never logged.
    pub(super) headers: Vec<(&'a str, String)>,
    pub(super) body: Option<String>,
}

/// A device that speaks HTTP, and the connection to it while it lasts.
pub(super) struct Wire {
    host: Host,
    port: u16,
    security: Security,
    open: Option<Stream>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// A device at an address; `port` is the one it has when the address names none.
    pub(super) fn new(host: Host, port: u16, security: Security) -> Wire {
        Wire {
            port: host.port.unwrap_or(port),
            host,
            security,
            open: None,
        }
    }

    /// Send a request and read the answer. A connection that was kept open may have been closed meanwhile: then it is
    /// sent once more, on a fresh one.
    pub(super) fn exchange(
        &mut self,
        request: &Request<'_>,
        until: Deadline,
    ) -> Result<Answer, PowerError> {
        if self.security == Security::Unknown {
            let text =
                "no certificate of it is known; netflash power trust MACHINE shows and keeps it";
            return Err(Failure::TlsMismatch.because(text));
        }
        if request.method == "POST" {
            // What must not happen twice is never sent twice.
            self.open = None;
        }
        let kept = self.open.is_some();
        match self.converse(request, until) {
            Err(Lost::BeforeAnyByte(_)) if kept => self.converse(request, until),
            other => other,
        }
        .map_err(|lost| match lost {
            Lost::BeforeAnyByte(error) | Lost::Midway(error) => error,
        })
    }

    /// The certificate it shows. Nothing is sent.
    pub(super) fn certificate(&self, until: Deadline) -> Result<Pin, PowerError> {
        let (verifier, mut tls) = self.tls(None, until)?;
        finish_handshake(&mut tls, until).map_err(|error| self.failure(&error, until))?;
        let met = verifier.met();
        met.ok_or_else(|| Failure::TlsMismatch.because("it shows no certificate"))
    }

    fn converse(&mut self, request: &Request<'_>, until: Deadline) -> Result<Answer, Lost> {
        let mut stream = match self.open.take() {
            Some(stream) => stream,
            None => self.connect(until).map_err(Lost::Midway)?,
        };
        let mut reader = AnswerReader::new();
        let text = self.render(request);
        let sent = stream
            .limit(until)
            .and_then(|()| stream.write_all(text.as_bytes()));
        if let Err(error) = sent.and_then(|()| stream.flush()) {
            return Err(Lost::BeforeAnyByte(self.failure(&error, until)));
        }
        let mut bytes = [0; 4096];
        loop {
            let read = stream.limit(until).and_then(|()| stream.read(&mut bytes));
            let complete = match read {
                Ok(0) if reader.is_untouched() => {
                    let text = "it closed the connection without an answer";
                    return Err(Lost::BeforeAnyByte(Failure::Garbage.because(text)));
                }
                Ok(0) => true,
                Ok(length) => reader
                    .feed(&bytes[..length])
                    .map_err(|error| Lost::Midway(Failure::Garbage.because(error.to_string())))?,
                // Many devices close without TLS's farewell; whether the answer is whole, its length tells.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => true,
                Err(error) if reader.is_untouched() => {
                    return Err(Lost::BeforeAnyByte(self.failure(&error, until)));
                }
                Err(error) => return Err(Lost::Midway(self.failure(&error, until))),
            };
            if complete {
                break;
            }
        }
        let answer = reader
            .finish()
            .map_err(|error| Lost::Midway(Failure::Garbage.because(error.to_string())))?;
        if answer.keeps_open() {
            self.open = Some(stream);
        }
        Ok(answer)
    }

    fn render(&self, request: &Request<'_>) -> String {
        let Request {
            method,
            path,
            headers,
            body,
        } = request;
        let host = if self.host.name.contains(':') {
            format!("[{}]:{}", self.host.name, self.port)
        } else {
            format!("{}:{}", self.host.name, self.port)
        };
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body {
            text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        } else {
            text += "\r\n";
        }
        text
    }

    fn connect(&self, until: Deadline) -> Result<Stream, PowerError> {
        match self.security {
            Security::None => self.tcp(until).map(Stream::Plain),
            Security::Unknown => Err(Failure::TlsMismatch.because("no certificate of it is known")),
            Security::Pinned(pin) => {
                let (verifier, mut tls) = self.tls(Some(pin), until)?;
                finish_handshake(&mut tls, until).map_err(|error| match verifier.met() {
                    Some(met) if met != pin => {
                        let text = format!("its certificate is {met}, known is {pin}");
                        Failure::TlsMismatch.because(text)
                    }
                    _ => self.failure(&error, until),
                })?;
                Ok(Stream::Tls(Box::new(tls)))
            }
        }
    }

    fn tcp(&self, until: Deadline) -> Result<TcpStream, PowerError> {
        let unreachable = |error: io::Error| {
            let text = match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer".to_owned(),
                _ => error.to_string(),
            };
            Failure::Unreachable.because(format!("{} port {}: {text}", self.host.name, self.port))
        };
        let addresses = (self.host.name.as_str(), self.port).to_socket_addrs();
        let addresses: Vec<_> = addresses
            .map_err(unreachable)?
            .take(ADDRESSES_MAX)
            .collect();
        let mut last = io::Error::other("its name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, until.left().max(WAIT_MIN)) {
                Ok(stream) => {
                    // A request is one write; waiting for more would only slow it down.
                    stream.set_nodelay(true).map_err(unreachable)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    fn tls(
        &self,
        pinned: Option<Pin>,
        until: Deadline,
    ) -> Result<(Arc<PinVerifier>, StreamOwned<ClientConnection, TcpStream>), PowerError> {
        let mismatch = |error: rustls::Error| Failure::TlsMismatch.because(error.to_string());
        let (verifier, config) = PinVerifier::new(pinned).map_err(mismatch)?;
        let name = ServerName::try_from(self.host.name.clone())
            .map_err(|error| Failure::Setting.because(error.to_string()))?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(mismatch)?;
        let socket = self.tcp(until)?;
        limit(&socket, until).map_err(|error| self.failure(&error, until))?;
        Ok((verifier, StreamOwned::new(connection, socket)))
    }

    fn failure(&self, error: &io::Error, until: Deadline) -> PowerError {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match (tls, error.kind()) {
            (Some(rustls::Error::InvalidMessage(_)), _) => {
                Failure::Garbage.because(format!("what it says is no TLS: {error}"))
            }
            (Some(tls), _) => Failure::TlsMismatch.because(tls.to_string()),
            (None, ErrorKind::WouldBlock | ErrorKind::TimedOut) => until.passed("no answer"),
            (None, _) => Failure::Unreachable.because(format!("{}: {error}", self.host.name)),
        }
    }
}

/// A conversation that ended early.
enum Lost {
    /// The device may not even have seen the request.
    BeforeAnyByte(PowerError),
    Midway(PowerError),
}

/// Step by step, so that a device that sends a byte now and then is not waited for longer than the deadline.
fn finish_handshake(
    tls: &mut StreamOwned<ClientConnection, TcpStream>,
    until: Deadline,
) -> io::Result<()> {
    while tls.conn.is_handshaking() {
        limit(&tls.sock, until)?;
        if tls.conn.wants_write() {
            tls.conn.write_tls(&mut tls.sock)?;
            continue;
        }
        if tls.conn.read_tls(&mut tls.sock)? == 0 {
            return Err(io::Error::other(
                "it closed the connection during the TLS handshake",
            ));
        }
        if let Err(error) = tls.conn.process_new_packets() {
            // The device may log why we go; whether it hears that changes nothing.
            let _ = tls.conn.write_tls(&mut tls.sock);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
    }
    Ok(())
}

/// Let no operation last longer than the deadline.
fn limit(socket: &TcpStream, until: Deadline) -> io::Result<()> {
    if until.is_over() {
        return Err(ErrorKind::TimedOut.into());
    }
    let left = Some(until.left().max(WAIT_MIN));
    socket.set_read_timeout(left)?;
    socket.set_write_timeout(left)
}

impl Stream {
    fn limit(&self, until: Deadline) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => limit(socket, until),
            Stream::Tls(tls) => limit(&tls.sock, until),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(bytes),
            Stream::Tls(tls) => tls.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}
