//! The sending half of the protocol, without sockets, clocks or threads.
//!
//! ```text
//!             enough machines are ready,          all known machines are done or
//!             or the wait is over                 gone, and `linger` passed
//!   waiting ------------------------------> flowing -----------------------> ending --> finished
//!      |  announces, the preamble              |  announces, data              |  announces
//!      |  for those who ask                    |                               |  that say so
//!      +---------------------------------------+------- end() ----------------^
//! ```
//!
//! [`Demand`] knows what to send, [`Machines`] who wants it, [`Flight`] what is on its way, and
//! [`Shelf`] has the symbols.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::block::{BlockId, Layout, MAX_PREAMBLE_BYTES};
use crate::clock::Instant;
use crate::fec::{Fec, ReedSolomon};
use crate::guard::guard;
use crate::wire::Report;

mod config;
mod demand;
mod event;
mod flight;
mod herald;
mod machines;
mod margin;
mod need;
mod normal;
mod rate;
mod roll;
mod room;
mod rules;
mod seals;
mod seats;
mod shelf;
#[cfg(test)]
mod tests;
mod transmit;

use demand::Demand;
use flight::Flight;
use herald::Herald;
use machines::Machines;
use rate::Pace;
use seals::Seals;
use seats::Seats;
use shelf::Shelf;

pub use config::{
    MAX_SYMBOL_BYTES, MIN_SYMBOL_BYTES, SenderConfig, SenderError, StartRule, symbol_bytes_for_mtu,
};
pub use event::{Destination, ReceiverInfo, SenderEvent, SenderStats};
pub use rate::{Rate, RateReason};

/// Announces that say the session is over.
const FAREWELLS: u32 = 5;
/// Events that wait for the driver, at most; it is told of the rest by the state itself.
const MAX_EVENTS: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Flowing,
    Ending { farewells: u32 },
    Finished,
}

/// One session's sender. Five verbs, and [`provide`](Sender::provide) for the blocks it asks for.
#[derive(Debug)]
pub struct Sender<F = ReedSolomon> {
    config: SenderConfig,
    layout: Layout,
    preamble_bytes: u32,
    stage: Stage,
    /// Some machine could not say yet what it lacks, so everything is sent once.
    everything: bool,
    demand: Demand,
    machines: Machines,
    /// The machines the session is for, if they were named.
    seats: Option<Seats>,
    flight: Flight,
    shelf: Shelf<F>,
    /// The block being sent, and how many of its symbols may follow in a row.
    run: Option<(u32, u32)>,
    sequence: u32,
    seals: Seals,
    herald: Herald,
    pace: Pace,
    last_heard: Instant,
    events: VecDeque<SenderEvent>,
    stats: SenderStats,
}

impl<F: Fec> Sender<F> {
    /// A sender of `layout` behind `preamble`, from `now` on.
    ///
    /// # Errors
    /// A symbol size or a preamble that the protocol does not allow.
    pub fn new(
        now: Instant,
        mut config: SenderConfig,
        preamble: &[u8],
        layout: Layout,
        fec: F,
    ) -> Result<Sender<F>, SenderError> {
        let symbol_bytes = config.symbol_bytes;
        let in_bounds = (MIN_SYMBOL_BYTES..=MAX_SYMBOL_BYTES).contains(&symbol_bytes);
        if !symbol_bytes.is_multiple_of(2) || !guard!("symbol_bytes", in_bounds) {
            return Err(SenderError::SymbolBytes(symbol_bytes));
        }
        let length = u32::try_from(preamble.len()).ok();
        let preamble_bytes = length
            .filter(|length| (1..=MAX_PREAMBLE_BYTES).contains(length))
            .ok_or(SenderError::Preamble(preamble.len()))?;
        let head = Layout::of_preamble(preamble_bytes, symbol_bytes);
        let blind = config.start.receivers == 0;
        let mut shelf = Shelf::new(fec, symbol_bytes);
        let mut rest = preamble;
        for place in 0..head.len() {
            let bytes = head.bytes(place).map_or(0, |bytes| bytes as usize);
            let (block, behind) = rest.split_at(bytes.min(rest.len()));
            shelf.put(place, block.to_vec(), true);
            rest = behind;
        }
        let verify_key = config.signing_key.verify_key();
        let block_bytes = layout.total_bytes() / u64::from(layout.len()).max(1);
        let mut sender = Sender {
            pace: Pace::new(now, config.rate, block_bytes),
            seals: Seals::new(config.seal.take(), config.session, verify_key),
            demand: Demand::new(&head, &layout, symbol_bytes, blind),
            machines: Machines::new(layout.len()),
            seats: None,
            flight: Flight::default(),
            shelf,
            config,
            layout,
            preamble_bytes,
            stage: Stage::Waiting,
            everything: true,
            run: None,
            sequence: 0,
            herald: Herald::new(now),
            last_heard: now,
            events: VecDeque::new(),
            stats: SenderStats::default(),
        };
        sender.handle_timeout(now);
        Ok(sender)
    }

    /// Takes a datagram that came on the session's socket. Never fails: what is not understood is
    /// counted.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        match self.seals.report(datagram) {
            Ok(report)
                if guard!("feedback_session", report.session == self.config.session)
                    && guard!("report_echo", self.herald.is_fresh(report.echo)) =>
            {
                self.handle_report(now, from, &report);
            }
            _ => self.stats.ignored += 1,
        }
    }

    fn handle_report(&mut self, now: Instant, from: SocketAddr, report: &Report) {
        let (demand, first) = (&mut self.demand, BlockId(0));
        let offset = demand.place(first).unwrap_or(0);
        let heard = self.machines.hear(now, from, report, |index, wanted| {
            demand.want(offset + index, wanted)
        });
        let Some(heard) = heard else {
            self.stats.ignored += 1;
            return;
        };
        self.stats.reports += 1;
        self.last_heard = now;
        let id = report.receiver;
        if let Some(seats) = &mut self.seats {
            seats.hear(now, &report.name, id, heard);
        }
        if heard.joined {
            self.tell(SenderEvent::Joined {
                id,
                name: report.name.clone(),
            });
        }
        if heard.ready {
            self.tell(SenderEvent::Ready {
                id,
                wanted: report.wanted_blocks,
            });
        }
        if heard.done {
            self.tell(SenderEvent::Done { id });
        }
        if heard.left {
            self.tell(SenderEvent::Lost { id, said_so: true });
        }
        if report.acknowledge {
            self.herald.acknowledge(now, id);
        }
        if Flight::reaches(self.sequence, report.as_of) {
            self.take_deficits(now, report);
        }
        self.pace.hear(now, report, self.sequence);
        self.handle_timeout(now);
    }

    fn take_deficits(&mut self, now: Instant, report: &Report) {
        let laggard = self.machines.is_laggard(report.receiver);
        let mut raised = false;
        for run in &report.runs {
            let Some(places) = self.demand.places(run.first, run.count) else {
                break;
            };
            for place in self.demand.lackable(places, run.deficit, laggard) {
                let in_flight = self.flight.sent_since(place, report.as_of);
                let lack = self.demand.lack(place, run.deficit, in_flight, laggard);
                raised |= lack && !laggard;
            }
        }
        if raised {
            // Others that lack as much are about to say so, unless they hear that it comes.
            self.herald.promise(now);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let silence = self.silence();
        let (demand, first) = (&mut self.demand, BlockId(0));
        let offset = demand.place(first).unwrap_or(0);
        let gone = self.machines.forget(now, silence, |index, wanted| {
            demand.want(offset + index, wanted)
        });
        for id in gone {
            if let Some(seats) = &mut self.seats {
                seats.lose(id);
            }
            self.pace.forget(id);
            self.tell(SenderEvent::Lost { id, said_so: false });
        }
        if self.machines.ready() > 0 && self.machines.all_ready() {
            self.everything = false;
        }
        match self.stage {
            Stage::Waiting if self.may_start(now) => {
                self.stage = Stage::Flowing;
                self.last_heard = now;
                let ready = self.machines.ready() as u32;
                self.tell(SenderEvent::Started { ready });
            }
            Stage::Waiting if self.is_deserted(now) => self.end(now),
            Stage::Flowing if self.is_over(now) => self.end(now),
            _ => {}
        }
        let flowing = self.stage == Stage::Flowing;
        let interval = self.interval();
        let news = self.pace.tend(now, self.sequence, interval, flowing);
        if let Some((bits, reason)) = news {
            self.tell(SenderEvent::Rate { bits, reason });
        }
    }

    /// The next thing to know or do.
    pub fn poll_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Sender::handle_timeout) and then
    /// [`poll_transmit`](Sender::poll_transmit) are due even though nothing arrives: with the next
    /// announce. Nothing that a sender waits for needs a finer clock. `None` when all is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.herald.due()).filter(|_| self.stage != Stage::Finished)
    }

    /// Gives the payload of a block that [`SenderEvent::NeedBlock`] asked for.
    ///
    /// # Errors
    /// The payload has not the length that the layout gives the block.
    pub fn provide(&mut self, block: BlockId, payload: Vec<u8>) -> Result<(), SenderError> {
        let expected = self.layout.bytes(block.0).unwrap_or(0);
        match self.demand.place(block) {
            Some(place) if !block.is_preamble() && payload.len() == expected as usize => {
                self.shelf.put(place, payload, false);
                Ok(())
            }
            _ => Err(SenderError::Payload {
                block: block.0,
                expected,
                got: payload.len(),
            }),
        }
    }

    /// So many machines are waited for from now on: fewer when some will never come.
    pub fn expect(&mut self, now: Instant, receivers: u32) {
        // A session that goes out blindly began so, and no other becomes one.
        if self.config.start.receivers != receivers && !self.is_blind() && receivers > 0 {
            self.config.start.receivers = receivers;
            self.handle_timeout(now);
        }
    }

    /// The session is for the machines of these names, and no longer for so many of any name: it
    /// begins when all of them are ready (or the wait is over), and ends when all of them are done.
    /// Others are served meanwhile.
    pub fn name(&mut self, names: impl IntoIterator<Item = String>) {
        let seats = Seats::of(names);
        self.config.start.receivers = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        self.seats = Some(seats);
    }

    /// Ends the session before its time: machines are told, then comes [`SenderEvent::Finished`].
    pub fn end(&mut self, now: Instant) {
        if self.is_running() {
            self.stage = Stage::Ending {
                farewells: FAREWELLS,
            };
            self.herald.hurry(now);
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Flowing)
    }

    /// Every machine ever heard, by number.
    pub fn receivers(&self, now: Instant) -> Vec<ReceiverInfo> {
        self.machines.infos(now)
    }

    /// How fast to send now, in bits per second on the wire, Ethernet headers included.
    pub fn rate_bits(&self) -> u64 {
        self.pace.bits()
    }

    /// Counters so far.
    pub fn stats(&self) -> SenderStats {
        self.stats
    }

    /// Payload blocks that somebody lacks still, as far as is known.
    pub fn blocks_left(&self) -> u32 {
        self.demand.blocks_left(self.gate())
    }

    fn tell(&mut self, event: SenderEvent) {
        // The last two are bounded by themselves, and the session hangs without them.
        let essential = matches!(event, SenderEvent::NeedBlock(_) | SenderEvent::Finished);
        if essential || self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}
