//! How the sockets of a session are opened, of either family, and what the way to its group carries.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
    sync::atomic::{AtomicBool, AtomicU32},
    time::Duration,
};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Endpoint, ipv6_mtu};
use crate::{family::Family, interface::Interface};

/// What we ask for to bridge the time in which nobody reads. The kernel counts its own overhead too, so about
/// half of it is data: some 100 ms at 1 Gbit/s.
const RECEIVE_BUFFER_BYTES: usize = 24 << 20;
/// What an unprivileged process usually gets at most without a word.
const RECEIVE_BUFFER_MODEST: usize = 4 << 20;
/// A sender's queue in the kernel, which takes twice as much: a call waits when it is full. Smaller than the queue of any
/// interface, or what is sent back to back is dropped before it has left the machine.
const SEND_BUFFER_BYTES: usize = 192 << 10;
/// The longest a send may wait for room in the queue before the caller looks around again.
const SEND_PATIENCE: Duration = Duration::from_secs(1);
impl Endpoint {
    /// A socket that sends to a group out of `interface`, and hears what is sent to it alone. `ttl` is the hop limit
    /// of IPv6.
    pub(crate) fn sender(interface: &Interface, ttl: u32, loopback: bool) -> io::Result<Endpoint> {
        let socket = towards(interface)?;
        match interface.address() {
            IpAddr::V4(_) => {
                socket.set_multicast_ttl_v4(ttl)?;
                socket.set_multicast_loop_v4(loopback)?;
            }
            IpAddr::V6(_) => {
                socket.set_multicast_hops_v6(ttl)?;
                socket.set_multicast_loop_v6(loopback)?;
            }
        }
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        socket.bind(&interface.socket_address(0)?.into())?;
        Endpoint::from_socket(socket, interface, false)
    }

    /// A socket that hears `group` on `interface` only; what it sends goes by the routing table, over IPv6 by that
    /// interface. With `merging` the kernel may hand over several datagrams as one message.
    pub(crate) fn receiver(
        interface: &Interface,
        group: SocketAddr,
        merging: bool,
    ) -> io::Result<Endpoint> {
        let socket = towards(interface)?;
        // Several receivers on one machine hear the same group.
        socket.set_reuse_address(true)?;
        match (group, interface.address()) {
            (SocketAddr::V4(group), IpAddr::V4(address)) => {
                socket.bind(&group.into())?;
                // Without this a socket hears the groups that anybody on the machine joined, on any interface.
                socket.set_multicast_all_v4(false)?;
                socket.join_multicast_v4(group.ip(), &address)?;
            }
            (SocketAddr::V6(group), IpAddr::V6(_)) => {
                let index = interface.index()?;
                // For IPv6 the kernel compares the group of what comes, and not the interface it comes by.
                socket.bind_device(Some(interface.name().as_bytes()))?;
                socket.bind(&SocketAddrV6::new(*group.ip(), group.port(), 0, index).into())?;
                // An improvement only: by now nothing else comes by this interface to this group.
                let _ = socket.set_multicast_all_v6(false);
                socket.join_multicast_v6(group.ip(), index)?;
            }
            _ => return Err(io::ErrorKind::AddrNotAvailable.into()),
        }
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        Endpoint::from_socket(socket, interface, merging)
    }

    fn from_socket(socket: Socket, interface: &Interface, merging: bool) -> io::Result<Endpoint> {
        let scope = match interface.address() {
            IpAddr::V4(_) => 0,
            IpAddr::V6(_) => interface.index()?,
        };
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER_MODEST)?;
        }
        // Both are improvements only: an old kernel goes without.
        let merging = merging && setsockopt(&socket, sockopt::UdpGroSegment, &true).is_ok();
        let counting = setsockopt(&socket, sockopt::RxqOvfl, &1).is_ok();
        log::debug!(
            "socket receive_buffer={} merging={merging} counting={counting}",
            socket.recv_buffer_size()?
        );
        Ok(Endpoint {
            socket: socket.into(),
            scope,
            segmentation: AtomicBool::new(true),
            overflow: AtomicU32::new(0),
        })
    }

    /// Bytes of an IP packet that the path to `group` carries whole.
    pub(crate) fn mtu_towards(interface: &Interface, group: SocketAddr) -> io::Result<u32> {
        let probe = towards(interface)?;
        probe.bind(&interface.socket_address(0)?.into())?;
        probe.connect(&group.into())?;
        let mtu = match Family::of(&group) {
            Family::V4 => getsockopt(&probe, sockopt::IpMtu)?,
            Family::V6 => ipv6_mtu(&probe)?,
        };
        u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// A socket of the family of `interface` whose multicast leaves by it.
fn towards(interface: &Interface) -> io::Result<Socket> {
    let domain = match interface.address() {
        IpAddr::V4(_) => Domain::IPV4,
        IpAddr::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    match interface.address() {
        IpAddr::V4(address) => socket.set_multicast_if_v4(&address)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_if_v6(interface.index()?)?;
        }
    }
    Ok(socket)
}
