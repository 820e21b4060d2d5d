//! One link and its address: signal, VLAN, then DHCP, the address of the command line, or IPv6 where the server is
//! reached by it, until the machine goes down.

mod ipv6;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use netflash_multicast::Family;
use netflash_pxe::StaticAddress;
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};

use super::holder::Candidate;
use super::stack;
use super::{POLL, Shared};
use crate::dhcp::{DhcpClient, DhcpEvent, Lease};
use crate::links::{Link, Netlink};
use crate::machine::is_preferred;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// Pause between looks for a signal.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
/// How often a link that cannot be served says why.
const NEWS: Duration = Duration::from_secs(10);
/// Metric of the first link's default route; later ones come after it.
const METRIC: u32 = 100;
/// Larger than any Ethernet datagram.
const DATAGRAM_MAX: usize = 9216;

/// A card or a bond, and what stands on it.
struct Supply<'a> {
    shared: &'a Shared,
    /// The card or bond.
    card: &'a Link,
    /// Where the address goes: the card itself or its VLAN.
    top: Link,
    /// Whether there was a signal when last looked.
    had_signal: bool,
    /// What the link's MTU was set to.
    mtu: u32,
}

/// Starts the thread that keeps this card or bond supplied.
pub(super) fn start(shared: Arc<Shared>, card: Link) {
    let name = card.name.clone();
    let run = move || {
        let mut said: Option<Instant> = None;
        loop {
            if let Err(error) = serve(&shared, &card)
                && said.is_none_or(|then| then.elapsed() >= NEWS)
            {
                said = Some(Instant::now());
                log::warn!("card={} {error}", card.name);
            }
            thread::sleep(POLL);
        }
    };
    if let Err(error) = thread::Builder::new().name(name.clone()).spawn(run) {
        log::error!("card={name} cannot be served: {error}");
    }
}

/// Keeps one link supplied; returns only with an error.
fn serve(shared: &Shared, card: &Link) -> io::Result<()> {
    Netlink::open()?.set_up(card)?;
    while !has_signal(card) {
        thread::sleep(SIGNAL_POLL);
    }
    log::info!("card={} mac={} state=link", card.name, card.permanent);
    let top = match shared.wiring.vlan {
        Some(vlan) => stack::vlan_on(card, vlan)?,
        None => card.clone(),
    };
    let mut supply = Supply {
        shared,
        card,
        mtu: top.mtu,
        top,
        had_signal: true,
    };
    match (shared.wiring.family, shared.wiring.ip) {
        (Family::V6, _) => supply.listen(),
        (Family::V4, Some(ip)) => supply.hold(ip),
        (Family::V4, None) => supply.borrow(),
    }
}

impl Supply<'_> {
    /// The address of the command line, whenever it is this card's turn.
    fn hold(&mut self, ip: StaticAddress) -> io::Result<()> {
        let mut holds = false;
        loop {
            let now_holds = self.claims();
            if now_holds && !holds {
                log::info!(
                    "card={} mac={} state=bound address={ip} server=none",
                    self.card.name,
                    self.card.permanent
                );
                self.settle(ip.address(), ip.prefix(), self.shared.wiring.gateway)?;
            } else if holds && !now_holds {
                log::warn!("card={} state=lost address={ip}", self.card.name);
                self.leave(ip.address(), ip.prefix());
            }
            holds = now_holds;
            thread::sleep(POLL);
        }
    }

    fn claims(&mut self) -> bool {
        self.look();
        let preferred = self.shared.wiring.preferred.as_ref();
        let mut state = self.shared.lock();
        let exists = |link: &Link| is_preferred(link, preferred);
        let candidate = Candidate {
            name: &self.card.name,
            has_signal: self.had_signal,
            is_preferred: exists(self.card) || !state.links.iter().any(exists),
        };
        state.holder.claim(&candidate, Instant::now())
    }

    /// An address lent by a DHCP server.
    fn borrow(&mut self) -> io::Result<()> {
        let socket = open(&self.top)?;
        let uuid = self.shared.wiring.uuid;
        let mut client = DhcpClient::new(self.top.mac, uuid, random()?, Instant::now());
        loop {
            let now = Instant::now();
            if self.look() {
                client.handle_link_up(now);
            }
            client.handle_timeout(now);
            while let Some(transmit) = client.poll_transmit() {
                let to = SocketAddrV4::new(transmit.to, SERVER_PORT);
                // A link that is down for a moment costs one try, the client repeats.
                if let Err(error) = socket.send_to(&transmit.bytes, to) {
                    log::debug!("card={} sending to {to}: {error}", self.card.name);
                }
            }
            while let Some(event) = client.poll_event() {
                self.apply(event)?;
            }
            let pause = client.poll_timeout().saturating_duration_since(now);
            let limit = pause.clamp(Duration::from_millis(1), POLL);
            receive(&socket, limit, |bytes| {
                client.handle_datagram(Instant::now(), bytes);
            })?;
        }
    }

    /// Looks for the signal; whether it has just come back.
    fn look(&mut self) -> bool {
        let signal = has_signal(&self.top);
        let came_back = signal && !self.had_signal;
        if signal != self.had_signal {
            let state = if signal { "link" } else { "no-link" };
            log::info!("card={} state={state}", self.card.name);
        }
        self.had_signal = signal;
        came_back
    }

    fn apply(&mut self, event: DhcpEvent) -> io::Result<()> {
        match event {
            DhcpEvent::Bound(lease) => self.take(&lease),
            DhcpEvent::Overdue(lease) => {
                log::warn!(
                    "card={} state=overdue address={} server={} is silent; the address is kept until a server answers",
                    self.card.name,
                    lease.address,
                    lease.server
                );
                Ok(())
            }
            DhcpEvent::Lost(lease) => {
                log::warn!(
                    "card={} state=lost address={}",
                    self.card.name,
                    lease.address
                );
                self.leave(lease.address, lease.prefix);
                Ok(())
            }
        }
    }

    fn take(&mut self, lease: &Lease) -> io::Result<()> {
        if let Some(mtu) = lease.mtu {
            self.set_mtu(mtu);
        }
        if self.settle(lease.address, lease.prefix, lease.router)? {
            log::info!(
                "card={} mac={} state=bound address={}/{} server={} seconds={}",
                self.card.name,
                self.card.permanent,
                lease.address,
                lease.prefix,
                lease.server,
                lease.duration.as_secs()
            );
        }
        Ok(())
    }

    /// Sets what the server says, from the card up; what a driver cannot is left as it was.
    fn set_mtu(&mut self, mtu: u16) {
        if self.mtu == u32::from(mtu) {
            return;
        }
        let set = Netlink::open().and_then(|mut netlink| {
            netlink.set_mtu(self.card, mtu)?;
            netlink.set_mtu(&self.top, mtu)
        });
        match set {
            Ok(()) => log::info!("card={} mtu={mtu}", self.card.name),
            Err(error) => log::warn!(
                "card={} the DHCP server's MTU of {mtu} does not work: {error}",
                self.card.name
            ),
        }
        // Tried once: some drivers take the link down for it.
        self.mtu = mtu.into();
    }

    /// Makes the kernel have the address, and tells who waits; whether that is news.
    fn settle(&self, address: Ipv4Addr, prefix: u8, router: Option<Ipv4Addr>) -> io::Result<bool> {
        let mut netlink = Netlink::open()?;
        netlink.add_address(self.top.index, address.into(), prefix)?;
        if let Some(router) = router {
            let metric = METRIC.saturating_add(self.top.index);
            // A router outside the network is a mistake of the server we can live with.
            if let Err(error) = netlink.add_default_route(self.top.index, router, metric) {
                log::warn!("card={} router={router} {error}", self.card.name);
            }
        }
        let mut state = self.shared.lock();
        let former = state
            .addresses
            .insert(self.card.name.clone(), address.into());
        self.shared.changed.notify_all();
        Ok(former != Some(address.into()))
    }

    fn leave(&self, address: Ipv4Addr, prefix: u8) {
        self.shared.lock().addresses.remove(&self.card.name);
        // It may be gone already when the link went down.
        let _ = Netlink::open()
            .and_then(|mut netlink| netlink.remove_address(self.top.index, address.into(), prefix));
        self.shared.changed.notify_all();
    }
}

/// The file cannot be read while the card is down, which is as good as no signal.
fn has_signal(link: &Link) -> bool {
    let file = Path::new("/sys/class/net").join(&link.name).join("carrier");
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}

/// A socket that sees and sends through this link only, with or without an address.
fn open(link: &Link) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind_device(Some(link.name.as_bytes()))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT).into())?;
    Ok(socket.into())
}

/// Waits for a datagram, and shows it to `take`.
fn receive(socket: &UdpSocket, limit: Duration, take: impl FnOnce(&[u8])) -> io::Result<()> {
    socket.set_read_timeout(Some(limit))?;
    let mut buffer = [0; DATAGRAM_MAX];
    match socket.recv(&mut buffer) {
        Ok(length) => take(&buffer[..length]),
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

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    Ok(u32::from_ne_bytes(bytes))
}
