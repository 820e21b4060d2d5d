//! Plain HTTP for firmware and iPXE: scripts, kernel, RAM disks. Nothing here is secret but the one-time token, which
//! whoever can read the network can read as well; `docs/OPERATING.md` says what that means.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

use netflash_appliance::{Cpio, CpioError};
use netflash_pxe::{
    AgentBoot, DISK_LOADER, Identity, Mac, Platform, boot_script, plain, start_script,
};

use super::answer::{Web, refusal};
use crate::config::BootConfig;
use crate::fleet::{BootRequest, Way};

/// Longest value of a query parameter that is looked at, in characters.
const VALUE_MAX: usize = 128;
/// What may be fetched from the appliance's directory.
pub(super) const APPLIANCE_FILES: [&str; 2] = ["vmlinuz", "initramfs.img"];

pub(super) fn routes(web: Arc<Web>) -> Router {
    Router::new()
        .route("/boot/start.ipxe", get(start))
        .route("/boot/ipxe", get(ipxe))
        .route("/boot/trust.img", get(trust))
        .route("/boot/token.img", get(token))
        .route("/boot/{file}", get(file))
        .with_state(web)
}

/// `trust.img`: the authority an agent trusts, and where the server is.
pub(super) fn trust_image(web: &Web, address: Ipv4Addr) -> Result<Vec<u8>, CpioError> {
    let mut archive = Cpio::new();
    archive.file("netflash/ca.pem", 0o644, web.fleet.ca_pem.as_bytes())?;
    let server = format!("{address}:{}\n", web.running.https.port());
    archive.file("netflash/server", 0o644, server.as_bytes())?;
    Ok(archive.finish())
}

/// The one-time token as the file an agent finds it in.
pub(super) fn token_image(token: &str) -> Result<Vec<u8>, CpioError> {
    let mut archive = Cpio::new();
    archive.file("netflash/token", 0o600, token.as_bytes())?;
    Ok(archive.finish())
}

/// The agent's kernel command line; `mac` is the card that was booted from, `own` what this machine alone is given.
pub(super) fn command_line(config: &BootConfig, mac: Option<Mac>, own: &str) -> String {
    let prefer = mac.map(|mac| format!(" netflash.iface={mac}"));
    let prefer = prefer.unwrap_or_default();
    format!("{} {}{prefer} {own}", config.console, config.kernel_extra)
}

/// What a boot loader says of its machine, if it says anything.
pub(super) fn given(text: &str) -> Option<String> {
    let text = plain(text, VALUE_MAX);
    (!text.is_empty()).then_some(text)
}

async fn start(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    text(start_script(&web.base(&headers)))
}

/// What iPXE says of a machine. Everything is optional, and everything may be nonsense.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Asked {
    mac: String,
    uuid: String,
    serial: String,
    board: String,
    platform: String,
}

impl Asked {
    fn request(&self) -> BootRequest {
        let mac = self.mac.parse().ok();
        let Ok(platform) = self.platform.parse::<Platform>();
        BootRequest {
            identity: Identity {
                uuid: given(&self.uuid),
                serial: given(&self.serial),
                board_serial: given(&self.board),
                macs: mac.into_iter().collect(),
            },
            platform,
            way: Way::Network,
        }
    }
}

async fn ipxe(
    State(web): State<Arc<Web>>,
    headers: HeaderMap,
    Query(asked): Query<Asked>,
) -> Response {
    let request = asked.request();
    let platform = request.platform;
    let mac = request.identity.macs.first().copied();
    let fleet = Arc::clone(&web.fleet);
    let answer = tokio::task::spawn_blocking(move || fleet.boot(&request)).await;
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return error.into_response(),
        Err(died) => {
            log::error!("boot request died: {died}");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let ticket = answer.ticket.unwrap_or_default();
    let file = |name: &str| (name.to_owned(), format!("/boot/{name}"));
    let agent = AgentBoot {
        kernel: "/boot/vmlinuz".to_owned(),
        initrds: vec![
            file("initramfs.img"),
            file("trust.img"),
            (
                "token.img".to_owned(),
                format!("/boot/token.img?ticket={ticket}"),
            ),
        ],
        command_line: command_line(&web.fleet.config.boot, mac, &answer.kernel),
    };
    text(boot_script(
        &web.base(&headers),
        platform,
        &answer.decision,
        &agent,
    ))
}

async fn trust(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    archive(trust_image(&web, web.address(Some(&headers))))
}

#[derive(Deserialize)]
struct Ticket {
    ticket: String,
}

async fn token(State(web): State<Arc<Web>>, Query(Ticket { ticket }): Query<Ticket>) -> Response {
    let Some(token) = web.fleet.token_of(&ticket) else {
        return refusal(StatusCode::NOT_FOUND, "no such ticket");
    };
    archive(token_image(&token))
}

async fn file(State(web): State<Arc<Web>>, Path(name): Path<String>) -> Response {
    let directory = if APPLIANCE_FILES.contains(&name.as_str()) {
        web.fleet.dir.path(&web.fleet.config.boot.appliance)
    } else if name == DISK_LOADER || is_loader(&web, &name) {
        super::tftp::root(&web.fleet.dir)
    } else {
        return refusal(StatusCode::NOT_FOUND, "no such file");
    };
    stream(directory.join(name)).await
}

/// Whether firmware may be told to load this file.
fn is_loader(web: &Web, name: &str) -> bool {
    let known = super::tftp::LOADERS.iter().map(|(loader, _)| *loader);
    let dhcp = web.fleet.config.dhcp.as_ref();
    let own = dhcp.map(|dhcp| [&*dhcp.bios_loader, &*dhcp.uefi_loader]);
    known
        .chain(own.into_iter().flatten())
        .any(|one| one == name)
}

/// A file as it is. iPXE and firmware insist on `Content-Length`.
async fn stream(path: PathBuf) -> Response {
    let opened = match File::open(&path).await {
        Ok(file) => file.metadata().await.map(|facts| (file, facts.len())),
        Err(error) => Err(error),
    };
    match opened {
        Ok((file, length)) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
            ];
            (
                headers,
                Body::from_stream(ReaderStream::with_capacity(file, 256 * 1024)),
            )
                .into_response()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            log::warn!(
                "boot file={} state=absent; make it with netflash appliance build",
                path.display()
            );
            refusal(StatusCode::NOT_FOUND, "no such file")
        }
        Err(error) => {
            log::error!("boot file={} error={error}", path.display());
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read")
        }
    }
}

fn archive(packed: Result<Vec<u8>, CpioError>) -> Response {
    match packed {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response(),
        Err(error) => {
            log::error!("boot archive error={error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn text(script: String) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        script,
    )
        .into_response()
}
