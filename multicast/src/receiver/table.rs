//! All blocks of a layout, and how far each is.
//!
//! ```text
//!                first symbol        k symbols         room in the sink
//!   wanted ----------------> open ------------> ready ----------------> delivered
//!      ^                      |                   |                         |
//!      +--- pushed out -------+                   |                         | accepted
//!      +--- does not decode, or rejected <--------+-------------------------v
//!                                                                     not wanted
//! ```
//!
//! Blocks that are open or ready hold memory; together never more than [`MAX_OPEN_BYTES`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::block::Layout;
use crate::clock::Instant;
use crate::guard::guard;

use super::assembly::{Assembly, Placed};
use super::parcel::Parcel;
use super::spares::Spares;

/// Memory of all blocks that are open or ready.
pub(super) const MAX_OPEN_BYTES: usize = 24 << 20;
/// A block that lacks more than half may be pushed out after so long without a symbol.
const IDLE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unwanted,
    Wanted,
    Open,
    Ready,
    Delivered,
}

/// What became of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Useful,
    /// It was the last one lacking. `decoded`: repair symbols are of help.
    Complete {
        decoded: bool,
    },
    Duplicate,
    Unwanted,
    NoRoom,
    Foreign,
}

#[derive(Debug)]
pub(super) struct Table {
    layout: Layout,
    symbol_bytes: u16,
    states: Vec<State>,
    open: BTreeMap<u32, Assembly>,
    ready: VecDeque<(u32, Parcel)>,
    open_bytes: usize,
    lacking: u32,
    spares: Spares,
    /// Symbols have had to be dropped for want of memory.
    was_full: bool,
}

impl Table {
    /// A table of `layout`; `wanted` has a flag for each block.
    pub(super) fn new(layout: Layout, symbol_bytes: u16, wanted: &[bool]) -> Table {
        let state = |wanted: &bool| {
            if *wanted {
                State::Wanted
            } else {
                State::Unwanted
            }
        };
        Table {
            layout,
            symbol_bytes,
            states: wanted.iter().map(state).collect(),
            open: BTreeMap::new(),
            ready: VecDeque::new(),
            open_bytes: 0,
            lacking: wanted.iter().filter(|wanted| **wanted).count() as u32,
            spares: Spares::default(),
            was_full: false,
        }
    }

    /// Takes memory of a block that is not needed any more.
    pub(super) fn recycle(&mut self, memory: Vec<u8>) {
        self.spares.put(memory);
    }

    /// Blocks of the layout.
    pub(super) fn len(&self) -> u32 {
        self.layout.len()
    }

    /// Blocks that have not been accepted yet.
    pub(super) fn lacking(&self) -> u32 {
        self.lacking
    }

    /// How far block `index` is, and how many symbols it lacks when it is open.
    pub(super) fn state(&self, index: u32) -> (State, u16) {
        let state = self
            .states
            .get(index as usize)
            .copied()
            .unwrap_or(State::Unwanted);
        (state, self.open.get(&index).map_or(0, Assembly::deficit))
    }

    /// Memory that block `index` takes while it is open, in bytes.
    pub(super) fn memory(&self, index: u32) -> usize {
        let payload_bytes = self.layout.bytes(index).unwrap_or(0);
        payload_bytes.next_multiple_of(u32::from(self.symbol_bytes)) as usize
    }

    /// Bytes of whole blocks that may be asked for: all, unless the sink has been too slow before.
    pub(super) fn ration(&self) -> usize {
        if self.was_full {
            MAX_OPEN_BYTES.saturating_sub(self.open_bytes)
        } else {
            usize::MAX
        }
    }

    /// Whether something lacks that there is room for.
    pub(super) fn is_hungry(&self) -> bool {
        let lacks = |(at, state): (usize, &State)| match state {
            State::Wanted => self.memory(at as u32) <= self.ration(),
            State::Open => true,
            State::Unwanted | State::Ready | State::Delivered => false,
        };
        self.states.iter().enumerate().any(lacks)
    }

    /// Whether symbol `number` of block `index` is a source symbol.
    pub(super) fn is_source(&self, index: u32, number: u16) -> bool {
        self.layout
            .symbols(index, self.symbol_bytes)
            .is_some_and(|symbols| number < symbols)
    }

    /// Blocks that have some symbols and lack others, with their deficits.
    pub(super) fn open(&self) -> impl Iterator<Item = (u32, u16)> {
        self.open
            .iter()
            .map(|(index, assembly)| (*index, assembly.deficit()))
    }

    /// Takes a symbol of the session's symbol size.
    pub(super) fn take(&mut self, now: Instant, index: u32, number: u16, symbol: &[u8]) -> Taken {
        if !guard!("block_bounds", index < self.len()) {
            return Taken::Foreign;
        }
        let state = self.states[index as usize];
        if !guard!(
            "wanted_filter",
            matches!(state, State::Wanted | State::Open)
        ) {
            return Taken::Unwanted;
        }
        if !self.open.contains_key(&index) {
            let payload_bytes = self.layout.bytes(index).unwrap_or(0);
            let memory = self.memory(index);
            if !guard!("max_open", self.make_room(now, memory)) {
                self.was_full = true;
                return Taken::NoRoom;
            }
            let spare = self.spares.take(memory);
            let assembly = Assembly::new(now, payload_bytes, self.symbol_bytes, spare);
            self.open_bytes += memory;
            self.open.insert(index, assembly);
            self.set(index, State::Open);
        }
        let Some(assembly) = self.open.get_mut(&index) else {
            return Taken::Foreign;
        };
        match assembly.place(now, number, symbol) {
            Placed::Duplicate => Taken::Duplicate,
            Placed::Foreign => Taken::Foreign,
            Placed::Useful if assembly.deficit() > 0 => Taken::Useful,
            Placed::Useful => self.complete(index),
        }
    }

    /// Takes a whole block that came another way; whether it was wanted, and of the right length.
    pub(super) fn take_whole(&mut self, index: u32, payload: Vec<u8>) -> bool {
        let (state, _) = self.state(index);
        let right = self.layout.bytes(index) == u32::try_from(payload.len()).ok();
        if !matches!(state, State::Wanted | State::Open) || !right {
            return false;
        }
        if let Some(assembly) = self.open.remove(&index) {
            self.open_bytes -= assembly.memory();
        }
        self.open_bytes += self.memory(index);
        self.ready.push_back((index, Parcel::whole(payload)));
        self.set(index, State::Ready);
        true
    }

    /// The first block from `from` on of which symbols are lacking.
    pub(super) fn next_lacking(&self, from: u32) -> Option<u32> {
        let lacks = |index: &u32| matches!(self.state(*index).0, State::Wanted | State::Open);
        (from..self.len()).find(lacks)
    }

    fn complete(&mut self, index: u32) -> Taken {
        let Some(assembly) = self.open.remove(&index) else {
            return Taken::Foreign;
        };
        let parcel = Parcel::of_symbols(assembly);
        let decoded = parcel.needs_decoding();
        self.ready.push_back((index, parcel));
        self.set(index, State::Ready);
        Taken::Complete { decoded }
    }

    /// Whether `bytes` more fit, if need be at the cost of a block that has been idle and lacks more
    /// than half: the sender will send its source again anyway.
    fn make_room(&mut self, now: Instant, bytes: usize) -> bool {
        if self.open_bytes + bytes <= MAX_OPEN_BYTES {
            return true;
        }
        let idle = |assembly: &Assembly| now.since(assembly.touched) >= IDLE;
        let poor = |assembly: &Assembly| assembly.deficit() * 2 > assembly.symbols();
        let victims = self
            .open
            .iter()
            .filter(|(_, open)| idle(open) && poor(open));
        let Some(victim) = victims
            .max_by_key(|(_, open)| open.deficit())
            .map(|(&index, _)| index)
        else {
            return false;
        };
        if let Some(assembly) = self.open.remove(&victim) {
            self.open_bytes -= assembly.memory();
            self.set(victim, State::Wanted);
        }
        self.open_bytes + bytes <= MAX_OPEN_BYTES
    }

    /// Memory of open and ready blocks, in bytes.
    pub(super) fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// Bytes of blocks that are complete and wait for the sink.
    pub(super) fn ready_bytes(&self) -> u64 {
        let bytes = |(_, parcel): &(u32, Parcel)| parcel.memory() as u64;
        self.ready.iter().map(bytes).sum()
    }

    /// The next block that is complete. What does not decode after all is to be rejected.
    pub(super) fn deliver(&mut self) -> Option<(u32, Parcel)> {
        let (index, parcel) = self.ready.pop_front()?;
        self.open_bytes -= self.memory(index).min(self.open_bytes);
        self.set(index, State::Delivered);
        Some((index, parcel))
    }

    /// The block is right and final.
    pub(super) fn accept(&mut self, index: u32) {
        if self.state(index).0 == State::Delivered {
            self.set(index, State::Unwanted);
        }
    }

    /// The block is wrong after all. Symbols of it that have come since stay.
    pub(super) fn reject(&mut self, index: u32) {
        if index < self.len() && matches!(self.state(index).0, State::Delivered | State::Unwanted) {
            self.set(index, State::Wanted);
        }
    }

    fn set(&mut self, index: u32, state: State) {
        let slot = &mut self.states[index as usize];
        let lacked = *slot != State::Unwanted;
        *slot = state;
        match (lacked, state != State::Unwanted) {
            (false, true) => self.lacking += 1,
            (true, false) => self.lacking -= 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::fec::ReedSolomon;

    use super::*;

    const SYMBOL: u16 = 512;

    fn table(blocks: usize, bytes: u32) -> Table {
        let layout = Layout::new(vec![bytes; blocks]).unwrap();
        Table::new(layout, SYMBOL, &vec![true; blocks])
    }

    fn fill(table: &mut Table, index: u32, symbols: u16) -> Taken {
        let symbol = [3; SYMBOL as usize];
        let take = |number| table.take(Instant::ZERO, index, number, &symbol);
        (0..symbols).map(take).last().unwrap()
    }

    #[test]
    fn a_block_goes_from_wanted_to_accepted() {
        let mut table = table(2, 1024);
        assert_eq!(fill(&mut table, 0, 1), Taken::Useful);
        assert_eq!(table.state(0), (State::Open, 1));
        assert_eq!(fill(&mut table, 0, 1), Taken::Duplicate);
        assert_eq!(fill(&mut table, 0, 2), Taken::Complete { decoded: false });
        assert_eq!(fill(&mut table, 0, 1), Taken::Unwanted);
        let (index, parcel) = table.deliver().unwrap();
        assert_eq!(parcel.open(&mut ReedSolomon::new()), Ok(vec![3; 1024]));
        assert_eq!(index, 0);
        assert_eq!((table.lacking(), table.open_bytes()), (2, 0));
        table.accept(0);
        assert_eq!(table.lacking(), 1);
        table.reject(0);
        assert_eq!((table.state(0).0, table.lacking()), (State::Wanted, 2));
    }

    #[test]
    fn open_blocks_never_hold_more_than_the_bound() {
        let mut table = table(100, 1 << 20);
        let taken: Vec<Taken> = (0..100).map(|index| fill(&mut table, index, 1)).collect();
        assert_eq!(
            taken
                .iter()
                .filter(|taken| **taken == Taken::Useful)
                .count(),
            24
        );
        assert_eq!(taken[24], Taken::NoRoom);
        assert!(table.open_bytes() <= MAX_OPEN_BYTES);
        // Later a poor, idle block makes way.
        let later = Instant::ZERO.after(IDLE);
        let symbol = [3; SYMBOL as usize];
        let taken = table.take(later, 50, 0, &symbol);
        assert_eq!(taken, Taken::Useful);
        assert_eq!(table.open().count(), 24);
        assert_eq!(table.lacking(), 100);
    }

    #[test]
    fn a_block_beyond_the_layout_is_foreign() {
        assert_eq!(fill(&mut table(2, 1024), 2, 1), Taken::Foreign);
        assert_eq!(fill(&mut table(2, 1024), u32::MAX, 1), Taken::Foreign);
    }
}
