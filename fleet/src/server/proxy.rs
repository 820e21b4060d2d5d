//! The proxy-DHCP at work: two sockets and a thread around [`ProxyOffers`].
//!
//! Questions that all DHCP servers hear are read as frames, so that no port is taken from a server on this host
//! (`docs/decisions/0021-the-boot-file-beside-another-server.md`). The boot server's port is a plain one.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use netflash_pxe::{
    BOOT_SERVER_PORT, DHCP_SERVER_PORT, DhcpFrame, Door, FRAME_BYTES_MAX, Mac, ProxyAnswer,
    ProxyOffers, Silence, answer_frame,
};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recv, send};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::config::DhcpConfig;
use crate::sys::hardware_address;

/// The longest wait, so that a stop is noticed.
const LOOK_MILLISECONDS: u16 = 200;
/// Pause after the interface went away.
const RETRY: Duration = Duration::from_secs(2);

/// A running proxy. It ends when this is dropped.
pub(super) struct Proxy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts it on the interface of `dhcp`. `http` is where iPXE goes on, and whose address answers come from.
    pub(super) fn start(dhcp: &DhcpConfig, http: SocketAddrV4) -> anyhow::Result<Proxy> {
        anyhow::ensure!(
            !http.ip().is_loopback(),
            "{} has no IPv4 address; give it one, or set listen.address",
            dhcp.interface
        );
        let loaders = [dhcp.bios_loader.as_str(), dhcp.uefi_loader.as_str()];
        let offers = ProxyOffers::new(http, loaders, dhcp.http_boot)?;
        let interface = dhcp.interface.clone();
        let desk = Desk::open(&interface, offers)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("proxy-dhcp".to_owned())
            .spawn(move || keep(desk, &interface, &stopped))
            .context("starting a thread")?;
        log::info!(
            "proxy interface={} server={} state=started",
            dhcp.interface,
            http.ip()
        );
        Ok(Proxy {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing that a panic could leave half done.
            let _ = thread.join();
        }
    }
}

/// Serves, and opens the sockets anew when the interface went away and came back.
fn keep(desk: Desk, interface: &str, stop: &AtomicBool) {
    let offers = desk.offers.clone();
    let mut desk = Some(desk);
    while !stop.load(Ordering::Relaxed) {
        // Taken out: its port must be free before it is opened again.
        if let Some(desk) = desk.take() {
            if let Err(error) = desk.serve(stop) {
                log::warn!("proxy interface={interface} state=broken reason=\"{error}\"");
            }
            continue;
        }
        thread::sleep(RETRY);
        match Desk::open(interface, offers.clone()) {
            Ok(again) => {
                log::info!("proxy interface={interface} state=started");
                desk = Some(again);
            }
            Err(error) => log::debug!("proxy state=broken reason=\"{error:#}\""),
        }
    }
}

/// The sockets, and what is said by them.
struct Desk {
    offers: ProxyOffers,
    card: Mac,
    frames: Socket,
    boot_server: UdpSocket,
}

impl Desk {
    fn open(interface: &str, offers: ProxyOffers) -> anyhow::Result<Desk> {
        let card = hardware_address(interface).context("looking for the interface of [dhcp]")?;
        let frames = frames_of(interface)
            .with_context(|| format!("listening to frames of {interface}; it needs root"))?;
        let boot_server = boot_server_at(interface).with_context(|| {
            format!(
                "listening at UDP port {BOOT_SERVER_PORT} of {interface}; when it is taken, another boot service \
                 runs on this host (dnsmasq with pxe-service?): end that, or this proxy (dhcp.mode = \"none\")"
            )
        })?;
        Ok(Desk {
            offers,
            card: Mac(card),
            frames,
            boot_server,
        })
    }

    /// Answers until it is told to stop, or an interface or a socket fails.
    fn serve(&self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let mut ready = [
                PollFd::new(self.frames.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.boot_server.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::from(LOOK_MILLISECONDS)) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            let [frame, question] = ready.map(|socket| socket.any().unwrap_or(false));
            if frame {
                self.answer_frame()?;
            }
            if question {
                self.answer_question()?;
            }
        }
        Ok(())
    }

    /// One question at the port that is shared.
    fn answer_frame(&self) -> io::Result<()> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let socket = self.frames.as_raw_fd();
        // A frame that is longer is cut, and then no question.
        let count = match recv(socket, &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            received => received?,
        };
        let Some(frame) = DhcpFrame::parse(&bytes[..count]) else {
            return Ok(());
        };
        if let Some(answer) = decided(self.offers.answer(frame.payload, Door::Shared)) {
            let relay = answer.relay.map(|relay| (relay, frame.neighbour));
            let bytes = answer_frame(self.offers.server(), self.card, relay, &answer.bytes);
            let sent = send(socket, &bytes, MsgFlags::MSG_DONTWAIT);
            unsent(answer.mac, sent.map_err(io::Error::from));
        }
        Ok(())
    }

    /// One question at the boot server's port.
    fn answer_question(&self) -> io::Result<()> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let (count, asker) = match self.boot_server.recv_from(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            received => received?,
        };
        if let Some(answer) = decided(self.offers.answer(&bytes[..count], Door::BootServer)) {
            unsent(answer.mac, self.boot_server.send_to(&answer.bytes, asker));
        }
        Ok(())
    }
}

/// A machine asks again when its answer did not leave; its operator may want to know why.
fn unsent(mac: Mac, sent: io::Result<usize>) {
    if let Err(error) = sent {
        log::warn!("proxy mac={mac} state=unsent reason=\"{error}\"");
    }
}

/// The answer, if there is one; what matters to an operator is logged.
fn decided(answer: Result<ProxyAnswer, Silence>) -> Option<ProxyAnswer> {
    match answer {
        Ok(answer) => {
            log::info!("proxy mac={} file={}", answer.mac, answer.file);
            Some(answer)
        }
        Err(silence @ Silence::Arch { .. }) => {
            log::info!("proxy state=silent reason=\"{silence}\"");
            None
        }
        Err(silence) => {
            log::debug!("proxy state=silent reason=\"{silence}\"");
            None
        }
    }
}

/// A socket that hears the frames to DHCP servers on one interface, and nothing else.
fn frames_of(interface: &str) -> io::Result<Socket> {
    let address = getifaddrs()?
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| Some(*entry.address?.as_link_addr()?));
    let address: LinkAddr =
        address.ok_or_else(|| io::Error::other(format!("{interface} has no hardware address")))?;
    let ipv4 = i32::from((libc::ETH_P_IP as u16).to_be());
    let socket = Socket::new(
        Domain::PACKET,
        Type::RAW.cloexec(),
        Some(Protocol::from(ipv4)),
    )?;
    // From here to the bind it would hear every interface.
    socket.attach_filter(&[statement(libc::BPF_RET, 0)])?;
    bind(socket.as_raw_fd(), &address)?;
    socket.attach_filter(&questions_only())?;
    Ok(socket)
}

/// The kernel's filter for UDP datagrams to the port of DHCP servers: a flash must not wake this thread for every
/// packet of its own.
fn questions_only() -> [SockFilter; 11] {
    use libc::{
        BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
        BPF_MSH, BPF_RET,
    };
    const IPV4: u32 = 0x0800;
    const UDP: u32 = 17;
    const FRAGMENT_OFFSET: u32 = 0x1fff;
    let unless = |code: u32, value: u32, right: u8, wrong: u8| {
        SockFilter::new((BPF_JMP | code | BPF_K) as u16, right, wrong, value)
    };
    [
        statement(BPF_LD | BPF_H | BPF_ABS, 12),
        unless(BPF_JEQ, IPV4, 0, 8),
        statement(BPF_LD | BPF_B | BPF_ABS, 23),
        unless(BPF_JEQ, UDP, 0, 6),
        statement(BPF_LD | BPF_H | BPF_ABS, 20),
        unless(BPF_JSET, FRAGMENT_OFFSET, 4, 0),
        statement(BPF_LDX | BPF_B | BPF_MSH, 14),
        statement(BPF_LD | BPF_H | BPF_IND, 16),
        unless(BPF_JEQ, u32::from(DHCP_SERVER_PORT), 0, 1),
        statement(BPF_RET, u32::from(u16::MAX)),
        statement(BPF_RET, 0),
    ]
}

fn statement(code: u32, value: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, value)
}

fn boot_server_at(interface: &str) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, BOOT_SERVER_PORT);
    socket.bind(&any.into())?;
    Ok(socket.into())
}
