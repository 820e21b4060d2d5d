//! What the standard library cannot say safely: a child that ends with its parent, a frame without IP.
#![allow(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// Let the child get SIGTERM when the thread that starts it ends, however that happens.
pub(crate) fn die_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure does one prctl(2) and
    // allocates nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from));
    }
}

/// The hardware address of an interface.
pub(crate) fn hardware_address(interface: &str) -> io::Result<[u8; 6]> {
    let mut entries = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let address = entries.find_map(|entry| entry.address?.as_link_addr()?.addr());
    address.ok_or_else(|| io::Error::other(format!("{interface} has no hardware address")))
}

/// Send an Ethernet frame, head and all, by an interface. Needs CAP_NET_RAW.
pub(crate) fn send_frame(interface: &str, frame: &[u8]) -> io::Result<()> {
    let index = if_nametoindex(interface)?;
    // SAFETY: socket(2) with constants; its result is checked before it is owned.
    let socket = unsafe {
        let number = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(number)
    };
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
    };
    // SAFETY: both pointers come with the lengths of what they point to, and both live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
