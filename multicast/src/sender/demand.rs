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
//! rest as a carousel, and last what only laggards lack, the preamble included: machines that lose far more than
//! their room. As those must not starve either, one symbol of [`LAGGARD_SHARE`] is theirs while others want the rest.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::block::{BlockId, Layout};
use crate::clock::Instant;
use crate::guard::guard;
use crate::wire::WHOLE;

use super::margin::Margin;
use super::need::{Block, Taken};
use super::transmit::RUN_SYMBOLS;

/// While others lack something, one symbol of so many is for what only laggards lack.
const LAGGARD_SHARE: u32 = 20;
/// Symbols of the others before it is the laggards' turn: a run of theirs costs as many.
const LAGGARD_TURN: u32 = RUN_SYMBOLS * (LAGGARD_SHARE - 1);
/// Blocks left in the carousel that count as the last ones.
const LAST_BLOCKS: usize = 4;

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

/// All blocks of the session: those of the preamble first, then those of the payload. The index into
/// this common list is the *place* of a block.
#[derive(Debug)]
pub(super) struct Demand {
    blocks: Vec<Block>,
    preamble: u32,
    /// The blocks with a need, each in one of these: first come those that need little, then the carousel.
    urgent: BTreeSet<u32>,
    carousel: BTreeSet<u32>,
    /// Blocks that only laggards need, and symbols sent of others since it was last their turn.
    patient: BTreeSet<u32>,
    since_patient: u32,
    /// Blocks of which not all symbols are to be sent: those that a machine lacking everything brings back; and the same
    /// when what laggards need is counted, which a laggard brings back.
    begun: BTreeSet<u32>,
    begun_late: BTreeSet<u32>,
    cursor: u32,
    pub(super) margin: Margin,
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
            let block = |symbols| Block::new(symbols, need(symbols));
            symbols.map(block).collect::<Vec<Block>>()
        };
        let mut all = blocks(preamble, blind);
        all.extend(blocks(payload, true));
        let needed = |at: &u32| all[*at as usize].need > 0;
        let (carousel, begun): (BTreeSet<u32>, BTreeSet<u32>) =
            (0..all.len() as u32).partition(needed);
        let preamble = preamble.len();
        Demand {
            blocks: all,
            preamble,
            urgent: BTreeSet::new(),
            carousel,
            patient: BTreeSet::new(),
            since_patient: 0,
            begun_late: begun.clone(),
            begun,
            cursor: preamble,
            margin: Margin::default(),
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

    /// The places of `count` blocks from `first` on. The end of the preamble or the payload ends them, however many
    /// they are said to be.
    pub(super) fn places(&self, first: BlockId, count: u32) -> Option<Range<u32>> {
        let start = self.place(first)?;
        let end = if first.is_preamble() {
            self.preamble
        } else {
            self.blocks.len() as u32
        };
        Some(start..start.saturating_add(count).min(end))
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
        self.blocks[place as usize].owed()
    }

    /// The blocks of `places` that a machine may lack more of than is to be sent anyway, at a price that does not
    /// depend on how long the list is when it lacks all of each.
    pub(super) fn lackable(&self, places: Range<u32>, deficit: u16, laggard: bool) -> Vec<u32> {
        let (begun, due): (_, fn(&Block) -> u16) = match laggard {
            true => (&self.begun_late, Block::owed),
            false => (&self.begun, |block| block.need),
        };
        let more =
            |&place: &u32| deficit.min(self.symbols(place)) > due(&self.blocks[place as usize]);
        if deficit == WHOLE {
            begun.range(places).copied().filter(more).collect()
        } else {
            places.filter(more).collect()
        }
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

    /// Somebody lacks `deficit` symbols of the block at `place`, not counting `in_flight` sent since; a `laggard`, or
    /// a machine that counts. Says whether more is to be sent because of it.
    pub(super) fn lack(&mut self, place: u32, deficit: u16, in_flight: u32, laggard: bool) -> bool {
        let block = &mut self.blocks[place as usize];
        // sabotage: deficit_as_of
        let outstanding = if guard!("deficit_as_of", in_flight == 0) {
            deficit.min(block.symbols)
        } else {
            let in_flight = u16::try_from(in_flight).unwrap_or(u16::MAX);
            deficit.min(block.symbols).saturating_sub(in_flight)
        };
        let before = block.owed();
        if !laggard && block.is_asked_again(outstanding) {
            self.margin.asked(place, outstanding - block.need);
        }
        block.lack(outstanding, self.margin.with_loss(outstanding), laggard);
        let raised = block.owed() > before;
        self.file(place);
        raised
    }

    /// Takes the next symbol of the block at `place`.
    pub(super) fn take(&mut self, place: u32) -> Taken {
        let extra = self.extra(place);
        let block = &mut self.blocks[place as usize];
        self.since_patient = if block.need == 0 {
            self.since_patient.saturating_sub(LAGGARD_SHARE - 1)
        } else {
            (self.since_patient + 1).min(LAGGARD_TURN)
        };
        let taken = block.take(extra);
        self.file(place);
        taken
    }

    /// Repair symbols to send along with the source symbols to the machines that want the block.
    fn extra(&self, place: u32) -> u16 {
        let block = &self.blocks[place as usize];
        let last = self.carousel.len() <= LAST_BLOCKS;
        self.margin.extra(block.symbols, block.wanted_by, last)
    }

    /// The first pass of the block at `place` has ended.
    pub(super) fn passed(&mut self, now: Instant, place: u32) {
        let symbols = self.symbols(place);
        self.margin.passed(now, place, symbols);
    }

    /// Keeps the sets in step with a block.
    fn file(&mut self, place: u32) {
        let block = &self.blocks[place as usize];
        let urgent = block.is_urgent();
        for (set, member) in [
            (&mut self.urgent, block.need > 0 && urgent),
            (&mut self.carousel, block.need > 0 && !urgent),
            (&mut self.patient, block.need == 0 && block.laggards > 0),
            (&mut self.begun, block.need < block.symbols),
            (&mut self.begun_late, block.owed() < block.symbols),
        ] {
            if member {
                set.insert(place);
            } else {
                set.remove(&place);
            }
        }
    }

    /// Blocks of the preamble with a need, laggards apart.
    fn preamble(&self) -> impl Iterator<Item = &u32> {
        let sets = [&self.urgent, &self.carousel];
        sets.into_iter().flat_map(|set| set.range(..self.preamble))
    }

    /// The blocks to send next, best first, at most `count`.
    pub(super) fn candidates(&mut self, gate: Gate, count: usize) -> Vec<u32> {
        let mut found: Vec<u32> = self.preamble().take(count).copied().collect();
        if gate == Gate::Preamble {
            let patient = self.patient.range(..self.preamble);
            found.extend(patient.take(count - found.len()));
            return found;
        }
        // A block nobody wants any more leaves the sets here, the only place that looks for work.
        let mut unwanted = Vec::new();
        let patient = self.patient.iter();
        let theirs = self.since_patient >= LAGGARD_TURN;
        let order = patient
            .clone()
            .take(usize::from(theirs))
            .chain(self.urgent.range(self.preamble..))
            .chain(self.carousel.range(self.cursor..))
            .chain(self.carousel.range(self.preamble..self.cursor))
            .chain(patient);
        for &place in order {
            if found.len() >= count {
                break;
            }
            let wanted = gate == Gate::Everything
                || place < self.preamble
                || self.blocks[place as usize].wanted_by > 0;
            if !guard!("wanted_union", wanted) {
                unwanted.push(place);
            } else if !found.contains(&place) {
                found.push(place);
            }
        }
        for place in unwanted {
            let block = &mut self.blocks[place as usize];
            (block.need, block.laggards) = (0, 0);
            self.file(place);
        }
        found
    }

    /// The carousel goes on from here.
    pub(super) fn turn_to(&mut self, place: u32) {
        if place >= self.preamble && self.carousel.contains(&place) {
            self.cursor = place;
        }
    }

    /// Needs to tell the machines about: those that are served first.
    pub(super) fn served(&self, count: usize) -> Vec<(BlockId, u16)> {
        // What is sent for laggards comes late. Who counts on it would wait with them, so it is no promise.
        let current = self.carousel.range(self.cursor..).take(2);
        let soon = self.urgent.range(self.preamble..).chain(current);
        let places = self.preamble().chain(soon);
        places
            .take(count)
            .map(|&place| (self.id(place), self.blocks[place as usize].need))
            .collect()
    }

    /// Payload blocks with a need that somebody has, as far as is known.
    pub(super) fn blocks_left(&self, gate: Gate) -> u32 {
        let wanted =
            |place: &&u32| gate != Gate::Wanted || self.blocks[**place as usize].wanted_by > 0;
        let sets = [&self.urgent, &self.carousel, &self.patient];
        let needed = sets.into_iter().flat_map(|set| set.range(self.preamble..));
        needed.filter(wanted).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use crate::fec::MAX_REPAIR;

    use super::*;

    fn demand(blocks: u32) -> Demand {
        let preamble = Layout::of_preamble(100, 512);
        let payload = Layout::new(vec![512 * 100; blocks as usize]).unwrap();
        Demand::new(&preamble, &payload, 512, false)
    }

    fn drain(demand: &mut Demand, place: u32) -> Vec<u16> {
        let mut taken = Vec::new();
        while demand.need(place) > 0 {
            taken.push(demand.take(place).symbol);
        }
        taken
    }

    #[test]
    fn a_first_pass_is_the_source_and_a_small_deficit_is_fresh_repair() {
        let mut demand = demand(2);
        let place = demand.place(BlockId(1)).unwrap();
        assert_eq!(drain(&mut demand, place), (0..100).collect::<Vec<u16>>());
        demand.lack(place, 3, 0, false);
        demand.lack(place, 2, 0, false);
        assert_eq!(drain(&mut demand, place), [100, 101, 102]);
        demand.lack(place, 1, 0, false);
        assert_eq!(drain(&mut demand, place), [103]);
    }

    #[test]
    fn what_is_in_flight_is_not_sent_again() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        demand.lack(place, 7, 5, false);
        assert_eq!(drain(&mut demand, place).len(), 2);
        demand.lack(place, 7, 9, false);
        assert_eq!(demand.need(place), 0);
    }

    #[test]
    fn a_deficit_near_k_is_the_source_again() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        demand.lack(place, WHOLE, 0, false);
        assert_eq!(drain(&mut demand, place), (0..100).collect::<Vec<u16>>());
    }

    #[test]
    fn a_spent_stream_starts_over() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        let mut last = 0;
        for _ in 0..MAX_REPAIR {
            demand.lack(place, 1, 0, false);
            last = drain(&mut demand, place)[0];
        }
        assert_eq!(last, 100 + MAX_REPAIR - 1);
        demand.lack(place, 2, 0, false);
        assert_eq!(drain(&mut demand, place), [0, 1]);
    }

    #[test]
    fn a_first_pass_brings_the_repair_that_its_machines_will_need() {
        let mut demand = demand(9);
        let place = demand.place(BlockId(0)).unwrap();
        demand.margin.expect_loss(0.1);
        (0..100).for_each(|_| demand.want(place, true));
        let sent = drain(&mut demand, place).len();
        assert!((118..122).contains(&sent), "{sent}");
    }

    #[test]
    fn a_laggard_waits_but_does_not_starve() {
        let mut demand = demand(40);
        let place = |demand: &Demand, at| demand.place(BlockId(at)).unwrap();
        let first = place(&demand, 0);
        drain(&mut demand, first);
        assert!(demand.lack(first, 30, 0, true));
        let mut sent_of_first = 0;
        for sent in 0..3600 {
            let next = demand.candidates(Gate::Everything, 1)[0];
            demand.turn_to(next);
            demand.take(next);
            sent_of_first += u32::from(next == first);
            assert!(sent_of_first <= 1 + sent / 20, "{sent_of_first} of {sent}");
        }
        assert!(sent_of_first > 0);
    }

    #[test]
    fn a_laggard_that_lacks_a_whole_block_gets_its_source_when_nobody_else_needs_it() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        assert_eq!(demand.lackable(0..2, WHOLE, true), [0, place]);
        demand.lack(place, WHOLE, 0, true);
        assert!(!demand.lackable(0..2, WHOLE, true).contains(&place));
        assert_eq!(demand.lackable(0..2, WHOLE, false), [0, place]);
        demand.lack(place, 2, 0, false);
        let symbols = drain(&mut demand, place);
        assert_eq!(symbols[..2], [100, 101], "who counts gets fresh repair");
        assert_eq!(symbols[2..], (0..98).collect::<Vec<u16>>());
    }

    #[test]
    fn a_preamble_that_only_laggards_lack_keeps_nobody() {
        let mut demand = demand(3);
        demand.lack(0, WHOLE, 0, true);
        let first = demand.place(BlockId(0)).unwrap();
        assert_eq!(demand.candidates(Gate::Everything, 1), [first]);
        assert_eq!(demand.candidates(Gate::Preamble, 9), [0]);
        assert_eq!(demand.candidates(Gate::Wanted, 9), [0]);
        assert!(
            demand
                .served(9)
                .iter()
                .all(|(block, _)| !block.is_preamble())
        );
    }

    #[test]
    fn a_symbol_serves_laggards_and_others_alike() {
        let mut demand = demand(1);
        let place = demand.place(BlockId(0)).unwrap();
        drain(&mut demand, place);
        demand.lack(place, 9, 0, true);
        demand.lack(place, 4, 0, false);
        assert_eq!(drain(&mut demand, place).len(), 9);
    }

    #[test]
    fn who_lacks_everything_brings_back_only_what_has_begun() {
        let mut demand = demand(5000);
        let places: Vec<u32> = (10..13)
            .map(|at| demand.place(BlockId(at)).unwrap())
            .collect();
        for &place in &places {
            demand.take(place);
        }
        assert_eq!(
            demand.lackable(0..5001, WHOLE, false),
            [0, places[0], places[1], places[2]]
        );
        assert_eq!(
            demand.lackable(places[1]..places[2], 100, false),
            [places[1]]
        );
    }

    #[test]
    fn the_preamble_comes_first_then_small_needs_then_the_carousel() {
        let mut demand = demand(4);
        let places: Vec<u32> = (0..4)
            .map(|at| demand.place(BlockId(at)).unwrap())
            .collect();
        drain(&mut demand, places[0]);
        demand.turn_to(places[2]);
        demand.lack(places[0], 2, 0, false);
        demand.lack(0, 1, 0, false);
        let order = [0, places[0], places[2], places[3], places[1]];
        assert_eq!(demand.candidates(Gate::Everything, 9), order);
        assert_eq!(demand.candidates(Gate::Preamble, 9), [0]);
        demand.want(places[3], true);
        assert_eq!(demand.candidates(Gate::Wanted, 9), [0, places[3]]);
        assert_eq!(demand.blocks_left(Gate::Wanted), 1);
    }
}
