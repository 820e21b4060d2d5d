//! What is owed of one block, and which of its symbols comes next.
//!
//! ```text
//!            first pass            deficit of a few             deficit near k, or the
//!   need = k ----------> need = 0 ------------------> repair    stream is spent
//!      ^    source symbols          fresh repair        |               |
//!      |    0, 1, .. k-1            symbols             v               v
//!      +------------------------------------------- need = 0      source symbols again
//! ```
//!
//! What only laggards lack follows when `need` is 0: the source again, behind a cursor of its own, for those who lack
//! nearly all of it, and repair for the others. A pass for a laggard never turns into one that everybody waits for.

use crate::fec::MAX_REPAIR;

/// A symbol to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Its number.
    pub(super) symbol: u16,
    /// It was the last one of a pass.
    pub(super) ends_pass: bool,
    /// It was the last one that others than laggards need.
    pub(super) ends_need: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) symbols: u16,
    /// Symbols still to be sent so that every machine can complete it, laggards apart.
    pub(super) need: u16,
    /// Symbols that laggards need, those counted by `need` included.
    pub(super) laggards: u16,
    /// Machines that want it.
    pub(super) wanted_by: u32,
    next_source: u16,
    next_repair: u16,
    /// The next source symbol of a pass for laggards; there is none after the last.
    next_late: u16,
    /// It is on a pass that began with its first source symbol.
    passing: bool,
}

impl Block {
    pub(super) fn new(symbols: u16, need: u16) -> Block {
        Block {
            symbols,
            need,
            laggards: 0,
            wanted_by: 0,
            next_source: 0,
            next_repair: 0,
            next_late: symbols,
            passing: false,
        }
    }

    /// Symbols still to be sent, for whomever.
    pub(super) fn owed(&self) -> u16 {
        self.need.max(self.laggards)
    }

    /// Whether it lacks so little that it comes before blocks that have not passed: machines hold memory for it.
    pub(super) fn is_urgent(&self) -> bool {
        self.has_passed() && u32::from(self.need) * 2 <= u32::from(self.symbols)
    }

    /// Whether a deficit of `outstanding` symbols is one that the pass of the block has left.
    pub(super) fn is_asked_again(&self, outstanding: u16) -> bool {
        self.has_passed()
            && !self.passing
            && outstanding > self.need
            && !self.is_near_whole(outstanding)
    }

    /// Somebody lacks `outstanding` symbols, for which `with_loss` must be sent.
    pub(super) fn lack(&mut self, outstanding: u16, with_loss: u16, laggard: bool) {
        let again = outstanding > 0 && self.has_passed() && self.is_near_whole(outstanding);
        if again && laggard && self.next_late >= self.symbols {
            (self.next_late, self.laggards) = (0, self.symbols);
        } else if again && !laggard {
            // Source symbols cost nobody a decoding, and this machine can use nearly all of them.
            self.next_source = 0;
            self.need = self.symbols;
        } else if laggard {
            self.laggards = self.laggards.max(outstanding);
        } else if outstanding > self.need {
            self.need = with_loss;
        }
    }

    /// The next symbol. A pass that begins with it brings `extra` repair symbols along.
    pub(super) fn take(&mut self, extra: u16) -> Taken {
        let late = self.need == 0;
        if self.has_passed() && self.next_repair >= MAX_REPAIR {
            self.next_repair = 0;
            if late {
                self.next_late = 0;
            } else {
                self.next_source = 0;
            }
        }
        if self.next_source == 0 && !late {
            self.need = self.need.saturating_add(extra);
            self.passing = true;
        }
        let symbol = if late && self.next_late < self.symbols {
            self.next_late += 1;
            self.next_late - 1
        } else if self.has_passed() {
            self.next_repair += 1;
            self.symbols + self.next_repair - 1
        } else {
            self.next_source += 1;
            self.next_source - 1
        };
        let ends_need = self.need == 1;
        self.need = self.need.saturating_sub(1);
        self.laggards = self.laggards.saturating_sub(1);
        let ends_pass = self.passing && self.need == 0;
        self.passing &= !ends_pass;
        Taken {
            symbol,
            ends_pass,
            ends_need,
        }
    }

    fn has_passed(&self) -> bool {
        self.next_source >= self.symbols
    }

    fn is_near_whole(&self, deficit: u16) -> bool {
        u32::from(deficit) * 4 >= u32::from(self.symbols) * 3
    }
}
