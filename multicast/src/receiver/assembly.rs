//! One block being put together, in exactly as much memory as it will have in the end.
//!
//! There is a slot for each source symbol. A repair symbol waits in a slot that is still free and
//! makes way when the source symbol comes; any k symbols fill the slots, and then the block is decoded
//! in place, or needs no decoding at all.

use crate::bits::Bits;
use crate::clock::Instant;
use crate::fec::{Fec, FecError, MAX_REPAIR};
use crate::guard::guard;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    Source,
    Repair(u16),
}

/// What became of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It was new.
    Useful,
    /// It was here already.
    Duplicate,
    /// The block has no such symbol.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Assembly {
    payload_bytes: u32,
    symbol_bytes: usize,
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    repair_seen: Bits,
    held: u16,
    /// No slot from here on is free.
    free_end: usize,
    /// When a symbol was last of use.
    pub(super) touched: Instant,
}

impl Assembly {
    /// A block of which nothing is here. `memory` is what it is put together in, whatever that held.
    pub(super) fn new(
        now: Instant,
        payload_bytes: u32,
        symbol_bytes: u16,
        mut memory: Vec<u8>,
    ) -> Assembly {
        let symbols = payload_bytes.div_ceil(u32::from(symbol_bytes)) as usize;
        let symbol_bytes = usize::from(symbol_bytes);
        // What was there before is written over: a block is only handed on when every slot was filled.
        memory.resize(symbols * symbol_bytes, 0);
        Assembly {
            payload_bytes,
            symbol_bytes,
            bytes: memory,
            slots: vec![Slot::Free; symbols],
            repair_seen: Bits::default(),
            held: 0,
            free_end: symbols,
            touched: now,
        }
    }

    /// Source symbols of the block.
    pub(super) fn symbols(&self) -> u16 {
        // At most 8192, see `Layout::MAX_BLOCK_BYTES`.
        self.slots.len() as u16
    }

    /// Symbols still lacking.
    pub(super) fn deficit(&self) -> u16 {
        self.symbols().saturating_sub(self.held)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len()
    }

    /// Puts symbol `number` where it belongs. `symbol` has the session's symbol size.
    pub(super) fn place(&mut self, now: Instant, number: u16, symbol: &[u8]) -> Placed {
        let within = u32::from(number) < u32::from(self.symbols()) + u32::from(MAX_REPAIR);
        if !within {
            return Placed::Foreign;
        }
        let fresh = match self.slots.get(usize::from(number)) {
            Some(slot) => *slot != Slot::Source,
            None => {
                if self.repair_seen.is_empty() {
                    self.repair_seen = Bits::new(u32::from(MAX_REPAIR));
                }
                self.repair_seen.insert(u32::from(number - self.symbols()))
            }
        };
        if !guard!("duplicate_symbol", fresh) {
            return Placed::Duplicate;
        }
        let slot = usize::from(number);
        match self.slots.get(slot) {
            Some(Slot::Repair(waiting)) => {
                let waiting = *waiting;
                self.make_way(slot, waiting);
                self.write(slot, Slot::Source, symbol);
            }
            Some(_) => self.write(slot, Slot::Source, symbol),
            None => {
                if let Some(free) = self.free_slot() {
                    self.write(free, Slot::Repair(number - self.symbols()), symbol);
                }
            }
        }
        self.held = self.held.saturating_add(1);
        self.touched = now;
        Placed::Useful
    }

    fn make_way(&mut self, slot: usize, waiting: u16) {
        if let Some(free) = self.free_slot() {
            let from = slot * self.symbol_bytes;
            self.bytes
                .copy_within(from..from + self.symbol_bytes, free * self.symbol_bytes);
            self.slots[free] = Slot::Repair(waiting);
        }
    }

    /// Slots are taken from the end, because source symbols mostly come from the beginning.
    fn free_slot(&mut self) -> Option<usize> {
        let free = self.slots[..self.free_end]
            .iter()
            .rposition(|slot| *slot == Slot::Free);
        self.free_end = free.unwrap_or(0);
        free
    }

    fn write(&mut self, slot: usize, kind: Slot, symbol: &[u8]) {
        let into = &mut self.bytes[slot * self.symbol_bytes..][..self.symbol_bytes];
        // Equal lengths, unless a test has taken the guard away that sees to it.
        let length = into.len().min(symbol.len());
        into[..length].copy_from_slice(&symbol[..length]);
        self.slots[slot] = kind;
    }

    /// Whether no decoding is needed.
    pub(super) fn is_plain(&self) -> bool {
        self.slots.iter().all(|slot| *slot == Slot::Source)
    }

    /// The payload, once the deficit is zero.
    pub(super) fn finish(mut self, fec: &mut impl Fec) -> Result<Vec<u8>, FecError> {
        if !self.is_plain() {
            let present: Vec<bool> = self
                .slots
                .iter()
                .map(|slot| *slot == Slot::Source)
                .collect();
            let repair = |(at, slot): (usize, &Slot)| match slot {
                Slot::Repair(number) => Some((*number, at as u16)),
                _ => None,
            };
            let repair: Vec<(u16, u16)> =
                self.slots.iter().enumerate().filter_map(repair).collect();
            fec.decode(&mut self.bytes, self.symbol_bytes, &present, &repair)?;
        }
        self.bytes.truncate(self.payload_bytes as usize);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use crate::fec::ReedSolomon;

    use super::*;

    const SYMBOL: u16 = 16;

    proptest! {
        #[test]
        fn any_k_symbols_in_any_order_give_the_block(
            payload in proptest::collection::vec(any::<u8>(), 1..1500),
            mut order in proptest::collection::vec(any::<u32>(), 256),
        ) {
            let mut fec = ReedSolomon::new();
            let mut source = payload.clone();
            source.resize(payload.len().next_multiple_of(usize::from(SYMBOL)), 0);
            let stream = fec.encode(&source, usize::from(SYMBOL), 64).unwrap();
            source.extend(stream);
            let mut symbols: Vec<(u32, u16, &[u8])> = Vec::new();
            for (number, symbol) in source.chunks(usize::from(SYMBOL)).enumerate() {
                symbols.push((order.pop().unwrap(), number as u16, symbol));
            }
            symbols.sort();
            let mut assembly = Assembly::new(Instant::ZERO, payload.len() as u32, SYMBOL, vec![7; 600]);
            for (_, number, symbol) in symbols {
                if assembly.deficit() == 0 {
                    break;
                }
                prop_assert_eq!(assembly.place(Instant::ZERO, number, symbol), Placed::Useful);
                prop_assert_eq!(assembly.place(Instant::ZERO, number, symbol), Placed::Duplicate);
            }
            prop_assert_eq!(assembly.finish(&mut fec).unwrap(), payload);
        }
    }

    #[test]
    fn a_symbol_beyond_the_repair_stream_is_foreign() {
        let mut assembly = Assembly::new(Instant::ZERO, 20, SYMBOL, Vec::new());
        let symbol = [0; SYMBOL as usize];
        assert_eq!(
            assembly.place(Instant::ZERO, 2 + MAX_REPAIR, &symbol),
            Placed::Foreign
        );
        assert_eq!(
            assembly.place(Instant::ZERO, u16::MAX, &symbol),
            Placed::Foreign
        );
        assert_eq!(assembly.deficit(), 2);
    }
}
