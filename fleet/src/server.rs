//! `netflash serve`: everything a server is, from an empty directory to the last farewell.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, DhcpMode, TEMPLATE};
use crate::data_dir::{DataDir, Running};
use crate::fleet::Fleet;
use crate::pki::Pki;
use crate::secret;
use crate::store::SqliteStore;

mod admin;
mod agent;
mod answer;
mod boot;
mod disk_loader;
mod dnsmasq;
mod proxy;
mod querier;
mod tftp;
mod tftpd;

use answer::Web;
use dnsmasq::Dnsmasq;
use proxy::Proxy;
use querier::Querier;
use tftpd::Shelf;

/// Where firmware asks for its boot file.
const TFTP_PORT: u16 = 69;
/// How long open requests may take at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// Run a server in `dir` until a signal ends it. `ready` hears where it answers.
pub(crate) fn serve(
    dir: &Path,
    config: Option<&Path>,
    ready: impl FnOnce(&Running),
) -> anyhow::Result<()> {
    let dir = DataDir::open(dir)?;
    let _lock = dir.lock()?;
    let config = load_config(&dir, config)?;
    let pki = Pki::open(&dir)?;
    let admin_token = admin_token(&dir)?;
    let store = SqliteStore::open(&dir.database())?;

    // Sockets first: a port that is taken must not disturb jobs.
    let https = listen(config.listen.https)?;
    let http = listen(config.listen.http)?;
    let running = Running {
        https: bound(&https)?,
        http: bound(&http)?,
        pid: std::process::id(),
    };
    let tls = RustlsConfig::from_config(pki.tls()?);
    let fleet = Fleet::open(config.clone(), dir.clone(), pki.ca_pem, Box::new(store))?;
    let fleet = Arc::new(fleet);
    fleet.resume_sealing()?;
    let web = Arc::new(Web {
        fleet,
        admin_hash: secret::hash(&admin_token),
        running: running.clone(),
    });
    let address = web.address(None);
    dir.write("trust.img", 0o644, &boot::trust_image(&web, address)?)?;
    disk_loader::prepare(&dir)?;
    let querier = Querier::start(&config.multicast);
    let tftp = match &config.dhcp {
        Some(dhcp) => {
            tftp::prepare_root(&dir, [&dhcp.bios_loader, &dhcp.uefi_loader])?;
            Shelf(Arc::clone(&web)).check(dhcp)?;
            anyhow::ensure!(
                !address.is_loopback(),
                "{} has no IPv4 address yet: give it one before netflash starts, or set listen.address",
                dhcp.interface
            );
            // Where DHCP sends the machines.
            Some(tftpd::listen(SocketAddrV4::new(address, TFTP_PORT))?)
        }
        None => None,
    };
    let http_address = SocketAddrV4::new(address, running.http.port());
    let dhcp = |mode| config.dhcp.as_ref().filter(|dhcp| dhcp.mode == mode);
    let dnsmasq = dhcp(DhcpMode::Own).map(|dhcp| Dnsmasq::start(&dir, dhcp, http_address));
    let dnsmasq = dnsmasq.transpose()?;
    let proxy = dhcp(DhcpMode::Proxy).map(|dhcp| Proxy::start(dhcp, http_address));
    let proxy = proxy.transpose().context("starting the proxy-DHCP")?;
    dir.write("serve.json", 0o644, &serde_json::to_vec(&running)?)?;

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let sockets = Sockets { https, http, tftp };
    let outcome = runtime.block_on(answer_until_signal(web, sockets, tls, || ready(&running)));
    drop(proxy);
    drop(dnsmasq);
    drop(querier);
    // Stale, it would only cost the next command a refused connection.
    let _ = fs::remove_file(dir.running());
    outcome
}

/// Where machines, agents and people ask.
struct Sockets {
    https: TcpListener,
    http: TcpListener,
    tftp: Option<UdpSocket>,
}

async fn answer_until_signal(
    web: Arc<Web>,
    sockets: Sockets,
    tls: RustlsConfig,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to signals")?;
    let handle = Handle::<SocketAddr>::new();
    let secure = axum_server::from_tcp_rustls(sockets.https, tls)?
        .handle(handle.clone())
        .serve(answer::secure_routes(Arc::clone(&web)).into_make_service());
    if let Some(socket) = sockets.tftp {
        let shelf = Shelf(Arc::clone(&web));
        tokio::spawn(async move {
            if let Err(error) = tftpd::serve(socket, shelf).await {
                log::error!("tftp error={error} state=dead");
            }
        });
    }
    let plain = axum_server::from_tcp(sockets.http)?
        .handle(handle.clone())
        .serve(boot::routes(web).into_make_service());
    let mut secure = tokio::spawn(secure);
    let mut plain = tokio::spawn(plain);
    ready();
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        outcome = &mut secure => Some(outcome),
        outcome = &mut plain => Some(outcome),
    };
    handle.graceful_shutdown(Some(FAREWELL));
    log::info!("serve state=ending");
    match ended {
        None => {
            for server in [secure, plain] {
                server
                    .await
                    .context("an HTTP server died")?
                    .context("answering HTTP")?;
            }
            Ok(())
        }
        Some(outcome) => outcome
            .context("an HTTP server died")?
            .context("answering HTTP"),
    }
}

fn load_config(dir: &DataDir, path: Option<&Path>) -> anyhow::Result<Config> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => {
            if !dir.config().exists() {
                dir.write("netflash.toml", 0o644, TEMPLATE.as_bytes())?;
                log::info!("serve config={} state=written", dir.config().display());
            }
            dir.config()
        }
    };
    Ok(Config::load(&path)?)
}

fn admin_token(dir: &DataDir) -> anyhow::Result<String> {
    if let Some(token) = dir.read("admin.token")? {
        let token = token.trim();
        if token.len() >= 16 {
            return Ok(token.to_owned());
        }
    }
    let token = secret::fresh();
    dir.write("admin.token", 0o600, format!("{token}\n").as_bytes())?;
    Ok(token)
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    listener
        .set_nonblocking(true)
        .context("preparing a socket")?;
    Ok(listener)
}

fn bound(listener: &TcpListener) -> anyhow::Result<SocketAddr> {
    listener
        .local_addr()
        .context("asking a socket for its address")
}

/// The address of an interface, else of the first one that is not loopback, else loopback.
fn own_address(interface: Option<&str>) -> Ipv4Addr {
    let Ok(all) = nix::ifaddrs::getifaddrs() else {
        return Ipv4Addr::LOCALHOST;
    };
    let mut addresses = all.filter_map(|entry| {
        let address = entry.address?.as_sockaddr_in()?.ip();
        let wanted = interface.is_none_or(|name| name == entry.interface_name);
        (wanted && !address.is_loopback()).then_some(address)
    });
    addresses.next().unwrap_or(Ipv4Addr::LOCALHOST)
}
