//! The receiving half of the protocol, without sockets, clocks or threads.
//!
//! ```text
//!            announce          preamble            begin()           all accepted
//!   seeking ----------> joining -------> surveying -------> receiving -----------> settling
//!                          |                |                ^     |                |    |
//!                          |                |                +-----|--- rejected ---+    | settled
//!                          v                v                      v                     v
//!                        failed: session ended, sender silent, sink broken             done
//!                                                                                        |
//!                                        finished <--- announce acknowledges, or ends ---+
//! ```
//!
//! [`Standing`] is where the machine stands, [`Session`] what the announces say, [`Table`] what is here and what lacks, [`Reporter`] what the
//! sender hears of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::block::{BlockId, Start, Verdict};
use crate::clock::Instant;
use crate::fec::{Fec, ReedSolomon};
use crate::guard::guard;
use crate::wire::{Data, Kind, Phase, is_sealed};

mod announces;
mod assembly;
mod config;
mod detour;
mod early;
mod event;
mod health;
mod parcel;
mod patience;
mod preamble;
mod reporter;
mod seals;
mod session;
mod spares;
mod standing;
mod table;

use early::Early;
use health::Vigil;
use reporter::{News, Reporter};
use session::Session;
use standing::Standing;
use table::{Table, Taken};

pub use config::{MAX_NAME_BYTES, ReceiverConfig};
pub use event::{Obstacle, ReceiverError, ReceiverEvent, ReceiverStats};
pub use health::{Blockage, Health};
pub use parcel::Parcel;

/// Reports with which a machine takes its leave.
const FAREWELLS: u32 = 3;

/// How an announce came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Multicast,
    /// Fetched from the server by somebody whom multicast does not reach.
    Relayed,
}

/// One machine's receiver. Five verbs, and what the sink has to say.
#[derive(Debug)]
pub struct Receiver<F = ReedSolomon> {
    config: ReceiverConfig,
    fec: F,
    standing: Standing,
    vigil: Vigil,
    over: bool,
    early: Early,
    reporter: Reporter,
    backlog_bytes: u64,
    has_room: bool,
    overflow: u32,
    farewells: u32,
    leaving: String,
    /// A complete preamble of a session that has not acknowledged this machine.
    unwelcome: Option<Vec<u8>>,
    /// Why an announce that was heard is of no use, while no session is joined.
    obstacle: Option<Obstacle>,
    /// What a datagram is opened into.
    room: Vec<u8>,
    events: VecDeque<ReceiverEvent>,
    stats: ReceiverStats,
}

impl<F: Fec> Receiver<F> {
    /// A receiver that looks for a session from `now` on.
    pub fn new(now: Instant, config: ReceiverConfig, fec: F) -> Receiver<F> {
        Receiver {
            config,
            fec,
            standing: Standing::new(now),
            vigil: Vigil::new(now),
            over: false,
            early: Early::default(),
            reporter: Reporter::new(),
            backlog_bytes: 0,
            has_room: false,
            overflow: 0,
            farewells: 0,
            leaving: String::new(),
            unwelcome: None,
            obstacle: None,
            room: Vec::new(),
            events: VecDeque::new(),
            stats: ReceiverStats::default(),
        }
    }

    /// Takes a datagram that came to the group. Never fails: what is not understood is counted.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.over {
            return;
        }
        let understood = match Kind::of(datagram) {
            Ok(Kind::Data) => self.handle_data(now, from, datagram),
            Ok(Kind::Announce) => self.handle_announce(now, from, datagram, Way::Multicast),
            _ => None,
        };
        if understood.is_none() {
            self.stats.ignored += 1;
        }
    }

    fn handle_data(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<()> {
        let mut room = std::mem::take(&mut self.room);
        let taken = self.take_data(now, from, datagram, &mut room);
        self.room = room;
        taken
    }

    fn take_data(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        room: &mut Vec<u8>,
    ) -> Option<()> {
        let Some(session) = &mut self.standing.session else {
            let may_be_ours = match self.config.membership {
                Some(_) => is_sealed(datagram),
                None => Data::parse(datagram).is_ok(),
            };
            return may_be_ours.then(|| self.keep_early(from, datagram));
        };
        let data = session.open(from, datagram, room)?;
        if !guard!("session", data.session == session.id) {
            return None;
        }
        let right_size = data.bytes.len() == usize::from(session.symbol_bytes);
        if !guard!("symbol_size", right_size) {
            return None;
        }
        session.count(data.sequence);
        self.stats.datagrams += 1;
        self.vigil.data(now);
        self.standing.data_at = now;
        self.place(now, from, &data, datagram)
    }

    /// Puts a symbol of this session into its block.
    fn place(
        &mut self,
        now: Instant,
        from: SocketAddr,
        data: &Data<'_>,
        datagram: &[u8],
    ) -> Option<()> {
        let table = match data.block.is_preamble() {
            true => self
                .standing
                .preamble
                .as_mut()
                .map(|preamble| &mut preamble.table),
            false => self.standing.payload.as_mut(),
        };
        let Some(table) = table else {
            // Symbols of the preamble come too late here, those of the payload too early.
            if data.block.is_preamble() {
                self.stats.unwanted += 1;
                return Some(());
            }
            self.keep_early(from, datagram);
            return Some(());
        };
        let taken = table.take(now, data.block.index(), data.symbol, data.bytes);
        match taken {
            Taken::Useful | Taken::Complete { .. } => {
                let source = table.is_source(data.block.index(), data.symbol);
                self.stats.useful_bytes += data.bytes.len() as u64;
                self.stats.source_symbols += u64::from(source);
                self.stats.repair_symbols += u64::from(!source);
            }
            Taken::Duplicate => self.stats.duplicates += 1,
            Taken::Unwanted => self.stats.unwanted += 1,
            Taken::NoRoom => self.stats.no_room += 1,
            Taken::Foreign => return None,
        }
        if let Taken::Complete { decoded } = taken {
            self.stats.decoded += u64::from(decoded);
            if data.block.is_preamble() {
                self.collect_preamble(now);
            }
        }
        Some(())
    }

    fn keep_early(&mut self, from: SocketAddr, datagram: &[u8]) {
        if !self.early.keep(from, datagram) {
            self.stats.no_room += 1;
        }
    }

    /// Puts what came before the payload was known into its blocks.
    fn place_early(&mut self, now: Instant) {
        let mut room = std::mem::take(&mut self.room);
        for (from, datagram) in self.early.take_all() {
            let session = self.standing.session.as_ref();
            let data = session.and_then(|session| session.open(from, &datagram, &mut room));
            if let Some(data) = data {
                self.place(now, from, &data, &datagram);
            }
        }
        self.room = room;
    }

    fn collect_preamble(&mut self, now: Instant) {
        let Some(preamble) = &mut self.standing.preamble else {
            return;
        };
        match preamble.collect(&mut self.fec) {
            None => {}
            Some(None) => {
                self.stats.rejected += 1;
                self.enter(now, Phase::Joining);
            }
            Some(Some(whole)) => {
                self.standing.preamble = None;
                self.hand_over(now, whole);
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(session) = &self.standing.session else {
            return;
        };
        if self.over {
            return;
        }
        if self.standing.is_told(now) {
            return self.finish(ReceiverEvent::Finished);
        }
        // On the detour the sender is not expected to be heard.
        if self.standing.detour.is_none() && now.since(session.heard) >= self.config.silence {
            let lacking = self.lacking();
            // Who is done does not need the sender any more.
            let event = match self.standing.phase {
                Phase::Done => ReceiverEvent::Finished,
                _ => ReceiverEvent::Failed(ReceiverError::Silent { lacking }),
            };
            return self.finish(event);
        }
        if now >= self.reporter.next() {
            self.reporter
                .look(now, &self.standing, &mut self.config.chance);
        }
    }

    /// Appends the next datagram to `out` and says to whom it goes (always the sender, unicast).
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<SocketAddr> {
        let sender = self
            .standing
            .session
            .as_ref()
            .filter(|_| !self.over)?
            .sender;
        let news = News {
            config: &self.config,
            stats: &self.stats(),
            backlog_bytes: self.backlog_bytes + self.standing.ready_bytes(),
            overflow: self.overflow,
        };
        if !self.reporter.write(now, &self.standing, &news, out) {
            return None;
        }
        self.stats.reports += 1;
        if self.standing.phase == Phase::Leaving {
            self.farewells -= 1;
            if self.farewells == 0 {
                let reason = std::mem::take(&mut self.leaving);
                self.finish(ReceiverEvent::Failed(ReceiverError::Sink(reason)));
            }
        }
        Some(sender)
    }

    /// The next thing to know or do. After a [`ReceiverEvent::Block`] no other block follows before
    /// [`set_pressure`](Receiver::set_pressure) has said again that there is room.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        // Forged symbols can make a block that does not decode; the next one may be whole.
        while let Some((block, parcel)) = self.poll_parcel() {
            match parcel.open(&mut self.fec) {
                Ok(payload) => return Some(ReceiverEvent::Block { block, payload }),
                Err(_) => self.reject(block),
            }
        }
        None
    }

    /// A complete block before it is decoded, for a driver that decodes elsewhere: to be asked before
    /// [`poll_event`](Receiver::poll_event), which decodes by itself. What does not decode is rejected like what
    /// the sink refuses.
    pub fn poll_parcel(&mut self) -> Option<(BlockId, Parcel)> {
        if self.over || !guard!("sink_room", self.has_room) {
            return None;
        }
        let (index, parcel) = self.standing.payload.as_mut()?.deliver()?;
        self.has_room = false;
        Some((BlockId(index), parcel))
    }

    fn reject(&mut self, block: BlockId) {
        self.stats.rejected += 1;
        // The sink may have room for the next.
        self.has_room = true;
        if let Some(table) = &mut self.standing.payload {
            table.reject(block.0);
        }
    }

    /// When [`handle_timeout`](Receiver::handle_timeout) is due. Ask again after every other verb.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let session = self.standing.session.as_ref().filter(|_| !self.over)?;
        let end = match self.standing.detour {
            Some(_) => self.standing.told_at(),
            None => Some(session.heard.after(self.config.silence)),
        };
        Some(end.map_or(self.reporter.next(), |end| end.min(self.reporter.next())))
    }

    /// What the sink made of the preamble. Meanwhile the receiver goes on: keep calling the verbs.
    pub fn begin(&mut self, now: Instant, start: Start) {
        let Some(session) = &self.standing.session else {
            return;
        };
        if self.over || self.standing.phase != Phase::Surveying {
            return;
        }
        if start.wanted.len() != start.layout.len() as usize {
            let (layout, wanted) = (start.layout.len(), start.wanted.len());
            return self.finish(ReceiverEvent::Failed(ReceiverError::Start {
                layout,
                wanted,
            }));
        }
        let table = Table::new(start.layout, session.symbol_bytes, &start.wanted);
        self.stats.wanted_blocks = table.lacking();
        self.standing.payload = Some(table);
        self.enter(now, Phase::Receiving);
        self.place_early(now);
        self.settle_if_complete(now);
    }

    /// What the sink says of a block.
    pub fn handle_verdict(&mut self, now: Instant, verdict: Verdict) {
        // A sink that answers after the end is not heard: nothing comes after the last event.
        let payload = self.standing.payload.as_mut().filter(|_| !self.over);
        let Some(table) = payload else {
            return;
        };
        match verdict {
            Verdict::Accepted(block) => table.accept(block.0),
            Verdict::Rejected(block) => {
                self.stats.rejected += 1;
                if guard!("payload_verdict", false) {
                    table.accept(block.0);
                } else {
                    table.reject(block.0);
                }
                if self.standing.phase == Phase::Settling && table.lacking() > 0 {
                    self.enter(now, Phase::Receiving);
                }
            }
            Verdict::Settled if self.standing.phase == Phase::Settling => {
                self.events.push_back(ReceiverEvent::Complete);
                self.enter(now, Phase::Done);
            }
            Verdict::Settled => {}
        }
        self.settle_if_complete(now);
    }

    fn settle_if_complete(&mut self, now: Instant) {
        if self.standing.phase == Phase::Receiving && self.lacking() == 0 {
            self.events.push_back(ReceiverEvent::Settle);
            self.enter(now, Phase::Settling);
        }
    }

    /// Takes memory that the sink has done with, for blocks to come.
    pub fn recycle(&mut self, memory: Vec<u8>) {
        if let Some(table) = &mut self.standing.payload {
            table.recycle(memory);
        }
    }

    /// How the sink and the socket are doing: bytes not yet judged, whether another block may be
    /// delivered, and datagrams the socket dropped so far (`SO_RXQ_OVFL`).
    pub fn set_pressure(&mut self, backlog_bytes: u64, has_room: bool, overflow: u32) {
        self.backlog_bytes = backlog_bytes;
        self.has_room = has_room;
        self.overflow = overflow;
    }

    /// The sink cannot go on: the sender is told, then comes [`ReceiverEvent::Failed`].
    pub fn fail(&mut self, now: Instant, reason: String) {
        // What is over, or leaves already, does not fail again.
        if self.over || self.standing.phase == Phase::Leaving {
            return;
        }
        if self.standing.session.is_none() {
            return self.finish(ReceiverEvent::Failed(ReceiverError::Sink(reason)));
        }
        self.leaving = reason;
        self.farewells = FAREWELLS;
        self.enter(now, Phase::Leaving);
    }

    /// Counters so far.
    pub fn stats(&self) -> ReceiverStats {
        let (expected, received) = self
            .standing
            .session
            .as_ref()
            .map_or((0, 0), Session::traffic);
        let done_blocks = match self.standing.payload {
            Some(_) => self.stats.wanted_blocks.saturating_sub(self.lacking()),
            None => 0,
        };
        let lost = u64::from(expected.saturating_sub(received));
        ReceiverStats {
            lost,
            done_blocks,
            ..self.stats
        }
    }

    /// Why an announce that was heard is of no use to this machine, as long as it has joined no session. Anybody can
    /// send such announces: it is for people to read.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Blocks still lacking: of the preamble, as long as nothing is known of the payload.
    pub fn lacking(&self) -> u32 {
        self.standing.lacking()
    }

    /// Memory that holds symbols, in bytes: incomplete blocks, complete ones that wait for room in the
    /// sink, and what came too early. Bounded, see `docs/PROTOCOL.md`.
    pub fn held_bytes(&self) -> usize {
        self.early.bytes() + self.standing.held_bytes()
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        self.standing.phase = phase;
        self.standing.phase_at = now;
        let Some(session) = &self.standing.session else {
            return;
        };
        // A room to which the same thing happens does not tell of it in the same moment.
        let share = u64::from((self.config.chance)() % 1024);
        let micros = session.interval.as_micros() as u64 * share / 1024;
        self.reporter
            .look_by(now.after(Duration::from_micros(micros)));
    }

    fn finish(&mut self, event: ReceiverEvent) {
        self.over = true;
        self.events.push_back(event);
    }
}
