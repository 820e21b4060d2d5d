//! All network cards at once: up, signal, address, renewal, for as long as the machine runs.
//!
//! A machine may have twelve cards and one cable. Every Ethernet card gets a thread of its
//! own, which never gives up; who needs the network waits for the first lease, and a little
//! longer for that of the card the machine was booted from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netflash_pxe::{Iface, OrphanKind};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};

use crate::dhcp::{DhcpClient, DhcpEvent, Lease};
use crate::links::{Link, Netlink};
use crate::machine::is_preferred;
use crate::orphans;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Pause between looks for new cards and changed signals.
const POLL: Duration = Duration::from_millis(500);
/// Pause between looks for a signal on one card.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
/// How much longer the preferred card may take than another.
const PREFERRED_WAIT: Duration = Duration::from_secs(15);
/// Cards served; a machine has 32 at most.
const CARDS_MAX: usize = 64;
/// Metric of the first card's default route; later cards come after it.
const METRIC: u32 = 100;
/// Larger than any Ethernet datagram.
const DATAGRAM_MAX: usize = 9216;

/// The cards of this machine and what they were lent.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    shared: Arc<Shared>,
    preferred: Option<Iface>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    links: Vec<Link>,
    leases: BTreeMap<String, Lease>,
}

impl Network {
    /// Starts the threads. `uuid` is the machine's, for DHCP servers that go by it.
    pub(crate) fn start(preferred: Option<Iface>, uuid: Option<[u8; 16]>) -> Network {
        let network = Network {
            shared: Arc::new(Shared::default()),
            preferred,
        };
        let shared = network.shared.clone();
        let watch = move || watch(&shared, uuid);
        if let Err(error) = thread::Builder::new().name("network".into()).spawn(watch) {
            log::error!("no network: {error}");
        }
        network
    }

    /// The Ethernet cards there are now.
    pub(crate) fn links(&self) -> Vec<Link> {
        self.shared.lock().links.clone()
    }

    /// Waits for an address, at most this long; whether there is one.
    ///
    /// While the preferred card exists and has none yet, others are waited over for some time.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut first: Option<Instant> = None;
        let mut state = self.shared.lock();
        loop {
            let now = Instant::now();
            if state.leases.is_empty() {
                first = None;
            } else {
                let since = *first.get_or_insert(now);
                if self.is_served(&state) || now >= since + PREFERRED_WAIT {
                    return true;
                }
            }
            if now >= end {
                return !state.leases.is_empty();
            }
            let pause = POLL.min(end - now);
            let (guard, _) = self
                .shared
                .changed
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
    }

    /// One line about every card, for a person who looks for the right cable.
    pub(crate) fn describe(&self) -> String {
        let state = self.shared.lock();
        let cards: Vec<String> = state
            .links
            .iter()
            .map(|link| {
                let what = match state.leases.get(&link.name) {
                    Some(lease) => format!("has {}", lease.address),
                    None if link.carrier => "asks for an address (DHCP)".into(),
                    None => "has no cable or no link yet".into(),
                };
                format!("{} ({}) {what}", link.name, link.permanent)
            })
            .collect();
        if cards.is_empty() {
            let orphans = orphans::describe(&orphans::list(), OrphanKind::Network);
            return orphans.unwrap_or_else(|| "no network card was found".into());
        }
        cards.join(", ")
    }

    fn is_served(&self, state: &State) -> bool {
        let mut wanted = state
            .links
            .iter()
            .filter(|link| is_preferred(link, self.preferred.as_ref()))
            .peekable();
        wanted.peek().is_none() || wanted.any(|link| state.leases.contains_key(&link.name))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // State is replaced as a whole, so it is right even if a thread died over it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds cards as their drivers bring them, and starts a thread for each.
fn watch(shared: &Arc<Shared>, uuid: Option<[u8; 16]>) {
    let mut served = BTreeMap::new();
    loop {
        match Netlink::open().and_then(|mut netlink| netlink.links()) {
            Ok(links) => {
                let links: Vec<Link> = links.into_iter().filter(is_card).collect();
                for link in &links {
                    if served.len() < CARDS_MAX && !served.contains_key(&link.index) {
                        served.insert(link.index, link.name.clone());
                        serve(shared.clone(), link.clone(), uuid);
                    }
                }
                shared.lock().links = links;
                shared.changed.notify_all();
            }
            Err(error) => log::warn!("network cards cannot be listed: {error}"),
        }
        thread::sleep(POLL);
    }
}

/// A card of hardware has a device; bridges and the like have none.
fn is_card(link: &Link) -> bool {
    Path::new("/sys/class/net")
        .join(&link.name)
        .join("device")
        .exists()
}

fn serve(shared: Arc<Shared>, link: Link, uuid: Option<[u8; 16]>) {
    let name = link.name.clone();
    let run = move || {
        loop {
            if let Err(error) = serve_card(&shared, &link, uuid) {
                log::warn!("card={} {error}", link.name);
            }
            thread::sleep(POLL);
        }
    };
    if let Err(error) = thread::Builder::new().name(name.clone()).spawn(run) {
        log::error!("card={name} cannot be served: {error}");
    }
}

/// Keeps one card supplied; returns only with an error.
fn serve_card(shared: &Shared, link: &Link, uuid: Option<[u8; 16]>) -> io::Result<()> {
    Netlink::open()?.set_up(link)?;
    wait_for_signal(link);
    log::info!("card={} mac={} state=link", link.name, link.permanent);
    let socket = open(link)?;
    let mut client = DhcpClient::new(link.mac, uuid, random()?, Instant::now());
    let mut had_signal = true;
    loop {
        let now = Instant::now();
        let signal = has_signal(link);
        if signal && !had_signal {
            client.handle_link_up(now);
        }
        had_signal = signal;
        client.handle_timeout(now);
        while let Some(transmit) = client.poll_transmit() {
            let to = SocketAddrV4::new(transmit.to, SERVER_PORT);
            // A link that is down for a moment costs one try, the client repeats.
            if let Err(error) = socket.send_to(&transmit.bytes, to) {
                log::debug!("card={} sending to {to}: {error}", link.name);
            }
        }
        while let Some(event) = client.poll_event() {
            apply(shared, link, event)?;
        }
        let pause = client.poll_timeout().saturating_duration_since(now);
        receive(
            &socket,
            pause.clamp(Duration::from_millis(1), POLL),
            &mut client,
        )?;
    }
}

fn wait_for_signal(link: &Link) {
    while !has_signal(link) {
        thread::sleep(SIGNAL_POLL);
    }
}

/// The file cannot be read while the card is down, which is as good as no signal.
fn has_signal(link: &Link) -> bool {
    let file = Path::new("/sys/class/net").join(&link.name).join("carrier");
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// A socket that sees and sends through this card only, with or without an address.
fn open(link: &Link) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(link.name.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    Ok(socket.into())
}

fn receive(socket: &UdpSocket, limit: Duration, client: &mut DhcpClient) -> io::Result<()> {
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = [0; DATAGRAM_MAX];
    match socket.recv(&mut buffer) {
        Ok(length) => client.handle_datagram(Instant::now(), &buffer[..length]),
        Err(error) if is_passing(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Nothing came, or the network had a bad moment: no reason to start over.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, TimedOut,
        WouldBlock,
    };
    matches!(
        error.kind(),
        WouldBlock
            | TimedOut
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | HostUnreachable
            | ConnectionRefused
    )
}

/// Makes the kernel do what the server said, and tells who waits.
fn apply(shared: &Shared, link: &Link, event: DhcpEvent) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    match event {
        DhcpEvent::Bound(lease) => {
            netlink.add_address(link.index, lease.address, lease.prefix)?;
            if let Some(router) = lease.router {
                let metric = METRIC.saturating_add(link.index);
                // A router outside the network is a mistake of the server we can live with.
                if let Err(error) = netlink.add_default_route(link.index, router, metric) {
                    log::warn!("card={} router={router} {error}", link.name);
                }
            }
            let former = shared
                .lock()
                .leases
                .insert(link.name.clone(), lease.clone());
            if former.as_ref() != Some(&lease) {
                log::info!(
                    "card={} mac={} state=bound address={}/{} server={} seconds={}",
                    link.name,
                    link.permanent,
                    lease.address,
                    lease.prefix,
                    lease.server,
                    lease.duration.as_secs()
                );
            }
        }
        DhcpEvent::Lost(lease) => {
            log::warn!("card={} state=lost address={}", link.name, lease.address);
            shared.lock().leases.remove(&link.name);
            // It may be gone already when the link went down.
            let _ = netlink.remove_address(link.index, lease.address, lease.prefix);
        }
    }
    shared.changed.notify_all();
    Ok(())
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use netflash_pxe::Mac;

    use super::*;

    fn network(preferred: Option<&str>, links: &[&str], leases: &[&str]) -> Network {
        let link = |(index, name): (usize, &&str)| Link {
            index: index as u32,
            name: (*name).into(),
            mac: Mac([2, 0, 0, 0, 0, index as u8]),
            permanent: Mac([2, 0, 0, 0, 0, index as u8]),
            up: true,
            carrier: index == 0,
        };
        let lease = Lease {
            address: Ipv4Addr::new(10, 7, 0, 2),
            prefix: 24,
            router: None,
            server: Ipv4Addr::new(10, 7, 0, 1),
            duration: Duration::from_secs(60),
        };
        let state = State {
            links: links.iter().enumerate().map(link).collect(),
            leases: leases
                .iter()
                .map(|n| (n.to_string(), lease.clone()))
                .collect(),
        };
        Network {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
            preferred: preferred.map(|name| Iface::Name(name.into())),
        }
    }

    #[test]
    fn the_first_address_will_do_when_no_card_is_preferred_or_it_is_absent() {
        let short = Duration::from_millis(50);
        assert!(network(None, &["eth0", "eth1"], &["eth1"]).wait(short));
        assert!(network(Some("eth7"), &["eth0"], &["eth0"]).wait(short));
        assert!(!network(None, &["eth0"], &[]).wait(short));
    }

    #[test]
    fn the_preferred_card_is_waited_for_but_not_for_ever() {
        let network = network(Some("eth0"), &["eth0", "eth1"], &["eth1"]);
        assert!(!network.is_served(&network.shared.lock()));
        let started = Instant::now();
        assert!(network.wait(Duration::from_millis(200)));
        assert!(started.elapsed() >= Duration::from_millis(200));
        let mut state = network.shared.lock();
        let lease = state.leases["eth1"].clone();
        state.leases.insert("eth0".into(), lease);
        assert!(network.is_served(&state));
    }

    #[test]
    fn every_card_is_described_by_what_it_lacks() {
        let text = network(None, &["eth0", "eth1"], &[]).describe();
        assert!(text.contains("eth0 (02:00:00:00:00:00) asks for an address"));
        assert!(text.contains("eth1 (02:00:00:00:00:01) has no cable"));
        assert!(
            network(None, &[], &[])
                .describe()
                .contains("no network card")
        );
    }
}
