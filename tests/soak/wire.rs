//! Frames of an interface, in and out, past the kernel's own protocols.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{ifaddrs::getifaddrs, sys::socket::bind};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// IPv4 in an Ethernet header. A tap of one protocol hears what comes in, and not what goes out.
const IPV4: u16 = 0x0800;
/// How long a tap waits for a frame.
const NAP: Duration = Duration::from_millis(5);
/// The Ethernet header.
const LINK: usize = 14;
/// The IPv4 header without options.
const IP: usize = 20;
/// The UDP header.
const UDP: usize = 8;
/// UDP in an IPv4 header.
const UDP_NUMBER: u8 = 17;
/// "I write the IP header myself."
const RAW_NUMBER: i32 = 255;
/// Longest frame that is looked at.
pub(crate) const FRAME_BYTES: usize = 2048;

/// One interface of the namespace this thread is in.
pub(crate) struct Tap(Socket);

/// A UDP datagram that was heard or shall be said.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) payload: Vec<u8>,
}

impl Tap {
    pub(crate) fn open(interface: &str) -> Result<Tap> {
        let protocol = Protocol::from(i32::from(IPV4.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
            .context("opening a packet socket")?;
        let address = getifaddrs()?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr().copied())
            .with_context(|| format!("there is no interface {interface}"))?;
        bind(socket.as_raw_fd(), &address).with_context(|| format!("listening to {interface}"))?;
        socket
            .set_read_timeout(Some(NAP))
            .context("limiting the wait for frames")?;
        Ok(Tap(socket))
    }

    /// The next frame that comes in; `None` when there is none for a moment.
    pub(crate) fn receive(&self, buffer: &mut [u8; FRAME_BYTES]) -> Result<Option<usize>> {
        match (&self.0).read(buffer) {
            Ok(count) => Ok(Some(count)),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error).context("hearing frames"),
        }
    }

    /// Sends a frame out. One that the network has no room for is lost, as networks do.
    pub(crate) fn send(&self, frame: &[u8]) {
        let _ = (&self.0).write(frame);
    }
}

impl Datagram {
    /// What is in a frame, if it is one whole UDP datagram over IPv4.
    pub(crate) fn of(frame: &[u8]) -> Option<Datagram> {
        let ip = frame.get(LINK..)?;
        if *ip.first()? != 0x45 || *ip.get(9)? != UDP_NUMBER {
            return None;
        }
        let pair = |at: usize| Some(u16::from_be_bytes(ip.get(at..at + 2)?.try_into().ok()?));
        let address = |at: usize| {
            Some(Ipv4Addr::from(
                <[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?,
            ))
        };
        // Fragments are of no interest.
        if pair(6)? & 0x3fff != 0 {
            return None;
        }
        let length = usize::from(pair(IP + 4)?).checked_sub(UDP)?;
        Some(Datagram {
            from: SocketAddrV4::new(address(12)?, pair(IP)?),
            to: SocketAddrV4::new(address(16)?, pair(IP + 2)?),
            payload: ip.get(IP + UDP..IP + UDP + length)?.to_vec(),
        })
    }

    /// The IP packet; the kernel fills in its checksum, and that of UDP may be left out.
    fn packet(&self) -> Vec<u8> {
        let length = (IP + UDP + self.payload.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 0, 1, UDP_NUMBER, 0, 0]);
        packet.extend_from_slice(&self.from.ip().octets());
        packet.extend_from_slice(&self.to.ip().octets());
        packet.extend_from_slice(&self.from.port().to_be_bytes());
        packet.extend_from_slice(&self.to.port().to_be_bytes());
        packet.extend_from_slice(&(length - IP as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0]);
        packet.extend_from_slice(&self.payload);
        packet
    }
}

/// Somebody who signs with whatever address he likes.
pub(crate) struct Mask(Socket);

impl Mask {
    /// In the namespace of this thread, on the interface with this address.
    pub(crate) fn open(address: Ipv4Addr) -> Result<Mask> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW_NUMBER)));
        let socket = socket.context("opening a raw socket")?;
        socket
            .set_multicast_if_v4(&address)
            .context("choosing the interface")?;
        Ok(Mask(socket))
    }

    pub(crate) fn say(&self, datagram: &Datagram) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV4::new(*datagram.to.ip(), 0));
        self.0.send_to(&datagram.packet(), &to).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_the_same_after_its_frame() {
        let datagram = Datagram {
            from: "10.0.0.1:5".parse().unwrap(),
            to: "239.1.2.3:9078".parse().unwrap(),
            payload: b"announce".to_vec(),
        };
        let mut frame = vec![0; LINK];
        frame.extend(datagram.packet());
        let again = Datagram::of(&frame).unwrap();
        assert_eq!((again.from, again.to), (datagram.from, datagram.to));
        assert_eq!(again.payload, datagram.payload);
        frame.pop();
        assert!(Datagram::of(&frame).is_none());
    }
}
