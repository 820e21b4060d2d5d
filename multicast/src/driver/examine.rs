//! Listening to a group without taking part: what comes, from whom, and how much of it is missing.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::{igmp::IgmpSocket, ticks::Ticks};
use crate::{
    igmp::Igmp,
    interface::Interface,
    udp::{Endpoint, Inbox},
    wire::{AnnounceHead, Kind, ahead},
};

/// What probes begin with; no datagram of a session does.
const PROBE: &[u8; 16] = b"netflash probe 1";
/// Pause between two looks at the sockets.
const LOOK: Duration = Duration::from_millis(20);
/// Senders and queriers told apart at most.
const PARTIES_MAX: usize = 64;
/// UDP and IPv4 headers.
const HEADERS: usize = 28;

/// What was heard of one sender and session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeardSession {
    /// Announces.
    pub announces: u64,
    /// Datagrams of data.
    pub datagrams: u64,
    /// Datagrams that the sequence numbers say are missing.
    pub missing: u64,
    /// Runs of missing datagrams: as many as are missing, or nearly, when they are lost one by one.
    pub gaps: u64,
    /// Whether the sender says that data flows.
    pub flows: bool,
}

/// What was heard on a group.
#[derive(Clone, Debug, Default)]
pub struct Examination {
    /// Sessions, by sender and number.
    pub sessions: BTreeMap<(SocketAddrV4, u32), HeardSession>,
    /// Probes, by sender: how many, and the largest as bytes of an IP packet.
    pub probes: BTreeMap<Ipv4Addr, (u64, usize)>,
    /// Datagrams that are neither.
    pub foreign: u64,
    /// Largest IP packet that came.
    pub largest_bytes: usize,
    /// IGMP queriers heard: their versions.
    pub queriers: BTreeMap<Ipv4Addr, u8>,
    /// Why IGMP could not be listened to.
    pub deaf: Option<String>,
    /// Datagrams the kernel dropped because nobody read in time.
    pub overflow: u32,
}

/// Listens to `group` for `span`.
///
/// # Errors
/// When the group cannot be joined or read.
pub fn examine(
    interface: &Interface,
    group: SocketAddrV4,
    span: Duration,
    stop: &AtomicBool,
) -> io::Result<Examination> {
    let endpoint = Endpoint::receiver(interface, group.into(), true)?;
    let igmp = IgmpSocket::open(interface);
    let mut found = Examination {
        deaf: igmp.as_ref().err().map(io::Error::to_string),
        ..Examination::default()
    };
    let mut next = BTreeMap::new();
    let (mut inbox, ticks) = (Inbox::new(), Ticks::start());
    while ticks.elapsed() < span && !stop.load(Ordering::Relaxed) {
        let mut hear = |from, bytes: &[u8]| match from {
            SocketAddr::V4(from) => found.hear(from, bytes, &mut next),
            SocketAddr::V6(_) => {}
        };
        while endpoint.receive(&mut inbox, &mut hear)? > 0 {}
        match &igmp {
            // Waits as long as LOOK or longer, so this loop is no busy one.
            Ok(socket) => found.hear_igmp(socket)?,
            Err(_) => thread::sleep(LOOK),
        }
    }
    found.overflow = endpoint.overflow();
    Ok(found)
}

impl Examination {
    fn hear(
        &mut self,
        from: SocketAddrV4,
        bytes: &[u8],
        next: &mut BTreeMap<(SocketAddrV4, u32), u32>,
    ) {
        self.largest_bytes = self.largest_bytes.max(bytes.len() + HEADERS);
        if bytes.starts_with(PROBE) {
            let room = self.probes.len() < PARTIES_MAX || self.probes.contains_key(from.ip());
            if room {
                let (count, largest) = self.probes.entry(*from.ip()).or_default();
                *count += 1;
                *largest = (*largest).max(bytes.len() + HEADERS);
            }
            return;
        }
        let (Ok(kind), Some(session), Some(sequence)) =
            (Kind::of(bytes), word(bytes, 2), word(bytes, 6))
        else {
            self.foreign += 1;
            return;
        };
        let key = (from, session);
        if self.sessions.len() >= PARTIES_MAX && !self.sessions.contains_key(&key) {
            return;
        }
        let heard = self.sessions.entry(key).or_default();
        match kind {
            Kind::Announce => {
                heard.announces += 1;
                heard.flows |= AnnounceHead::peek(bytes).is_ok_and(|head| head.started);
            }
            Kind::Data => {
                heard.datagrams += 1;
                let expected = next.entry(key).or_insert(sequence);
                let gap = ahead(sequence, *expected);
                // What is behind comes late; what is far ahead was not sent since we listen.
                if (1..1 << 20).contains(&gap) {
                    heard.missing += u64::from(gap.unsigned_abs());
                    heard.gaps += 1;
                }
                if gap >= 0 {
                    *expected = sequence.wrapping_add(1);
                }
            }
            Kind::Report => self.foreign += 1,
        }
    }

    fn hear_igmp(&mut self, socket: &IgmpSocket) -> io::Result<()> {
        if let Some((from, Igmp::Query { version, .. })) = socket.receive()?
            && (self.queriers.len() < PARTIES_MAX || self.queriers.contains_key(&from))
        {
            self.queriers.insert(from, version);
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

/// Sends probes of rising size to `group` for `span`, about twenty a second; returns how many, and the largest as bytes
/// of an IP packet.
///
/// # Errors
/// When nothing can be sent at all.
pub fn probe(
    interface: &Interface,
    group: SocketAddrV4,
    ttl: u32,
    span: Duration,
    stop: &AtomicBool,
) -> io::Result<(u64, usize)> {
    let endpoint = Endpoint::sender(interface, ttl, true)?;
    let mtu = Endpoint::mtu_towards(interface, group.into())? as usize;
    let whole = mtu.saturating_sub(HEADERS).max(PROBE.len());
    let sizes = [PROBE.len(), 512.min(whole), 1400.min(whole), whole];
    let mut datagram = vec![0; whole];
    datagram[..PROBE.len()].copy_from_slice(PROBE);
    let (ticks, mut sent) = (Ticks::start(), 0);
    while ticks.elapsed() < span && !stop.load(Ordering::Relaxed) {
        let size = sizes[sent as usize % sizes.len()];
        endpoint.send(group.into(), &datagram[..size], size)?;
        sent += 1;
        thread::sleep(LOOK * 2);
    }
    Ok((sent, whole + HEADERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_with_their_gaps() {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 9);
        let (mut found, mut next) = (Examination::default(), BTreeMap::new());
        for sequence in [5_u32, 6, 9, 10, 8, 12] {
            let mut bytes = vec![0x11, 0, 0, 0, 0, 7];
            bytes.extend(sequence.to_be_bytes());
            found.hear(from, &bytes, &mut next);
        }
        found.hear(from, b"netflash probe 1 and more", &mut next);
        found.hear(from, b"\xffsomething else", &mut next);
        let heard = &found.sessions[&(from, 7)];
        assert_eq!((heard.datagrams, heard.missing, heard.gaps), (6, 3, 2));
        assert_eq!(found.probes[from.ip()], (1, 25 + HEADERS));
        assert_eq!(found.foreign, 1);
    }
}
