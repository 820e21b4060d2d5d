//! The hatch of a direct session: plain HTTP beside `netflash send`, as long as somebody fetches.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum_server::Handle;
use tokio::runtime::Runtime;

use netflash_imager::Image;
use netflash_multicast::SendEvent;

use super::answer;
use super::desk::{Board, Desk};

/// How often an emptying desk is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long open requests may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A running hatch. Dropping it closes it.
pub(crate) struct Hatch {
    counter: Arc<Counter>,
    handle: Handle<SocketAddr>,
    runtime: Option<Runtime>,
}

struct Counter {
    desk: Arc<Desk>,
    board: Board,
    image: Arc<Image>,
}

impl Hatch {
    /// Opens it at `address`.
    ///
    /// # Errors
    /// When the address is taken.
    pub(crate) fn open(
        address: SocketAddr,
        desk: Arc<Desk>,
        image: Arc<Image>,
    ) -> anyhow::Result<Hatch> {
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        listener
            .set_nonblocking(true)
            .context("preparing a socket")?;
        let counter = Arc::new(Counter {
            desk,
            board: Board::default(),
            image,
        });
        let routes = Router::new()
            .route("/announce", get(announce))
            .route("/manifest", get(manifest))
            .route("/image", get(image_range))
            .with_state(Arc::clone(&counter))
            .into_make_service_with_connect_info::<SocketAddr>();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("starting the runtime")?;
        let handle = Handle::<SocketAddr>::new();
        let server = {
            let _inside = runtime.enter();
            axum_server::from_tcp(listener)?.handle(handle.clone())
        };
        runtime.spawn(async move {
            if let Err(error) = server.serve(routes).await {
                log::error!("fallback state=ended reason=\"{error}\"");
            }
        });
        Ok(Hatch {
            counter,
            handle,
            runtime: Some(runtime),
        })
    }

    /// Pins the announces of the session beside which this is open.
    pub(crate) fn see(&self, event: &SendEvent) {
        match event {
            SendEvent::Open { address, .. } => self.counter.board.open(*address),
            SendEvent::Announced { datagram } => self.counter.board.pin(datagram.clone()),
            _ => {}
        }
    }

    /// Waits until nobody fetches or waits any more, except those that have everything; bytes that were sent.
    pub(crate) fn finish(&self, done: &[IpAddr], stop: &AtomicBool) -> u64 {
        for &address in done {
            self.counter.desk.leave(machine(address));
        }
        loop {
            let status = self.counter.desk.status();
            let idle = status.served + status.waiting == 0;
            if idle || stop.load(Ordering::Relaxed) {
                return status.sent_bytes;
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Hatch {
    fn drop(&mut self) {
        self.handle.graceful_shutdown(Some(FAREWELL));
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(FAREWELL);
        }
    }
}

type Here = State<Arc<Counter>>;
type Peer = ConnectInfo<SocketAddr>;

async fn announce(State(counter): Here) -> Response {
    answer::announce(&counter.board)
}

async fn manifest(State(counter): Here, ConnectInfo(peer): Peer) -> Response {
    answer::manifest(&counter.desk, machine(peer.ip()), &counter.image)
}

async fn image_range(
    State(counter): Here,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Response {
    answer::image(&counter.desk, machine(peer.ip()), &counter.image, &headers)
}

/// Nobody can pretend to be many: a machine is its address.
fn machine(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        // The machines of a room have the upper half in common.
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            (bits >> 64) as u64 ^ bits as u64
        }
    }
}
