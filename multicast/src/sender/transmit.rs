//! What a sender puts on the wire next: an announce that is due, or a symbol that somebody lacks.

use crate::clock::Instant;
use crate::family::Family;
use crate::fec::Fec;
use crate::wire::{Announce, Data, MAX_SERVED, Served};

use super::event::{Destination, SenderEvent};
use super::{Sender, Stage};

/// Symbols of one block in a row before others get their turn.
pub(super) const RUN_SYMBOLS: u32 = 128;
/// Blocks looked at for the next run; those not at hand are asked for.
const LOOK_AHEAD: usize = 4;

impl<F: Fec> Sender<F> {
    /// Appends the next datagram to `out`, if there is one. The caller paces: data is always ready
    /// while somebody lacks something. All data datagrams of a session have the same length.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Destination> {
        let before = out.len();
        let numbers = self.sequence.max(self.herald.number());
        if self.is_running() && self.seals.is_spent(numbers) {
            self.end(now);
            self.tell(SenderEvent::Spent);
        }
        let due = now >= self.herald.due() && self.stage != Stage::Finished;
        if due {
            self.announce(now, out);
        } else if self.is_running() {
            self.data(now, out)?;
        }
        let bytes = (out.len() - before) as u64;
        if bytes == 0 {
            return None;
        }
        self.stats.datagrams += 1;
        self.stats.datagram_bytes += bytes;
        self.pace
            .sent(now, self.sequence, bytes + self.outer_bytes());
        Some(Destination::Group)
    }

    /// What is around each datagram on the wire.
    fn outer_bytes(&self) -> u64 {
        let reply_to = self.config.reply_to.as_ref();
        reply_to.map_or(Family::V4, Family::of).outer_bytes()
    }

    fn announce(&mut self, now: Instant, out: &mut Vec<u8>) {
        let started = self.stage == Stage::Flowing;
        let ended = self.take_farewell();
        self.flight.prune(self.sequence);
        self.demand
            .margin
            .expect_loss(self.machines.loss().unwrap_or(0.0));
        self.demand.margin.judge(now);
        let (number, acked) = self.herald.announce(now, self.sequence, ended);
        let served = self.demand.served(MAX_SERVED).into_iter();
        let announce = Announce {
            session: self.config.session,
            sequence: self.sequence,
            number,
            started,
            ended,
            verify_key: self.config.signing_key.verify_key(),
            reply_to: self.config.reply_to,
            object_id: self.config.object_id,
            preamble_bytes: self.preamble_bytes,
            symbol_bytes: self.config.symbol_bytes,
            interval_millis: self.interval().as_millis() as u16,
            receivers: self.machines.active() as u16,
            served: served
                .map(|(block, symbols)| Served { block, symbols })
                .collect(),
            acked,
        };
        self.seals
            .announce(&announce, &self.config.signing_key, out);
        self.stats.announces += 1;
    }

    /// Whether the session is over; the last announce that says so finishes it.
    fn take_farewell(&mut self) -> bool {
        let Stage::Ending { farewells } = self.stage else {
            return false;
        };
        self.stage = Stage::Ending {
            farewells: farewells - 1,
        };
        if farewells == 1 {
            self.stage = Stage::Finished;
            self.tell(SenderEvent::Finished);
        }
        true
    }

    fn data(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<()> {
        let Some(place) = self.next_place() else {
            self.herald.run_dry(now, self.sequence);
            return None;
        };
        let taken = self.demand.take(place);
        let number = taken.symbol;
        let more = self.demand.need(place);
        let bytes = self.shelf.symbol(place, number, more)?;
        let block = self.demand.id(place);
        let (session, sequence) = (self.config.session, self.sequence);
        let data = Data {
            session,
            sequence,
            block,
            symbol: number,
            bytes,
        };
        self.seals.data(&data, out);
        if number < self.demand.symbols(place) {
            self.stats.source_symbols += 1;
        } else {
            self.stats.repair_symbols += 1;
        }
        self.flight.record(place, sequence);
        self.sequence = self.sequence.wrapping_add(1);
        if taken.ends_pass {
            self.demand.passed(now, place);
        }
        if taken.ends_need {
            // What laggards lack of it has to wait: the run is over.
            self.run = None;
            self.herald.block_sent(now);
        }
        Some(())
    }

    /// The block that the next symbol belongs to: at hand, and somebody lacks it.
    fn next_place(&mut self) -> Option<u32> {
        if let Some((place, left)) = self.run
            && left > 0
            && self.demand.need(place) > 0
            && self.shelf.has(place)
        {
            self.run = Some((place, left - 1));
            return Some(place);
        }
        let candidates = self.demand.candidates(self.gate(), LOOK_AHEAD);
        for &place in &candidates {
            if self.shelf.request(place) {
                self.stats.blocks_read += 1;
                self.tell(SenderEvent::NeedBlock(self.demand.id(place)));
            }
        }
        let place = candidates
            .into_iter()
            .find(|&place| self.shelf.has(place))?;
        self.demand.turn_to(place);
        self.run = Some((place, RUN_SYMBOLS - 1));
        Some(place)
    }
}
