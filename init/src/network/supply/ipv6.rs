//! One link and its address of IPv6: what routers announce (SLAAC), which the kernel takes by itself and tries first
//! (RFC 4862), or else what a DHCPv6 server lends.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use netflash_multicast::{Family, Interface};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Supply, random, receive};
use crate::dhcp6::{Client, Event, Lease};
use crate::links::Netlink;
use crate::network::POLL;

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
/// All DHCPv6 servers and relays of a link.
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// How long routers may take before a DHCPv6 server is asked: the kernel solicits them every four seconds.
const ROUTERS_FIRST: Duration = Duration::from_secs(5);
/// Bits of an address that is lent: which others are on the link, routers say.
const LENT_PREFIX: u8 = 128;
/// A client and its socket.
struct Asking {
    client: Client,
    socket: UdpSocket,
}

impl Supply<'_> {
    /// Waits for addresses, and tells of the one there is, until an error.
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let mut ask_from = Instant::now() + ROUTERS_FIRST;
        let mut asking: Option<Asking> = None;
        let mut had = None;
        loop {
            let now = Instant::now();
            let came_back = self.look();
            let found = self.usable()?;
            if found != had {
                self.tell(had, found);
                had = found;
            }
            if found.is_some() && asking.is_none() {
                ask_from = now + ROUTERS_FIRST;
            } else if asking.is_none() && now >= ask_from {
                asking = Some(self.ask(now)?);
            }
            match &mut asking {
                Some(asking) => self.step(asking, now, came_back)?,
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// The best address of the link that is tried and reaches beyond it.
    fn usable(&self) -> io::Result<Option<Ipv6Addr>> {
        let all = Interface::list(Family::V6).map_err(io::Error::other)?;
        Ok(all
            .iter()
            .filter(|interface| interface.name() == self.top.name)
            .find_map(|interface| match interface.address() {
                IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
                _ => None,
            }))
    }

    fn tell(&self, had: Option<Ipv6Addr>, found: Option<Ipv6Addr>) {
        let card = &self.card.name;
        let mut state = self.shared.lock();
        match found {
            Some(address) => {
                let mac = self.card.permanent;
                log::info!("card={card} mac={mac} state=bound address={address}");
                state.addresses.insert(card.clone(), address.into());
            }
            None => {
                let had = had.map(|address| address.to_string());
                log::warn!("card={card} state=lost address={}", had.unwrap_or_default());
                state.addresses.remove(card);
            }
        }
        self.shared.changed.notify_all();
    }

    fn ask(&self, now: Instant) -> io::Result<Asking> {
        log::info!(
            "card={} no router announces an address; asking DHCPv6",
            self.card.name
        );
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_only_v6(true)?;
        socket.set_reuse_address(true)?;
        socket.bind_device(Some(self.top.name.as_bytes()))?;
        socket.set_multicast_if_v6(self.top.index)?;
        socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0).into())?;
        let uuid = self.shared.wiring.uuid;
        Ok(Asking {
            client: Client::new(self.top.mac, uuid, random()?, now),
            socket: socket.into(),
        })
    }

    /// Lets the client do what is due, and waits a little for an answer.
    fn step(&self, asking: &mut Asking, now: Instant, came_back: bool) -> io::Result<()> {
        let Asking { client, socket } = asking;
        if came_back {
            client.handle_link_up(now);
        }
        client.handle_timeout(now);
        if let Some(bytes) = client.poll_transmit() {
            let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.top.index);
            // A link that is down, or whose own address is still being tried, costs one try; the client repeats.
            if let Err(error) = socket.send_to(&bytes, to) {
                log::debug!("card={} sending to {to}: {error}", self.card.name);
            }
        }
        while let Some(event) = client.poll_event() {
            self.follow(event)?;
        }
        let pause = client.poll_timeout().saturating_duration_since(now);
        let limit = pause.clamp(Duration::from_millis(1), POLL);
        receive(socket, limit, |bytes| {
            client.handle_datagram(Instant::now(), bytes);
        })
    }

    /// Makes the kernel have what is lent. Who waits is told when the kernel has tried it.
    fn follow(&self, event: Event) -> io::Result<()> {
        let card = &self.card.name;
        match event {
            Event::Bound(Lease {
                address, seconds, ..
            }) => {
                log::info!("card={card} state=lent address={address} seconds={seconds}");
                Netlink::open()?.add_address(self.top.index, address.into(), LENT_PREFIX)
            }
            Event::Overdue(lease) => {
                let address = lease.address;
                log::warn!(
                    "card={card} state=overdue address={address} the DHCPv6 server is silent; the address is kept until one answers"
                );
                Ok(())
            }
            Event::Lost(lease) => {
                // It may be gone already when the link went down.
                let _ = Netlink::open().and_then(|mut netlink| {
                    netlink.remove_address(self.top.index, lease.address.into(), LENT_PREFIX)
                });
                Ok(())
            }
        }
    }
}
