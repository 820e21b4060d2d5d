//! DHCPv6 client (RFC 8415) without socket or clock: one address for one card, where routers announce none.
//!
//! ```text
//!               SOLICIT         ADVERTISE          REPLY         T1            T2
//!  ┌─▶ Soliciting ────▶ … ─────────────▶ Requesting ────▶ Bound ────▶ Renewing ───▶ Rebinding
//!  │       ▲ again, 1 … 16 s                │             ▲            │ REPLY       │ REPLY
//!  │       └────────────────────────────────┘             └────────────┴─────────────┘
//!  └─ four requests unanswered, no address any more (Lost), or its time is over (Overdue) ◀─┘
//! ```
//!
//! Its rules are those of its sister for IPv4: it never gives up, and an address is kept beyond its time while every
//! server is silent (`docs/decisions/0020`). The messages are read here byte by byte, for what a server may write on
//! the wire must not reach a codec that asserts lengths.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use netflash_pxe::Mac;

mod message;

use message::{Kind, Message, Reply};

/// First wait for an answer; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait for an answer while there is no address.
const RETRY_MAX: Duration = Duration::from_secs(16);
/// Pause between two renewals that nobody answers.
const RENEW_RETRY: Duration = Duration::from_secs(10);
/// Unanswered requests for an advertised address before another server is looked for.
const REQUESTS_MAX: u32 = 4;
/// A shorter life of an address is treated as this long, in seconds.
const LIFE_MIN: u32 = 30;

/// What a server lent us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Our address.
    pub address: Ipv6Addr,
    /// Its name for itself (DUID).
    pub server: Vec<u8>,
    /// How long the address is ours, in seconds; `u32::MAX` for ever.
    pub seconds: u32,
    /// When to renew, in seconds; 0: the server leaves it to us.
    renew: u32,
    /// When to ask every server, in seconds; 0: the server leaves it to us.
    rebind: u32,
}

/// What the card must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The address is ours from now on.
    Bound(Lease),
    /// Its time is over and no server answers: it is kept until one does.
    Overdue(Lease),
    /// The address must not be used any longer.
    Lost(Lease),
}

#[derive(Clone, Debug)]
enum State {
    Soliciting,
    Requesting { offer: Lease, sent: u32 },
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// A lease with its moments.
#[derive(Clone, Debug)]
struct Held {
    lease: Lease,
    rebind: Instant,
    end: Instant,
}

/// The client of one network card.
#[derive(Debug)]
pub(crate) struct Client {
    /// The machine's name for servers (DUID).
    own: Vec<u8>,
    /// The card's number among those of the machine (IAID).
    association: u32,
    transaction: u32,
    started: Instant,
    state: State,
    /// An address whose time ran out while no server answered.
    overdue: Option<Lease>,
    retry: Duration,
    due: Instant,
    transmit: Option<Vec<u8>>,
    events: Vec<Event>,
}

impl Client {
    /// A client that looks for a server at once. `transaction` is a random number.
    pub(crate) fn new(mac: Mac, uuid: Option<[u8; 16]>, transaction: u32, now: Instant) -> Client {
        let [_, _, association @ ..] = mac.0;
        Client {
            own: message::own_name(mac, uuid),
            association: u32::from_be_bytes(association),
            transaction,
            started: now,
            state: State::Soliciting,
            overdue: None,
            retry: RETRY_MIN,
            due: now,
            transmit: None,
            events: Vec::new(),
        }
    }

    /// The link went away and came back: any server is asked whether the address still holds.
    pub(crate) fn handle_link_up(&mut self, now: Instant) {
        self.retry = RETRY_MIN;
        self.due = now;
        if let State::Bound(held) | State::Renewing(held) = &self.state {
            self.state = State::Rebinding(held.clone());
        }
    }

    /// Looks at a datagram; what is not for us or makes no sense is ignored.
    pub(crate) fn handle_datagram(&mut self, now: Instant, bytes: &[u8]) {
        let Some(reply) = Reply::read(bytes, self.transaction, &self.own, self.association) else {
            return;
        };
        match (&self.state, reply) {
            (State::Soliciting, Reply::Advertise(offer)) => {
                self.state = State::Requesting { offer, sent: 0 };
                self.retry = RETRY_MIN;
                self.due = now;
            }
            (State::Requesting { offer, .. }, Reply::Granted(lease))
                if lease.server == offer.server =>
            {
                let former = self.overdue.take();
                self.bind(now, lease, former);
            }
            (State::Requesting { offer, .. }, Reply::Refused(server)) if server == offer.server => {
                let lost = self.overdue.take();
                self.events.extend(lost.map(Event::Lost));
                self.restart(now);
            }
            (State::Renewing(held) | State::Rebinding(held), Reply::Granted(lease)) => {
                let former = held.lease.clone();
                self.bind(now, lease, Some(former));
            }
            (State::Renewing(held) | State::Rebinding(held), Reply::Refused(_)) => {
                let lost = held.lease.clone();
                self.events.push(Event::Lost(lost));
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
            State::Soliciting => {
                let wish = self.overdue.clone();
                self.send(now, Kind::Solicit, wish.map(|lease| lease.address), None);
                self.back_off(now);
            }
            State::Requesting { sent, .. } if *sent == REQUESTS_MAX => self.restart(now),
            State::Requesting { offer, sent } => {
                *sent += 1;
                let offer = offer.clone();
                self.send(now, Kind::Request, Some(offer.address), Some(&offer.server));
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
                self.events.push(Event::Overdue(lease));
                self.restart(now);
            }
            State::Renewing(held) => {
                let (lease, limit) = (held.lease.clone(), held.rebind);
                let server = Some(lease.server.as_slice());
                self.send(now, Kind::Renew, Some(lease.address), server);
                self.due = (now + RENEW_RETRY).min(limit);
            }
            State::Rebinding(held) => {
                let (lease, limit) = (held.lease.clone(), held.end);
                self.send(now, Kind::Rebind, Some(lease.address), None);
                self.due = (now + RENEW_RETRY).min(limit);
            }
        }
    }

    /// The message to send to all servers now.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.take()
    }

    /// What happened, oldest first.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// When something is due next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// The address is ours, in place of a former one.
    fn bind(&mut self, now: Instant, lease: Lease, former: Option<Lease>) {
        let moved = former.filter(|former| former.address != lease.address);
        self.events.extend(moved.map(Event::Lost));
        let life = lease.seconds.max(LIFE_MIN);
        let or = |said: u32, otherwise: u32| if said == 0 { otherwise } else { said.min(life) };
        let renew = or(lease.renew, life / 2).max(1);
        let rebind = or(lease.rebind, life / 5 * 4).max(renew);
        let after = |seconds: u32| now + Duration::from_secs(seconds.into());
        self.state = State::Bound(Held {
            lease: lease.clone(),
            rebind: after(rebind),
            end: after(life),
        });
        self.due = after(renew);
        self.events.push(Event::Bound(lease));
    }

    fn restart(&mut self, now: Instant) {
        self.state = State::Soliciting;
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

    fn send(&mut self, now: Instant, kind: Kind, wish: Option<Ipv6Addr>, server: Option<&[u8]>) {
        let message = Message {
            kind,
            transaction: self.transaction,
            own: &self.own,
            server,
            association: self.association,
            wish,
            elapsed: now.saturating_duration_since(self.started),
        };
        self.transmit = Some(message.pack());
    }
}

#[cfg(test)]
mod tests;
