//! IGMP on a raw socket: memberships told again unasked, and the querier. Needs root, as raw sockets do.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{cadence::Cadence, chance, ticks::Ticks};
use crate::{
    igmp::{GroupRecord, Igmp, PROTOCOL},
    interface::Interface,
    querier::{Querier, QuerierConfig},
};

/// The longest wait, so that a stop is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// Longest IGMP packet.
const PACKET_BYTES: usize = 2_048;

/// A raw socket for IGMP on one interface.
#[derive(Debug)]
pub(crate) struct IgmpSocket {
    socket: Socket,
    address: Ipv4Addr,
}

impl IgmpSocket {
    /// Opens it.
    pub(crate) fn open(interface: &Interface) -> io::Result<IgmpSocket> {
        let address = interface.ipv4().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let protocol = Protocol::from(i32::from(PROTOCOL));
        let socket = Socket::new(Domain::IPV4, Type::RAW.cloexec(), Some(protocol))?;
        // The Router Alert option comes with a header of our own.
        socket.set_header_included_v4(true)?;
        socket.bind_device(Some(interface.name().as_bytes()))?;
        socket.set_multicast_if_v4(&address)?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(IgmpSocket { socket, address })
    }

    /// Sends a message where it belongs.
    pub(crate) fn send(&self, message: &Igmp) -> io::Result<()> {
        let to = SocketAddrV4::new(message.destination(), 0);
        let packet = message.packet(self.address);
        self.socket.send_to(&packet, &to.into()).map(drop)
    }

    /// The next message, or nothing within [`LOOK`]. What is no IGMP is nothing.
    pub(crate) fn receive(&self) -> io::Result<Option<(Ipv4Addr, Igmp)>> {
        let mut packet = [0; PACKET_BYTES];
        match (&self.socket).read(&mut packet) {
            Ok(length) => Ok(Igmp::parse_packet(&packet[..length]).ok()),
            Err(error) if is_pause(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

/// Tells the membership of a group again and again, as long as it lives: a switch that snoops without a querier would
/// forget it, and any does when the link goes away. Never by leaving and joining: some switches prune at a leave.
#[derive(Debug)]
pub(crate) struct Reminder {
    stop: Arc<AtomicBool>,
}

impl Reminder {
    /// Starts a thread that tells it about once in `every`.
    ///
    /// # Errors
    /// When there is no raw socket: this process is not privileged.
    pub(crate) fn start(
        interface: &Interface,
        group: Ipv4Addr,
        every: Duration,
    ) -> io::Result<Reminder> {
        let socket = IgmpSocket::open(interface)?;
        let mut chance = chance::sequence().map_err(io::Error::other)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let interface = interface.clone();
        thread::Builder::new()
            .name("igmp".to_owned())
            .spawn(move || {
                let ticks = Ticks::start();
                let mut cadence = Cadence::new(every, interface.link_ups());
                while !stopped.load(Ordering::Relaxed) {
                    if cadence.is_due(ticks.elapsed(), interface.link_ups(), chance()) {
                        tell(&socket, group);
                    }
                    thread::sleep(LOOK);
                }
            })?;
        Ok(Reminder { stop })
    }
}

impl Drop for Reminder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn tell(socket: &IgmpSocket, group: Ipv4Addr) {
    let kind = GroupRecord::IS_EXCLUDE;
    let records = vec![GroupRecord { kind, group }];
    // Switches know one version or the other, and none minds both.
    for report in [
        Igmp::Report { version: 2, group },
        Igmp::ReportV3 { records },
    ] {
        if let Err(error) = socket.send(&report) {
            log::debug!("igmp group={group} report=unsent reason=\"{error}\"");
        }
    }
}

/// Acts as IGMP querier on `interface` where nobody else does, until `stop`. `observer` hears when it begins to ask and
/// when it steps back.
///
/// # Errors
/// When there is no raw socket (not root), or it fails.
pub fn ask_who_listens(
    interface: &Interface,
    config: QuerierConfig,
    mut observer: impl FnMut(bool),
    stop: &AtomicBool,
) -> io::Result<()> {
    let socket = IgmpSocket::open(interface)?;
    let ticks = Ticks::start();
    let mut querier = Querier::new(ticks.now(), socket.address, config);
    let mut was_asking = false;
    while !stop.load(Ordering::Relaxed) {
        if let Some((from, Igmp::Query { group, .. })) = socket.receive()?
            && group.is_unspecified()
        {
            querier.handle_query(ticks.now(), from);
        }
        if let Some(query) = querier.poll_query(ticks.now())
            && let Err(error) = socket.send(&query)
        {
            log::debug!("igmp query=unsent reason=\"{error}\"");
        }
        if querier.is_asking() != was_asking {
            was_asking = querier.is_asking();
            observer(was_asking);
        }
    }
    Ok(())
}
