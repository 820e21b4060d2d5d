//! What is to be sent: how many symbols of which block, and which of them next.
//!
//! Per block, `need` is the number of symbols still to be sent so that the worst machine can complete
//! it. A report raises it, a symbol sent lowers it, so it is always the maximum over the machines of
//! "deficit as of S, less what was sent from S on" with no memory of single machines.
//!
//! ```text
//!            first pass            deficit of a few             deficit near k, or the
//!   need = k ----------> need = 0 ------------------> repair    stream is spent
//!      ^    source symbols          fresh repair        |               |
//!      |    0, 1, .. k-1            symbols             v               v
//!      +------------------------------------------- need = 0      source symbols again
//! ```
//!
//! Order: the preamble, then blocks with a small need (their receivers hold memory for them), then the
//! rest as a carousel.

use std::collections::BTreeSet;

use crate::block::{BlockId, Layout};
use crate::fec::MAX_REPAIR;
use crate::guard::guard;

/// Which blocks may be sent at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Only the preamble.
    Preamble,
    /// What known machines lack.
    Wanted,
    /// Everything once: not every machine could say yet what it lacks.
    Everything,
}

#[derive(Clone, Debug)]
struct Block {
    symbols: u16,
    next_source: u16,
    next_repair: u16,
    need: u16,
    wanted_by: u32,
}

impl Block {
    fn passed(&self) -> bool {
        self.next_source >= self.symbols
    }

    fn is_near_whole(&self, deficit: u16) -> bool {
        u32::from(deficit) * 4 >= u32::from(self.symbols) * 3
    }
}

/// All blocks of the session: those of the preamble first, then those of the payload. The index into
/// this common list is the *place* of a block.
#[derive(Debug)]
pub(super) struct Demand {
    blocks: Vec<Block>,
    preamble: u32,
    active: BTreeSet<u32>,
    urgent: BTreeSet<u32>,
    cursor: u32,
    /// Share of the datagrams that is expected to be lost: repair goes along at once.
    loss: f32,
}

impl Demand {
    /// Every payload block is needed; the preamble only when asked for, or when `blind`.
    pub(super) fn new(
        preamble: &Layout,
        payload: &Layout,
        symbol_bytes: u16,
        blind: bool,
    ) -> Demand {
        let blocks = |layout: &Layout, needed: bool| {
            let sizes = 0..layout.len();
            let symbols = sizes.filter_map(|at| layout.symbols(at, symbol_bytes));
            let need = |symbols| if needed { symbols } else { 0 };
            let block = |symbols| Block {
                symbols,
                next_source: 0,
                next_repair: 0,
                need: need(symbols),
                wanted_by: 0,
            };
            symbols.map(block).collect::<Vec<Block>>()
        };
        let mut all = blocks(preamble, blind);
        all.extend(blocks(payload, true));
        let needed = |at: &u32| all[*at as usize].need > 0;
        let active = (0..all.len() as u32).filter(needed).collect();
        let preamble = preamble.len();
        Demand {
            blocks: all,
            preamble,
            active,
            urgent: BTreeSet::new(),
            cursor: preamble,
            loss: 0.0,
        }
    }

    /// Where a block is in the common list, if the session has it.
    pub(super) fn place(&self, block: BlockId) -> Option<u32> {
        let place = if block.is_preamble() {
            Some(block.index()).filter(|&index| index < self.preamble)
        } else {
            block.index().checked_add(self.preamble)
        };
        place.filter(|&place| (place as usize) < self.blocks.len())
    }

    /// The block at a place.
    pub(super) fn id(&self, place: u32) -> BlockId {
        match place.checked_sub(self.preamble) {
            Some(index) => BlockId(index),
            None => BlockId::preamble(place),
        }
    }

    /// Source symbols of the block at `place`.
    pub(super) fn symbols(&self, place: u32) -> u16 {
        self.blocks[place as usize].symbols
    }

    /// Symbols of it still to be sent.
    pub(super) fn need(&self, place: u32) -> u16 {
        self.blocks[place as usize].need
    }

    /// Expect this share of the datagrams to be lost from now on.
    pub(super) fn expect_loss(&mut self, loss: f32) {
        self.loss = loss;
    }

    /// One machine more, or one less, wants the block at `place`.
    pub(super) fn want(&mut self, place: u32, wanted: bool) {
        let block = &mut self.blocks[place as usize];
        block.wanted_by = if wanted {
            block.wanted_by + 1
        } else {
            block.wanted_by.saturating_sub(1)
        };
    }

    /// Somebody lacks `deficit` symbols of the block at `place`, not counting `in_flight` sent since.
    pub(super) fn lack(&mut self, place: u32, deficit: u16, in_flight: u32) {
        let block = &mut self.blocks[place as usize];
        let deficit = deficit.min(block.symbols);
        // sabotage: deficit_as_of
        let outstanding = if guard!("deficit_as_of", in_flight == 0) {
            deficit
        } else {
            deficit.saturating_sub(u16::try_from(in_flight).unwrap_or(u16::MAX))
        };
        if outstanding > 0 && block.passed() && block.is_near_whole(outstanding) {
            // Source symbols cost nobody a decoding, and this machine can use nearly all of them.
            block.next_source = 0;
            block.need = block.symbols;
        } else {
            block.need = block.need.max(outstanding);
        }
        self.file(place);
    }

    /// Takes the next symbol of the block at `place`: its number.
    pub(super) fn take(&mut self, place: u32) -> u16 {
        let extra = self.extra(place);
        let block = &mut self.blocks[place as usize];
        if block.passed() && block.next_repair >= MAX_REPAIR {
            block.next_source = 0;
            block.next_repair = 0;
        }
        if block.next_source == 0 {
            block.need = block.need.saturating_add(extra);
        }
        let symbol = if block.passed() {
            block.next_repair += 1;
            block.symbols + block.next_repair - 1
        } else {
            block.next_source += 1;
            block.next_source - 1
        };
        block.need = block.need.saturating_sub(1);
        self.file(place);
        symbol
    }

    /// Repair symbols to send along with the source symbols: what the expected loss takes, and one
    /// standard deviation. Nothing at all when no loss is seen.
    fn extra(&self, place: u32) -> u16 {
        const MOST: f32 = 0.25;
        let loss = self.loss.min(MOST);
        let expected = f32::from(self.blocks[place as usize].symbols) * loss / (1.0 - loss);
        if expected < 0.5 {
            0
        } else {
            (expected + expected.sqrt()).ceil() as u16
        }
    }

    /// Keeps the two sets in step with a block.
    fn file(&mut self, place: u32) {
        let block = &self.blocks[place as usize];
        if block.need == 0 {
            self.active.remove(&place);
            self.urgent.remove(&place);
            return;
        }
        self.active.insert(place);
        if block.passed() && u32::from(block.need) * 2 <= u32::from(block.symbols) {
            self.urgent.insert(place);
        } else {
            self.urgent.remove(&place);
        }
    }

    /// The blocks to send next, best first, at most `count`.
    pub(super) fn candidates(&mut self, gate: Gate, count: usize) -> Vec<u32> {
        let mut found: Vec<u32> = self
            .active
            .range(..self.preamble)
            .take(count)
            .copied()
            .collect();
        if gate == Gate::Preamble {
            return found;
        }
        // A block nobody wants any more leaves the sets here, the only place that looks for work.
        let mut unwanted = Vec::new();
        let carousel = self
            .active
            .range(self.cursor..)
            .chain(self.active.range(self.preamble..self.cursor));
        for &place in self.urgent.range(self.preamble..).chain(carousel) {
            if found.len() >= count {
                break;
            }
            let wanted = gate == Gate::Everything || self.blocks[place as usize].wanted_by > 0;
            if !guard!("wanted_union", wanted) {
                unwanted.push(place);
            } else if !found.contains(&place) {
                found.push(place);
            }
        }
        for place in unwanted {
            self.blocks[place as usize].need = 0;
            self.file(place);
        }
        found
    }

    /// The carousel goes on from here.
    pub(super) fn turn_to(&mut self, place: u32) {
        if place >= self.preamble && !self.urgent.contains(&place) {
            self.cursor = place;
        }
    }

    /// Needs to tell the machines about: those that are served first.
    pub(super) fn served(&self, count: usize) -> Vec<(BlockId, u16)> {
        let preamble = self.active.range(..self.preamble);
        let current = self.active.range(self.cursor..).take(2);
        let places = preamble
            .chain(self.urgent.range(self.preamble..))
            .chain(current);
        places
            .take(count)
            .map(|&place| (self.id(place), self.need(place)))
            .collect()
    }

    /// Payload blocks with a need that somebody has, as far as is known.
    pub(super) fn blocks_left(&self, gate: Gate) -> u32 {
        let wanted =
            |place: &&u32| gate != Gate::Wanted || self.blocks[**place as usize].wanted_by > 0;
        self.active.range(self.preamble..).filter(wanted).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(blocks: u32) -> Demand {
        let preamble = Layout::of_preamble(100, 512);
        let payload = Layout::new(vec![512 * 100; blocks as usize]).unwrap();
        Demand::new(&preamble, &payload, 512, false)
    }

    fn drain(demand: &mut Demand, place: u32) -> Vec<u16> {
        let mut taken = Vec::new();
        while demand.need(place) > 0 {
            taken.push(demand.take(place));
        }
        taken
    }

    #[test]
    fn a_first_pass_is_the_source_and_a_small_deficit_is_fresh_repair() {
        let mut demand = demand(2);
        let place = demand.place(BlockId(1)).unwrap();
        assert_eq!(drain(&mut demand, place), (0..100).collect::<Vec<u16>>());
        demand.lack(place, 3, 0);
        demand.lack(place, 2, 0);
        assert_eq!(drain(&mut demand, place), [100, 101, 102]);
        demand.lack(place, 1, 0);
        assert_eq!(drain(&mut demand, place), [103]);
    }

    #[test]
    fn what_is_in_flight_is_not_sent_again() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        demand.lack(place, 7, 5);
        assert_eq!(drain(&mut demand, place).len(), 2);
        demand.lack(place, 7, 9);
        assert_eq!(demand.need(place), 0);
    }

    #[test]
    fn a_deficit_near_k_is_the_source_again() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        demand.lack(place, crate::wire::WHOLE, 0);
        assert_eq!(drain(&mut demand, place), (0..100).collect::<Vec<u16>>());
    }

    #[test]
    fn a_spent_stream_starts_over() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        let mut last = 0;
        for _ in 0..MAX_REPAIR {
            demand.lack(place, 1, 0);
            last = drain(&mut demand, place)[0];
        }
        assert_eq!(last, 100 + MAX_REPAIR - 1);
        demand.lack(place, 2, 0);
        assert_eq!(drain(&mut demand, place), [0, 1]);
    }

    #[test]
    fn no_loss_means_no_extra_and_loss_means_a_margin() {
        let mut demand = demand(2);
        let place = demand.place(BlockId(0)).unwrap();
        assert_eq!(demand.extra(place), 0);
        demand.expect_loss(0.1);
        assert_eq!(drain(&mut demand, place).len(), 100 + 15);
    }

    #[test]
    fn the_preamble_comes_first_then_small_needs_then_the_carousel() {
        let mut demand = demand(4);
        let places: Vec<u32> = (0..4)
            .map(|at| demand.place(BlockId(at)).unwrap())
            .collect();
        drain(&mut demand, places[0]);
        demand.turn_to(places[2]);
        demand.lack(places[0], 2, 0);
        demand.lack(0, 1, 0);
        let order = [0, places[0], places[2], places[3], places[1]];
        assert_eq!(demand.candidates(Gate::Everything, 9), order);
        assert_eq!(demand.candidates(Gate::Preamble, 9), [0]);
        demand.want(places[3], true);
        assert_eq!(demand.candidates(Gate::Wanted, 9), [0, places[3]]);
        assert_eq!(demand.blocks_left(Gate::Wanted), 1);
    }
}
