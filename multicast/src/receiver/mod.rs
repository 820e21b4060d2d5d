//! The receiving half of the protocol, without sockets, clocks or threads.

use std::net::SocketAddr;

use crate::block::{Start, Verdict};
use crate::clock::Instant;
use crate::fec::{Fec, ReedSolomon};

mod config;
mod event;

pub use config::{MAX_NAME_BYTES, ReceiverConfig};
pub use event::{ReceiverError, ReceiverEvent, ReceiverStats};

/// One machine's receiver. Five verbs, and what the sink has to say.
#[derive(Debug)]
pub struct Receiver<F = ReedSolomon> {
    config: ReceiverConfig,
    fec: F,
    stats: ReceiverStats,
}

impl<F: Fec> Receiver<F> {
    /// A receiver that looks for a session from `now` on.
    pub fn new(_now: Instant, config: ReceiverConfig, fec: F) -> Receiver<F> {
        Receiver {
            config,
            fec,
            stats: ReceiverStats::default(),
        }
    }

    /// Takes a datagram that came to the group. Never fails: what is not understood is counted.
    pub fn handle_datagram(&mut self, _now: Instant, _from: SocketAddr, _datagram: &[u8]) {
        let _ = (&self.config, &self.fec);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Appends the next datagram to `out` and says to whom it goes (always the sender, unicast).
    pub fn poll_transmit(&mut self, _now: Instant, _out: &mut Vec<u8>) -> Option<SocketAddr> {
        None
    }

    /// The next thing to know or do.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        None
    }

    /// When [`handle_timeout`](Receiver::handle_timeout) is due. Ask again after every other verb.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// What the sink made of the preamble. Meanwhile the receiver goes on: keep calling the five verbs.
    pub fn begin(&mut self, _now: Instant, _start: Start) {}

    /// What the sink says of a block.
    pub fn handle_verdict(&mut self, _now: Instant, _verdict: Verdict) {}

    /// How the sink and the socket are doing: bytes not yet judged, whether another block may be
    /// delivered, and datagrams the socket dropped so far (`SO_RXQ_OVFL`).
    pub fn set_pressure(&mut self, _backlog_bytes: u64, _has_room: bool, _overflow: u32) {}

    /// The sink cannot go on: the sender is told, then comes [`ReceiverEvent::Failed`].
    pub fn fail(&mut self, _now: Instant, _reason: String) {}

    /// Counters so far.
    pub fn stats(&self) -> ReceiverStats {
        self.stats
    }

    /// Blocks still lacking.
    pub fn lacking(&self) -> u32 {
        0
    }
}
