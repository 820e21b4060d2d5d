//! An HTTP service as strict as a device: what is not said as it must be is refused, and answers come in odd pieces.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Longest head and longest body of a request, in bytes.
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 1 << 20;
/// A client that says nothing for so long is hung up on.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes of a chunk in answers: devices cut where it suits them.
const CHUNK: usize = 97;

/// What a client asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

/// What it is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// Whoever answers.
pub(crate) trait Answering: Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, asked: &Asked) -> Reply;
}

/// A certificate that signs for itself, as devices have.
pub(crate) struct OwnCertificate {
    tls: Arc<ServerConfig>,
}

impl OwnCertificate {
    /// Makes one in `directory`.
    pub(crate) fn make(directory: &Path) -> Result<OwnCertificate> {
        let (certificate, key) = (directory.join("device.pem"), directory.join("device.key"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-days", "3650", "-subj", "/CN=device"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .context("starting openssl: run ./scripts/setup")?;
        ensure!(
            made.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let chain = vec![CertificateDer::from_pem_slice(&fs::read(&certificate)?)?];
        let key = PrivateKeyDer::from_pem_slice(&fs::read(&key)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(OwnCertificate { tls: Arc::new(tls) })
    }
}

/// A running service; it ends with this value.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Answers at a free port of `host`, over TLS when there is a certificate.
    pub(crate) fn start(
        host: &str,
        certificate: Option<&OwnCertificate>,
        answering: Arc<dyn Answering>,
    ) -> Result<Service> {
        Service::start_at(SocketAddr::new(host.parse()?, 0), certificate, answering)
    }

    /// The same at a port that is known.
    pub(crate) fn start_at(
        address: SocketAddr,
        certificate: Option<&OwnCertificate>,
        answering: Arc<dyn Answering>,
    ) -> Result<Service> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tls = certificate.map(|certificate| Arc::clone(&certificate.tls));
        let thread = thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (tls, answering) = (tls.clone(), Arc::clone(&answering));
                // A client that goes away ends its own conversation only.
                thread::spawn(move || drop(converse(socket, tls, answering.as_ref())));
            }
        });
        Ok(Service {
            address,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn converse(
    socket: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    answering: &dyn Answering,
) -> Result<()> {
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_nodelay(true)?;
    match tls {
        None => serve(socket, answering),
        Some(config) => serve(
            StreamOwned::new(ServerConnection::new(config)?, socket),
            answering,
        ),
    }
}

fn serve(mut stream: impl Read + Write, answering: &dyn Answering) -> Result<()> {
    while let Some(asked) = read(&mut stream)? {
        let reply = answering.answer(&asked);
        stream.write_all(&rendered(&reply))?;
        stream.flush()?;
        if reply.headers.iter().any(|(name, _)| *name == "Connection") {
            break;
        }
    }
    Ok(())
}

fn read(stream: &mut impl Read) -> Result<Option<Asked>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        ensure!(bytes.len() < HEAD_MAX, "the head is too long");
        if stream.read(&mut byte)? == 0 {
            ensure!(bytes.is_empty(), "the head is cut off");
            return Ok(None);
        }
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes)?;
    let mut lines = head.trim_end().split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, path, "HTTP/1.1"] = first.as_slice() else {
        anyhow::bail!("{first:?} is no request");
    };
    let headers: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(": ").context("a header without a value")?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect::<Result<_>>()?;
    let mut asked = Asked {
        method: (*method).to_owned(),
        path: (*path).to_owned(),
        headers,
        body: Vec::new(),
    };
    ensure!(asked.header("host").is_some(), "no Host");
    ensure!(
        asked.header("transfer-encoding").is_none(),
        "devices take no chunked requests"
    );
    let length: usize = asked.header("content-length").unwrap_or("0").parse()?;
    ensure!(length <= BODY_MAX, "the body is too long");
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}

/// Chunked, with sizes of four digits and cuts anywhere.
fn rendered(reply: &Reply) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {} Said\r\n", reply.status).into_bytes();
    for (name, value) in &reply.headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if reply.status == 204 {
        bytes.extend(b"\r\n");
        return bytes;
    }
    bytes.extend(b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in reply.body.as_bytes().chunks(CHUNK) {
        bytes.extend(format!("{:04X}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
