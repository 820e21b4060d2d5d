//! The agent's side of the contract against a TLS server with a private authority.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use netflash_pxe::{Hello, Hex32, Identity, Inventory};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{SERVER_NAME, Server, ServerError};
use crate::trust::Trust;

/// What a request is answered with.
#[derive(Clone)]
pub(crate) struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(body: &str) -> Answer {
        Answer {
            status: 200,
            body: body.into(),
        }
    }

    pub(crate) fn status(status: u16) -> Answer {
        Answer {
            status,
            body: b"no\x1b[2J".to_vec(),
        }
    }
}

/// Heads and bodies of all requests so far.
type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A server that gives its answers in order, and the last one for ever.
pub(crate) struct FakeServer {
    address: SocketAddr,
    authority: String,
    requests: Requests,
}

impl FakeServer {
    pub(crate) fn start(answers: Vec<Answer>) -> FakeServer {
        FakeServer::named(SERVER_NAME, answers)
    }

    fn named(name: &str, answers: Vec<Answer>) -> FakeServer {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let config = Arc::new(config);
        thread::spawn(move || {
            let mut answers = VecDeque::from(answers);
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                serve(StreamOwned::new(connection, stream), &mut answers, &seen);
            }
        });
        FakeServer {
            address,
            authority: authority.pem(),
            requests,
        }
    }

    pub(crate) fn client(&self) -> Server {
        let trust = Trust {
            authority: self.authority.clone().into_bytes(),
            server: self.address,
            token: Some("token".into()),
        };
        Server::new(&trust, hello()).unwrap()
    }

    /// Bodies of all requests so far.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(_, body)| body.clone()).collect()
    }

    fn heads(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|(head, _)| head.clone()).collect()
    }
}

/// One connection: requests with a length, answers that close it.
fn serve(
    stream: StreamOwned<ServerConnection, TcpStream>,
    answers: &mut VecDeque<Answer>,
    seen: &Requests,
) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    seen.lock().unwrap().push((head, body));
    let answer = if answers.len() > 1 {
        answers.pop_front().unwrap()
    } else {
        answers[0].clone()
    };
    let head = format!(
        "HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        answer.status,
        answer.body.len()
    );
    let stream = reader.get_mut();
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&answer.body);
    let _ = stream.flush();
}

fn hello() -> Hello {
    Hello {
        token: "token".into(),
        identity: Identity::default(),
        inventory: Inventory::default(),
        agent_key: Hex32([3; 32]),
        agent_version: "test".into(),
    }
}

const WELCOME: &str = r#"{"machine":1,"name":"lab","bearer":"secret","job":null,
    "poll_seconds":5,"server_time":1700000000}"#;
const NO_JOB: &str = r#"{"job":null,"poll_seconds":5}"#;

#[test]
fn the_secret_of_the_welcome_goes_with_what_follows() {
    let server = FakeServer::start(vec![Answer::json(WELCOME), Answer::json(NO_JOB)]);
    let client = server.client();
    assert_eq!(client.hello().unwrap().name, "lab");
    assert_eq!(client.job().unwrap().job, None);
    assert!(server.heads()[1].contains("authorization: Bearer secret"));
}

#[test]
fn a_server_that_forgot_us_is_greeted_again() {
    let server = FakeServer::start(vec![
        Answer::status(401),
        Answer::json(WELCOME),
        Answer::json(NO_JOB),
    ]);
    server.client().job().unwrap();
    assert_eq!(server.heads().len(), 3);
}

#[test]
fn a_server_of_another_authority_is_not_believed() {
    let server = FakeServer::start(vec![Answer::json(WELCOME)]);
    let other = FakeServer::start(vec![Answer::json(WELCOME)]);
    let trust = Trust {
        authority: other.authority.into_bytes(),
        server: server.address,
        token: Some("token".into()),
    };
    let error = Server::new(&trust, hello()).unwrap().hello().unwrap_err();
    assert!(matches!(error, ServerError::Unreachable { .. }), "{error}");
    assert!(server.bodies().is_empty(), "the token must not reach it");
}

#[test]
fn who_knocks_says_hello_with_the_token_it_got() {
    let answer = r#"{"token":"fresh","reason":"job 1 is active","again_seconds":5}"#;
    let server = FakeServer::start(vec![Answer::json(answer), Answer::json(WELCOME)]);
    let answer = server.client().knock(false).unwrap();
    let client = server.client().with_token(answer.token.unwrap());
    client.hello().unwrap();
    let bodies = server.bodies();
    let text = |at: usize| String::from_utf8_lossy(&bodies[at]).into_owned();
    assert!(text(0).contains("identity") && !text(0).contains("token"));
    assert!(text(1).contains("\"fresh\""));
}

#[test]
fn a_server_of_another_name_is_not_believed() {
    let server = FakeServer::named("other.example", vec![Answer::json(WELCOME)]);
    let error = server.client().hello().unwrap_err();
    assert!(matches!(error, ServerError::Unreachable { .. }), "{error}");
}

#[test]
fn a_refusal_is_shown_without_its_control_characters() {
    let server = FakeServer::start(vec![Answer::status(403)]);
    let error = server.client().hello().unwrap_err();
    assert_eq!(error.status(), Some(403));
    assert!(!error.may_pass());
    assert!(!error.to_string().contains('\x1b'));
}

#[test]
fn hostile_answers_are_errors_that_pass() {
    let endless = format!("{{\"machine\":{}", " ".repeat(2 << 20));
    let nested = "[".repeat(100_000);
    for body in ["", "nonsense", "{\"machine\":\"x\"}", &endless, &nested] {
        let server = FakeServer::start(vec![Answer::json(body)]);
        let error = server.client().hello().unwrap_err();
        assert!(error.may_pass(), "{error}");
    }
}

#[test]
fn nobody_there_is_an_error_that_names_the_address() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let trust = Trust {
        authority: FakeServer::start(vec![]).authority.into_bytes(),
        server: address,
        token: Some("token".into()),
    };
    let error = Server::new(&trust, hello()).unwrap().hello().unwrap_err();
    assert!(error.to_string().contains(&address.to_string()));
}

#[test]
fn an_authority_of_garbage_is_an_error() {
    let trust = Trust {
        authority: b"garbage".to_vec(),
        server: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        token: None,
    };
    let error = Server::new(&trust, hello()).unwrap_err();
    assert!(!error.may_pass());
}
