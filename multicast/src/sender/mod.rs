//! The sending half of the protocol, without sockets, clocks or threads.

use std::net::SocketAddr;

use crate::block::{BlockId, Layout};
use crate::clock::Instant;
use crate::fec::{Fec, ReedSolomon};

mod config;
mod event;

pub use config::{
    MAX_SYMBOL_BYTES, MIN_SYMBOL_BYTES, SenderConfig, SenderError, StartRule, symbol_bytes_for_mtu,
};
pub use event::{Destination, ReceiverInfo, SenderEvent, SenderStats};

/// One session's sender. Five verbs, and [`provide`](Sender::provide) for the blocks it asks for.
#[derive(Debug)]
pub struct Sender<F = ReedSolomon> {
    fec: F,
    stats: SenderStats,
}

impl<F: Fec> Sender<F> {
    /// A sender of `layout` behind `preamble`, from `now` on.
    pub fn new(
        _now: Instant,
        _config: SenderConfig,
        _preamble: &[u8],
        _layout: Layout,
        fec: F,
    ) -> Result<Sender<F>, SenderError> {
        Ok(Sender {
            fec,
            stats: SenderStats::default(),
        })
    }

    /// Takes a datagram that came on the session's socket. Never fails: what is not understood is counted.
    pub fn handle_datagram(&mut self, _now: Instant, _from: SocketAddr, _datagram: &[u8]) {}

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// Appends the next datagram to `out`, if there is one. The caller paces: data is always ready while
    /// somebody lacks something. All data datagrams of a session have the same length.
    pub fn poll_transmit(&mut self, _now: Instant, _out: &mut Vec<u8>) -> Option<Destination> {
        let _ = &self.fec;
        None
    }

    /// The next thing to know or do.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        None
    }

    /// When [`handle_timeout`](Sender::handle_timeout) is due. Ask again after every other verb.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Gives the payload of a block that [`SenderEvent::NeedBlock`] asked for.
    pub fn provide(&mut self, _block: BlockId, _payload: Vec<u8>) -> Result<(), SenderError> {
        Ok(())
    }

    /// Ends the session before its time: machines are told, then comes [`SenderEvent::Finished`].
    pub fn end(&mut self, _now: Instant) {}

    /// Every machine ever heard, by number.
    pub fn receivers(&self, _now: Instant) -> Vec<ReceiverInfo> {
        Vec::new()
    }

    /// Counters so far.
    pub fn stats(&self) -> SenderStats {
        self.stats
    }

    /// Payload blocks that somebody lacks still, as far as is known.
    pub fn blocks_left(&self) -> u32 {
        0
    }
}
