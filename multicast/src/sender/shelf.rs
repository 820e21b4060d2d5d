//! Blocks at hand: payloads that were read, and the repair symbols made from them.

use std::collections::{BTreeMap, BTreeSet};

use crate::fec::{FIRST_REPAIR, Fec, MAX_REPAIR};

/// Bytes of payload and repair symbols at hand, at most; the preamble comes on top.
const MAX_SHELF_BYTES: usize = 64 << 20;
/// Blocks asked for and not yet provided, at most.
const MAX_REQUESTED: usize = 8;

#[derive(Debug, Default)]
struct Entry {
    /// k symbols, the last padded with zeros.
    source: Vec<u8>,
    repair: Vec<u8>,
    used: u64,
    pinned: bool,
}

impl Entry {
    fn bytes(&self) -> usize {
        if self.pinned {
            self.repair.len()
        } else {
            self.source.len() + self.repair.len()
        }
    }
}

#[derive(Debug)]
pub(super) struct Shelf<F> {
    fec: F,
    symbol_bytes: usize,
    entries: BTreeMap<u32, Entry>,
    requested: BTreeSet<u32>,
    uses: u64,
}

impl<F: Fec> Shelf<F> {
    pub(super) fn new(fec: F, symbol_bytes: u16) -> Shelf<F> {
        let symbol_bytes = usize::from(symbol_bytes);
        let (entries, requested) = (BTreeMap::new(), BTreeSet::new());
        Shelf {
            fec,
            symbol_bytes,
            entries,
            requested,
            uses: 0,
        }
    }

    /// Whether the block at `place` is at hand.
    pub(super) fn has(&self, place: u32) -> bool {
        self.entries.contains_key(&place)
    }

    /// Notes that a block is to be read. Says whether it must be asked for now.
    pub(super) fn request(&mut self, place: u32) -> bool {
        !self.has(place) && self.requested.len() < MAX_REQUESTED && self.requested.insert(place)
    }

    /// Puts a payload where it is at hand; `pinned` for good.
    pub(super) fn put(&mut self, place: u32, mut payload: Vec<u8>, pinned: bool) {
        self.requested.remove(&place);
        payload.resize(payload.len().next_multiple_of(self.symbol_bytes), 0);
        self.uses += 1;
        let entry = Entry {
            source: payload,
            repair: Vec::new(),
            used: self.uses,
            pinned,
        };
        self.entries.insert(place, entry);
        self.clear_out(place);
    }

    /// Takes away what was not used for longest, but never the block at `keep`.
    fn clear_out(&mut self, keep: u32) {
        let mut bytes: usize = self.entries.values().map(Entry::bytes).sum();
        while bytes > MAX_SHELF_BYTES {
            let others = self.entries.iter().filter(|(place, _)| **place != keep);
            let loose = others.filter(|(_, entry)| entry.bytes() > 0);
            let Some(oldest) = loose
                .min_by_key(|(_, entry)| entry.used)
                .map(|(place, _)| *place)
            else {
                return;
            };
            if let Some(mut entry) = self.entries.remove(&oldest) {
                bytes -= entry.bytes();
                if entry.pinned {
                    entry.repair = Vec::new();
                    self.entries.insert(oldest, entry);
                }
            }
        }
    }

    /// The symbol `number` of the block at `place`, of which `more` will follow; `None` when the block
    /// is not at hand or has no such symbol.
    pub(super) fn symbol(&mut self, place: u32, number: u16, more: u16) -> Option<&[u8]> {
        self.uses += 1;
        let entry = self.entries.get_mut(&place)?;
        entry.used = self.uses;
        let source_symbols = entry.source.len() / self.symbol_bytes;
        let Some(repair) = usize::from(number).checked_sub(source_symbols) else {
            let entry = self.entries.get(&place)?;
            return entry
                .source
                .chunks_exact(self.symbol_bytes)
                .nth(usize::from(number));
        };
        if repair >= usize::from(MAX_REPAIR) {
            return None;
        }
        if (repair + 1) * self.symbol_bytes > entry.repair.len() {
            // A longer stream has the shorter one as its prefix: what was sent stays valid.
            // Each making costs about the same, so what is known to follow is made along.
            let count = (repair + 1 + usize::from(more)).next_power_of_two();
            let count = count.clamp(usize::from(FIRST_REPAIR), usize::from(MAX_REPAIR)) as u16;
            entry.repair = self
                .fec
                .encode(&entry.source, self.symbol_bytes, count)
                .ok()?;
            self.clear_out(place);
        }
        self.entries
            .get(&place)?
            .repair
            .chunks_exact(self.symbol_bytes)
            .nth(repair)
    }
}

#[cfg(test)]
mod tests {
    use crate::fec::ReedSolomon;

    use super::*;

    #[test]
    fn repair_symbols_stay_the_same_when_more_are_made() {
        let mut shelf = Shelf::new(ReedSolomon::new(), 512);
        shelf.put(0, vec![7; 700], false);
        let source = shelf.symbol(0, 1, 0).map(<[u8]>::to_vec).unwrap();
        assert_eq!(
            (&source[..188], &source[188..]),
            (&[7; 188][..], &[0; 324][..])
        );
        let early = shelf.symbol(0, 2 + 63, 0).map(<[u8]>::to_vec);
        assert!(shelf.symbol(0, 2 + 500, 9).is_some());
        assert_eq!(shelf.symbol(0, 2 + 63, 0).map(<[u8]>::to_vec), early);
        assert!(shelf.symbol(0, 2 + MAX_REPAIR, 0).is_none());
    }

    #[test]
    fn the_shelf_is_bounded_and_keeps_what_is_pinned() {
        let mut shelf = Shelf::new(ReedSolomon::new(), 512);
        shelf.put(0, vec![1; 512], true);
        (1..=70).for_each(|place| shelf.put(place, vec![2; 1 << 20], false));
        let bytes: usize = shelf.entries.values().map(Entry::bytes).sum();
        assert!(bytes <= MAX_SHELF_BYTES);
        assert!(shelf.has(0) && shelf.has(70) && !shelf.has(1));
    }

    #[test]
    fn a_block_is_asked_for_once() {
        let mut shelf = Shelf::new(ReedSolomon::new(), 512);
        assert!(shelf.request(3) && !shelf.request(3));
        shelf.put(3, vec![0; 10], false);
        assert!(!shelf.request(3));
        assert_eq!(
            (10..30).filter(|&place| shelf.request(place)).count(),
            MAX_REQUESTED
        );
    }
}
