//! UDP sockets for multicast, with the kernel's batch calls.
//!
//! A system call per datagram costs about 4 µs here and 0.2 µs per datagram in batches, so batches are the
//! whole design: the sender hands over up to [`BATCH_SEGMENTS`] equal datagrams in one call (segmentation
//! offload, else `sendmmsg`), the receiver takes up to [`INBOX_SLOTS`] at once (`recvmmsg`, with `UDP_GRO`
//! where datagrams arrive merged). What a kernel lacks shows when it is tried, and is then left out.
#![allow(unsafe_code)]

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::socket::{setsockopt, sockopt},
    sys::time::TimeSpec,
};
use socket2::{Domain, Protocol, Socket, Type};

/// Datagrams that leave in one call at most: as many of an Ethernet frame's size as one IP packet can count, a burst of
/// an eighth of a small switch's buffer. The pace makes them fewer.
pub(crate) const BATCH_SEGMENTS: usize = 43;
/// Messages taken in one call.
const INBOX_SLOTS: usize = 64;
/// The longest message: a merged run of datagrams is at most 64 KiB.
const SLOT_BYTES: usize = 65_536;
/// Slots start a little apart from a power of two, or all of them would share the same few cache sets.
const SLOT_STRIDE: usize = SLOT_BYTES + 2_048;
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
/// Room for two control messages: segment size and drop count.
const CONTROL_BYTES: usize = 64;

/// One UDP socket set up for a multicast session.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: UdpSocket,
    segmentation: AtomicBool,
    overflow: AtomicU32,
}

/// Buffers for one batch of incoming messages, reused for ever.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

/// Room for control messages, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

impl Endpoint {
    /// A socket that sends to a group out of the interface with `address`, and hears what is sent to it alone.
    pub(crate) fn sender(address: Ipv4Addr, ttl: u32, loopback: bool) -> io::Result<Endpoint> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        socket.set_multicast_if_v4(&address)?;
        socket.set_multicast_ttl_v4(ttl)?;
        socket.set_multicast_loop_v4(loopback)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        socket.bind(&SocketAddrV4::new(address, 0).into())?;
        Endpoint::from_socket(socket, false)
    }

    /// A socket that hears `group` on the interface with `address` only; what it sends goes by the routing table.
    /// With `merging` the kernel may hand over several datagrams as one message.
    pub(crate) fn receiver(
        address: Ipv4Addr,
        group: SocketAddrV4,
        merging: bool,
    ) -> io::Result<Endpoint> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        // Several receivers on one machine hear the same group.
        socket.set_reuse_address(true)?;
        socket.bind(&group.into())?;
        // Without this a socket hears the groups that anybody on the machine joined, on any interface.
        socket.set_multicast_all_v4(false)?;
        socket.join_multicast_v4(group.ip(), &address)?;
        socket.set_multicast_if_v4(&address)?;
        socket.set_write_timeout(Some(SEND_PATIENCE))?;
        Endpoint::from_socket(socket, merging)
    }

    fn from_socket(socket: Socket, merging: bool) -> io::Result<Endpoint> {
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
            segmentation: AtomicBool::new(true),
            overflow: AtomicU32::new(0),
        })
    }

    /// Where this socket is bound.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddrV4> {
        match self.socket.local_addr()? {
            std::net::SocketAddr::V4(address) => Ok(address),
            std::net::SocketAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    /// Bytes of an IP packet that the path to `group` carries whole.
    pub(crate) fn mtu_towards(address: Ipv4Addr, group: SocketAddrV4) -> io::Result<u32> {
        let probe = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
        probe.set_multicast_if_v4(&address)?;
        probe.bind(&SocketAddrV4::new(address, 0).into())?;
        probe.connect(&group.into())?;
        let mtu = nix::sys::socket::getsockopt(&probe, sockopt::IpMtu)?;
        u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// Datagrams the kernel threw away because the receive queue was full, since the socket was made; wraps.
    pub(crate) fn overflow(&self) -> u32 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// Sends `bytes` as datagrams of `segment` bytes each (the last may be shorter), at most [`BATCH_SEGMENTS`].
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` after [`SEND_PATIENCE`] with a full queue.
    pub(crate) fn send(&self, to: SocketAddrV4, bytes: &[u8], segment: usize) -> io::Result<()> {
        debug_assert!(segment > 0 && bytes.len().div_ceil(segment) <= BATCH_SEGMENTS);
        if bytes.len() <= segment {
            return self.socket.send_to(bytes, to).map(drop);
        }
        if self.segmentation.load(Ordering::Relaxed) {
            match self.send_segmented(to, bytes, segment) {
                Err(error) if lacks_segmentation(&error) => {
                    log::info!("socket segmentation=unavailable reason=\"{error}\"");
                    self.segmentation.store(false, Ordering::Relaxed);
                }
                other => return other,
            }
        }
        self.send_each(to, bytes, segment)
    }

    fn send_segmented(&self, to: SocketAddrV4, bytes: &[u8], segment: usize) -> io::Result<()> {
        let segment =
            u16::try_from(segment).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut name = socket_address(to);
        let mut part = part_of(bytes);
        let mut control = Control([0; CONTROL_BYTES]);
        let mut header = empty_header();
        header.msg_name = ptr::from_mut(&mut name).cast();
        header.msg_namelen = address_length();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute. `header` points at `control`, which is aligned and larger
        // than one message of a u16, so CMSG_FIRSTHDR gives a valid place inside it to write to.
        let sent = unsafe {
            header.msg_controllen = libc::CMSG_SPACE(mem::size_of::<u16>() as u32) as _;
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_UDP;
            (*message).cmsg_type = libc::UDP_SEGMENT;
            (*message).cmsg_len = libc::CMSG_LEN(mem::size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(message)
                .cast::<u16>()
                .write_unaligned(segment);
            // SAFETY: all pointers in `header` live until the call returns; the kernel only reads them.
            libc::sendmsg(
                self.socket.as_raw_fd(),
                &raw const header,
                libc::MSG_NOSIGNAL,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    fn send_each(&self, to: SocketAddrV4, bytes: &[u8], segment: usize) -> io::Result<()> {
        let mut name = socket_address(to);
        let mut parts = [const {
            libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            }
        }; BATCH_SEGMENTS];
        let mut headers: [libc::mmsghdr; BATCH_SEGMENTS] = [libc::mmsghdr {
            msg_hdr: empty_header(),
            msg_len: 0,
        }; BATCH_SEGMENTS];
        let mut count = 0;
        for (datagram, (part, header)) in bytes
            .chunks(segment)
            .zip(parts.iter_mut().zip(headers.iter_mut()))
        {
            *part = part_of(datagram);
            header.msg_hdr.msg_name = ptr::from_mut(&mut name).cast();
            header.msg_hdr.msg_namelen = address_length();
            header.msg_hdr.msg_iov = ptr::from_mut(part);
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        let mut first = 0;
        while first < count {
            // SAFETY: headers[first..count] were filled above, everything they point at outlives the call, and the
            // kernel only writes msg_len.
            let sent = unsafe {
                let start = headers.as_mut_ptr().add(first);
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    start,
                    (count - first) as u32,
                    libc::MSG_NOSIGNAL,
                )
            };
            if sent < 0 {
                return Err(io::Error::last_os_error());
            }
            first += usize::try_from(sent).unwrap_or(0).max(1);
        }
        Ok(())
    }

    /// Asks the fq queueing discipline, where it is in force, to let go of `bytes` a second at most. Everywhere else
    /// this does nothing, and nothing says so: it can only smooth what is paced already.
    pub(crate) fn limit_pace(&self, bytes: u64) {
        // Without segmentation a burst is more packets than fq keeps of one flow, and it would drop the rest.
        if !self.segmentation.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the kernel reads eight bytes of an integer that outlives the call. That an old kernel refuses is
        // of no consequence.
        unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MAX_PACING_RATE,
                ptr::from_ref(&bytes).cast(),
                mem::size_of::<u64>() as libc::socklen_t,
            );
        }
    }

    /// Waits until there is something to read or `patience` is over; `true` when there is.
    pub(crate) fn wait(&self, patience: Duration) -> io::Result<bool> {
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut waiting, Some(TimeSpec::from_duration(patience)), None) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes the messages that are there, without waiting, and gives each datagram to `each`; how many there were.
    ///
    /// # Errors
    /// What the kernel says. Nothing to read is zero, not an error.
    pub(crate) fn receive(
        &self,
        inbox: &mut Inbox,
        mut each: impl FnMut(SocketAddrV4, &[u8]),
    ) -> io::Result<usize> {
        let mut names = [socket_address(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)); INBOX_SLOTS];
        let mut controls = [Control([0; CONTROL_BYTES]); INBOX_SLOTS];
        let mut parts = [const {
            libc::iovec {
                iov_base: ptr::null_mut(),
                iov_len: 0,
            }
        }; INBOX_SLOTS];
        let mut headers = [libc::mmsghdr {
            msg_hdr: empty_header(),
            msg_len: 0,
        }; INBOX_SLOTS];
        for (slot, header) in headers.iter_mut().enumerate() {
            let bytes = &mut inbox.bytes[slot * SLOT_STRIDE..][..SLOT_BYTES];
            parts[slot] = libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: SLOT_BYTES,
            };
            header.msg_hdr.msg_name = ptr::from_mut(&mut names[slot]).cast();
            header.msg_hdr.msg_namelen = address_length();
            header.msg_hdr.msg_iov = ptr::from_mut(&mut parts[slot]);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = controls[slot].0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: every header points at its own name, part, control and slot of the inbox, none of which overlap
        // and all of which outlive the call; lengths are those of the buffers.
        let taken = unsafe {
            let fd = self.socket.as_raw_fd();
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                INBOX_SLOTS as u32,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let Ok(taken) = usize::try_from(taken) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        };
        let mut datagrams = 0;
        for (slot, header) in headers[..taken].iter().enumerate() {
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                continue;
            }
            let length = (header.msg_len as usize).min(SLOT_BYTES);
            let bytes = &inbox.bytes[slot * SLOT_STRIDE..][..length];
            let segment = self.read_control(&header.msg_hdr).unwrap_or(length).max(1);
            let from = address_of(&names[slot]);
            for datagram in bytes.chunks(segment) {
                each(from, datagram);
                datagrams += 1;
            }
        }
        Ok(datagrams)
    }

    /// Notes the drop count of one received message and gives the size of the datagrams merged into it.
    fn read_control(&self, header: &libc::msghdr) -> Option<usize> {
        let mut segment = None;
        // SAFETY: the kernel filled the control buffer `header` points at and set its length; the CMSG macros walk
        // it within that length, and both payloads read are four bytes, as the kernel defines them.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                let data = libc::CMSG_DATA(message);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        segment = usize::try_from(data.cast::<i32>().read_unaligned())
                            .ok()
                            .filter(|&size| size > 0);
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                        self.overflow
                            .store(data.cast::<u32>().read_unaligned(), Ordering::Relaxed);
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        segment
    }
}

impl Inbox {
    /// Buffers for one batch. Pages are only touched when datagrams arrive in them.
    pub(crate) fn new() -> Inbox {
        Inbox {
            bytes: vec![0; INBOX_SLOTS * SLOT_STRIDE],
        }
    }
}

/// Whether an error means "this kernel or card cannot cut datagrams", rather than "this cannot be sent".
fn lacks_segmentation(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP | libc::ENOPROTOOPT | libc::EMSGSIZE)
    )
}

fn empty_header() -> libc::msghdr {
    // SAFETY: msghdr is plain data of integers and pointers, for which all zeros is a valid value; some targets
    // have private padding fields, so it cannot be written as a literal.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn part_of(bytes: &[u8]) -> libc::iovec {
    // The kernel takes one type for both directions; on sending it only reads.
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn socket_address(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(address.ip().octets()),
        },
        sin_zero: [0; 8],
    }
}

fn address_of(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(
        Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()),
        u16::from_be(name.sin_port),
    )
}

fn address_length() -> libc::socklen_t {
    mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
}

#[cfg(test)]
mod tests;
