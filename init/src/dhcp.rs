//! DHCP client (RFC 2131) without socket or clock: messages in, messages and leases out.
//!
//! ```text
//!            DISCOVER          OFFER              ACK            T1            T2
//!  ┌─▶ Selecting ──────▶ … ──────────▶ Requesting ────▶ Bound ──────▶ Renewing ──▶ Rebinding
//!  │      ▲ again, 1 … 16 s              │  │             ▲             │ ACK         │ ACK
//!  │      └──────────────────────────────┘  │             └─────────────┴─────────────┘
//!  └─ NAK (Lost), four requests unanswered, or the lease ran out (Overdue) ◀───────────┘
//! ```
//!
//! It never gives up: after a link came up, spanning tree may swallow everything for a minute.
//! When a lease runs out because every server is silent, the address is kept while a server is
//! looked for, and given up when one says no or lends another: a machine in the middle of its
//! flash is not stopped for a server that is not there (`docs/decisions/0020`).
//! The client identifier is the one iPXE sends, so that the machine keeps one lease from boot
//! ROM to reboot.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use dhcproto::v4::{DhcpOption, Flags, HType, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable};
use netflash_pxe::Mac;

/// First wait for an answer; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait for an answer while there is no lease.
const RETRY_MAX: Duration = Duration::from_secs(16);
/// Longest and shortest wait for an answer to a renewal; between them, half of what is left.
const RENEW_RETRY_MAX: Duration = Duration::from_secs(30);
const RENEW_RETRY_MIN: Duration = Duration::from_secs(2);
/// Unanswered requests for an offered address before another offer is looked for.
const REQUESTS_MAX: u32 = 4;
/// A shorter lease is treated as this long: nobody renews every second.
const LEASE_MIN: u32 = 30;
/// A datagram a server may send us (option 57): what fits every Ethernet.
const MESSAGE_BYTES: u16 = 1472;
/// MTUs taken from a server (option 26). Some send 576 for no reason, and IPv6 needs 1280.
const MTUS: RangeInclusive<u16> = 1280..=9216;
/// RFC 2131 messages begin with 236 bytes and the cookie before the options.
const HEADER_BYTES: usize = 240;

/// What a server lent us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// Bits of its network, 0 to 32.
    pub prefix: u8,
    /// The first router, if there is one.
    pub router: Option<Ipv4Addr>,
    /// The largest packet the server wants sent here, where it says one we take.
    pub mtu: Option<u16>,
    /// Who lent it.
    pub server: Ipv4Addr,
    /// How long it is ours; the rest of time for an infinite lease.
    pub duration: Duration,
}

/// What the card must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DhcpEvent {
    /// The address is ours from now on; told again when a renewal changed something.
    Bound(Lease),
    /// Its time is over and no server answers: it is kept until one does.
    Overdue(Lease),
    /// The address must not be used any longer.
    Lost(Lease),
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transmit {
    /// Where to: the server for a renewal, everybody otherwise.
    pub to: Ipv4Addr,
    /// The payload of the UDP datagram.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
enum State {
    Selecting,
    Requesting { offer: Lease, sent: u32 },
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// A lease with its moments.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    renew: Instant,
    rebind: Instant,
    end: Instant,
}

/// The client of one network card.
#[derive(Debug)]
pub(crate) struct DhcpClient {
    mac: Mac,
    uuid: Option<[u8; 16]>,
    transaction: u32,
    started: Instant,
    state: State,
    /// A lease that ran out while no server answered.
    overdue: Option<Lease>,
    retry: Duration,
    due: Instant,
    transmit: Option<Transmit>,
    events: Vec<DhcpEvent>,
}

impl DhcpClient {
    /// A client that looks for a server at once. `transaction` is a random number.
    pub(crate) fn new(mac: Mac, uuid: Option<[u8; 16]>, transaction: u32, now: Instant) -> Self {
        DhcpClient {
            mac,
            uuid,
            transaction,
            started: now,
            state: State::Selecting,
            overdue: None,
            retry: RETRY_MIN,
            due: now,
            transmit: None,
            events: Vec::new(),
        }
    }

    /// The link went away and came back: the same address is asked for again, of anybody.
    pub(crate) fn handle_link_up(&mut self, now: Instant) {
        self.retry = RETRY_MIN;
        self.due = now;
        if let State::Bound(held) | State::Renewing(held) = &self.state {
            self.state = State::Rebinding(held.clone());
        }
    }

    /// Looks at a datagram; what is not for us or makes no sense is ignored.
    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let Some(reply) = Reply::read(bytes, self.transaction, self.mac) else {
            return;
        };
        match (&self.state, reply.kind) {
            (State::Selecting, MessageType::Offer) => {
                if let Some(offer) = reply.lease {
                    self.state = State::Requesting { offer, sent: 0 };
                    self.retry = RETRY_MIN;
                    self.due = now;
                }
            }
            (State::Requesting { offer, .. }, MessageType::Ack) => {
                if let Some(lease) = reply.lease
                    && lease.server == offer.server
                {
                    let former = self.overdue.take();
                    self.bind(now, lease, former);
                }
            }
            (State::Renewing(held) | State::Rebinding(held), MessageType::Ack) => {
                let former = held.lease.clone();
                if let Some(lease) = reply.lease {
                    self.bind(now, lease, Some(former));
                }
            }
            (State::Requesting { offer, .. }, MessageType::Nak)
                if reply.server == Some(offer.server) =>
            {
                let lost = self.overdue.take();
                self.events.extend(lost.map(DhcpEvent::Lost));
                self.restart(now);
            }
            (State::Renewing(held) | State::Rebinding(held), MessageType::Nak) => {
                let lost = held.lease.clone();
                self.events.push(DhcpEvent::Lost(lost));
                self.restart(now);
            }
            _ => {}
        }
    }

    /// Does what is due; call it at [`Self::poll_timeout`] or later.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        match &mut self.state {
            State::Selecting => {
                self.send(now, MessageType::Discover, None);
                self.back_off(now);
            }
            State::Requesting { sent, .. } if *sent == REQUESTS_MAX => self.restart(now),
            State::Requesting { offer, sent } => {
                *sent += 1;
                let offer = offer.clone();
                self.send(now, MessageType::Request, Some(&offer));
                self.back_off(now);
            }
            State::Bound(held) => {
                self.state = State::Renewing(held.clone());
                self.handle_timeout(now);
            }
            State::Renewing(held) if now >= held.rebind => {
                self.state = State::Rebinding(held.clone());
                self.handle_timeout(now);
            }
            State::Rebinding(held) if now >= held.end => {
                let lease = held.lease.clone();
                self.overdue = Some(lease.clone());
                self.events.push(DhcpEvent::Overdue(lease));
                self.restart(now);
            }
            State::Renewing(held) => {
                let held = held.clone();
                self.renew(now, held.lease.server, &held);
                self.due = retry_renewal(now, held.rebind);
            }
            State::Rebinding(held) => {
                let held = held.clone();
                self.renew(now, Ipv4Addr::BROADCAST, &held);
                self.due = retry_renewal(now, held.end);
            }
        }
    }

    /// The message to send now.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmit.take()
    }

    /// What happened, oldest first.
    pub(crate) fn poll_event(&mut self) -> Option<DhcpEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// When something is due next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The lease is ours, in place of a former one.
    fn bind(&mut self, now: Instant, lease: Lease, former: Option<Lease>) {
        let has_moved =
            |former: &Lease| (former.address, former.prefix) != (lease.address, lease.prefix);
        self.events
            .extend(former.filter(has_moved).map(DhcpEvent::Lost));
        let held = Held {
            renew: now + lease.duration / 2,
            rebind: now + lease.duration / 8 * 7,
            end: now + lease.duration,
            lease: lease.clone(),
        };
        self.due = held.renew;
        self.state = State::Bound(held);
        self.events.push(DhcpEvent::Bound(lease));
    }

    fn restart(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.retry = RETRY_MIN;
        self.due = now + RETRY_MIN;
        self.transaction = self.transaction.wrapping_add(1);
    }

    fn back_off(&mut self, now: Instant) {
        // Rooms are switched on at once: the transaction number spreads the repeats by 1/8.
        let jitter = self.retry / 64 * (self.transaction % 8);
        self.due = now + self.retry + jitter;
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }

    fn send(&mut self, now: Instant, kind: MessageType, offer: Option<&Lease>) {
        let mut message = self.message(now, kind);
        message.set_flags(Flags::default().set_broadcast());
        let options = message.opts_mut();
        if let Some(offer) = offer {
            options.insert(DhcpOption::RequestedIpAddress(offer.address));
            options.insert(DhcpOption::ServerIdentifier(offer.server));
        } else if let Some(overdue) = &self.overdue {
            // Whoever answers first should know which address this machine has.
            options.insert(DhcpOption::RequestedIpAddress(overdue.address));
        }
        self.queue(Ipv4Addr::BROADCAST, &message);
    }

    fn renew(&mut self, now: Instant, to: Ipv4Addr, held: &Held) {
        let mut message = self.message(now, MessageType::Request);
        message.set_ciaddr(held.lease.address);
        self.queue(to, &message);
    }

    fn message(&self, now: Instant, kind: MessageType) -> Message {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message =
            Message::new_with_id(self.transaction, zero, zero, zero, zero, &self.mac.0);
        let seconds = now.saturating_duration_since(self.started).as_secs();
        message.set_secs(u16::try_from(seconds).unwrap_or(u16::MAX));
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::MaxMessageSize(MESSAGE_BYTES));
        let mut identifier = vec![1];
        identifier.extend(self.mac.0);
        options.insert(DhcpOption::ClientIdentifier(identifier));
        if let Some(uuid) = self.uuid {
            let mut identifier = vec![0];
            identifier.extend(uuid);
            options.insert(DhcpOption::ClientMachineIdentifier(identifier));
        }
        options.insert(DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::InterfaceMtu,
            OptionCode::AddressLeaseTime,
            OptionCode::ServerIdentifier,
        ]));
        message
    }

    fn queue(&mut self, to: Ipv4Addr, message: &Message) {
        // What does not encode is never sent; the next due time tries again.
        if let Ok(bytes) = message.to_vec() {
            self.transmit = Some(Transmit { to, bytes });
        }
    }
}

/// When a renewal that nobody answers is repeated, at `limit` at the latest (RFC 2131, 4.4.5, with shorter pauses: a
/// flash takes minutes, and leases of a minute exist).
fn retry_renewal(now: Instant, limit: Instant) -> Instant {
    let left = limit.saturating_duration_since(now);
    let pause = (left / 2).clamp(RENEW_RETRY_MIN, RENEW_RETRY_MAX);
    now + pause.min(left)
}

/// The parts of a server's message that matter.
struct Reply {
    kind: MessageType,
    server: Option<Ipv4Addr>,
    lease: Option<Lease>,
}

impl Reply {
    fn read(bytes: &[u8], transaction: u32, mac: Mac) -> Option<Reply> {
        let bytes = only_known_options(bytes)?;
        let message = Message::decode(&mut Decoder::new(&bytes)).ok()?;
        let ours = message.opcode() == Opcode::BootReply
            && message.htype() == HType::Eth
            && message.xid() == transaction
            && message.chaddr() == mac.0;
        if !ours {
            return None;
        }
        let options = message.opts();
        let Some(DhcpOption::MessageType(kind)) = options.get(OptionCode::MessageType) else {
            return None;
        };
        let server = match options.get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => Some(*server),
            _ => None,
        };
        Some(Reply {
            kind: *kind,
            server,
            lease: server.and_then(|server| lease(&message, server)),
        })
    }
}

/// The message with nothing but the options we read, each of the length it must have.
///
/// The codec asserts lengths that a server on the wire may choose, and we are PID 1's worker:
/// what it cannot digest must not reach it.
fn only_known_options(bytes: &[u8]) -> Option<Vec<u8>> {
    let (header, mut rest) = bytes.split_at_checked(HEADER_BYTES)?;
    // It believes the length of the hardware address, too.
    if header[2] != 6 {
        return None;
    }
    let mut kept = header.to_vec();
    loop {
        rest = match rest {
            [] | [255, ..] => break,
            [0, after @ ..] => after,
            [code, length, after @ ..] => {
                let (value, after) = after.split_at_checked(usize::from(*length))?;
                let is_right = match (*code, value.len()) {
                    // Message type; MTU; subnet mask, lease time, server identifier; routers.
                    (53, length) => length == 1,
                    (26, length) => length == 2,
                    (1 | 51 | 54, length) => length == 4,
                    (3, length) => length > 0 && length % 4 == 0,
                    _ => false,
                };
                if is_right {
                    kept.extend([*code, *length]);
                    kept.extend(value);
                }
                after
            }
            [_] => return None,
        };
    }
    kept.push(255);
    Some(kept)
}

fn lease(message: &Message, server: Ipv4Addr) -> Option<Lease> {
    let options = message.opts();
    let address = message.yiaddr();
    let usable = !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_broadcast()
        && !address.is_loopback();
    let Some(DhcpOption::AddressLeaseTime(seconds)) = options.get(OptionCode::AddressLeaseTime)
    else {
        return None;
    };
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => prefix_of(*mask)?,
        // Without a mask, that of the address's old class, as RFC 1122 had it.
        _ => match address.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            _ => 24,
        },
    };
    let router = match options.get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().copied(),
        _ => None,
    };
    let mtu = match options.get(OptionCode::InterfaceMtu) {
        Some(DhcpOption::InterfaceMtu(mtu)) => Some(*mtu).filter(|mtu| MTUS.contains(mtu)),
        _ => None,
    };
    usable.then(|| Lease {
        address,
        prefix,
        router,
        mtu,
        server,
        duration: Duration::from_secs((*seconds).max(LEASE_MIN).into()),
    })
}

/// Ones followed by zeros, or it is no mask.
fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    (bits.count_ones() == ones)
        .then(|| u8::try_from(ones).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
