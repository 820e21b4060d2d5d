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
    net::{SocketAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    ptr,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use socket2::Socket;

mod name;
mod open;

use name::Name;

/// Datagrams that leave in one call at most: as many of an Ethernet frame's size as one IP packet can count, a burst of
/// an eighth of a small switch's buffer. The pace makes them fewer.
pub(crate) const BATCH_SEGMENTS: usize = 43;
/// Messages taken in one call.
const INBOX_SLOTS: usize = 64;
/// The longest message: a merged run of datagrams is at most 64 KiB.
const SLOT_BYTES: usize = 65_536;
/// Slots start a little apart from a power of two, or all of them would share the same few cache sets.
const SLOT_STRIDE: usize = SLOT_BYTES + 2_048;
/// Room for two control messages: segment size and drop count.
const CONTROL_BYTES: usize = 64;

/// One UDP socket set up for a multicast session.
#[derive(Debug)]
pub(crate) struct Endpoint {
    socket: UdpSocket,
    /// The interface's number, for addresses of one link (IPv6); 0: there are none.
    scope: u32,
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
    /// Where this socket is bound, without its scope: the number of an interface means nothing to others.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        let mut address = self.socket.local_addr()?;
        if let SocketAddr::V6(address) = &mut address {
            address.set_scope_id(0);
        }
        Ok(address)
    }

    /// Datagrams the kernel threw away because the receive queue was full, since the socket was made; wraps.
    pub(crate) fn overflow(&self) -> u32 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// Sends `bytes` as datagrams of `segment` bytes each (the last may be shorter), at most [`BATCH_SEGMENTS`].
    ///
    /// # Errors
    /// What the kernel says; `WouldBlock` after a second with a full queue.
    pub(crate) fn send(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        debug_assert!(segment > 0 && bytes.len().div_ceil(segment) <= BATCH_SEGMENTS);
        let to = self.on_link(to);
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

    /// An address of one link means the link of this socket.
    fn on_link(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V6(mut to) if to.scope_id() == 0 => {
                let is_scoped = to.ip().is_unicast_link_local() || to.ip().is_multicast();
                to.set_scope_id(if is_scoped { self.scope } else { 0 });
                SocketAddr::V6(to)
            }
            to => to,
        }
    }

    fn send_segmented(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        let segment =
            u16::try_from(segment).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let (mut name, name_bytes) = Name::of(to);
        let mut part = part_of(bytes);
        let mut control = Control([0; CONTROL_BYTES]);
        let mut header = empty_header();
        header.msg_name = name.as_mut_ptr();
        header.msg_namelen = name_bytes;
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

    fn send_each(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        let (mut name, name_bytes) = Name::of(to);
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
            header.msg_hdr.msg_name = name.as_mut_ptr();
            header.msg_hdr.msg_namelen = name_bytes;
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
        mut each: impl FnMut(SocketAddr, &[u8]),
    ) -> io::Result<usize> {
        let mut names = [Name::EMPTY; INBOX_SLOTS];
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
            header.msg_hdr.msg_name = names[slot].as_mut_ptr();
            header.msg_hdr.msg_namelen = Name::room();
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
            let from = names[slot].address();
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

/// The MTU of the path a connected IPv6 socket has; nix knows that of IPv4 only.
fn ipv6_mtu(socket: &Socket) -> io::Result<libc::c_int> {
    let mut mtu: libc::c_int = 0;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, those of one integer that outlives the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU,
            ptr::from_mut(&mut mtu).cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(mtu)
}

#[cfg(test)]
mod tests;
