//! A set of small numbers, one bit each.

/// Which of `0..len` are in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Bytes that a set over `0..len` takes.
    pub(crate) fn bytes(len: u32) -> usize {
        len.div_ceil(64) as usize * 8
    }

    /// The empty set over `0..len`.
    pub(crate) fn new(len: u32) -> Bits {
        Bits {
            words: vec![0; len.div_ceil(64) as usize],
        }
    }

    /// Whether the set is over nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, at: u32) -> bool {
        self.words
            .get(at as usize / 64)
            .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// Puts `at` in; says whether it was absent before. Beyond the end nothing happens.
    pub(crate) fn insert(&mut self, at: u32) -> bool {
        let Some(word) = self.words.get_mut(at as usize / 64) else {
            return false;
        };
        let before = *word;
        *word |= 1 << (at % 64);
        *word != before
    }

    /// Makes the set equal to `runs` within `window` (both ascending, half-open), and tells `changed`
    /// of each number that came in (`true`) or went out.
    pub(crate) fn replace(
        &mut self,
        window: (u32, u32),
        runs: &[(u32, u32)],
        mut changed: impl FnMut(u32, bool),
    ) {
        let mut runs = runs;
        let words = window.0 as usize / 64..(window.1 as usize).div_ceil(64).min(self.words.len());
        for at in words {
            let base = at as u32 * 64;
            let within = mask(base, window);
            while runs.first().is_some_and(|run| run.1 <= base) {
                runs = &runs[1..];
            }
            let reach = runs
                .iter()
                .take_while(|run| run.0 < base.saturating_add(64));
            let wanted = reach.fold(0, |bits, &run| bits | mask(base, run)) & within;
            let word = &mut self.words[at];
            let mut differing = (*word ^ wanted) & within;
            *word ^= differing;
            while differing != 0 {
                let bit = differing.trailing_zeros();
                differing &= differing - 1;
                changed(base + bit, wanted >> bit & 1 == 1);
            }
        }
    }
}

/// Bits of `range` within the word that begins at `base`.
fn mask(base: u32, range: (u32, u32)) -> u64 {
    let low = range.0.saturating_sub(base).min(64);
    let high = range.1.saturating_sub(base).min(64);
    let below = |bits: u32| {
        if bits == 64 {
            u64::MAX
        } else {
            (1 << bits) - 1
        }
    };
    below(high) & !below(low)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn replacing_a_window_equals_the_slow_way(
            before in proptest::collection::btree_set(0..300_u32, 0..200),
            cuts in proptest::collection::btree_set(0..300_u32, 4..40),
            skip in any::<bool>(),
        ) {
            let cuts: Vec<u32> = cuts.into_iter().collect();
            let window = (cuts[0], cuts[cuts.len() - 1]);
            let pairs = cuts[usize::from(skip)..].chunks_exact(2);
            let runs: Vec<(u32, u32)> = pairs.map(|pair| (pair[0], pair[1])).collect();
            let mut bits = Bits::new(300);
            before.iter().for_each(|&at| assert!(bits.insert(at)));
            let mut slow: BTreeSet<u32> = before;
            slow.retain(|at| *at < window.0 || *at >= window.1);
            slow.extend(runs.iter().flat_map(|run| run.0..run.1));
            let seen = bits.clone();
            bits.replace(window, &runs, |at, entered| assert_eq!(entered, !seen.contains(at)));
            let fast: BTreeSet<u32> = (0..300).filter(|&at| bits.contains(at)).collect();
            prop_assert_eq!(fast, slow);
        }
    }
}
