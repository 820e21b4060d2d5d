//! Sets of bytes of a disk, as ranges.

use std::ops::Range;

/// Ranges of bytes: in rising order, apart, never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// The union of `ranges`, in whatever order they come.
    pub(crate) fn of(ranges: impl IntoIterator<Item = Range<u64>>) -> Ranges {
        let mut all: Vec<Range<u64>> = ranges.into_iter().filter(|r| r.start < r.end).collect();
        all.sort_by_key(|range| range.start);
        all.dedup_by(|next, last| {
            let touches = next.start <= last.end;
            if touches {
                last.end = last.end.max(next.end);
            }
            touches
        });
        Ranges(all)
    }

    /// The bytes of `range`.
    pub(crate) fn one(range: Range<u64>) -> Ranges {
        Ranges::of(Some(range))
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that holds the byte at `place`.
    pub(crate) fn around(&self, place: u64) -> Option<Range<u64>> {
        let first = self.0.partition_point(|one| one.end <= place);
        self.0.get(first).filter(|one| one.start <= place).cloned()
    }

    /// Each of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// What of them lies in `range`, in order.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.0.partition_point(|one| one.end <= range.start);
        self.0[first..]
            .iter()
            .take_while(move |one| one.start < range.end)
            .map(move |one| one.start.max(range.start)..one.end.min(range.end))
            .filter(|one| one.start < one.end)
    }

    /// What of `range` is in none of them, in order.
    pub(crate) fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut place = range.start;
        let end = range.end;
        self.within(range)
            .chain(std::iter::once(end..end))
            .map(move |one| {
                let gap = place..one.start;
                place = one.end;
                gap
            })
            .filter(|gap| gap.start < gap.end)
    }

    /// The bytes of these that are not in `others`.
    pub(crate) fn minus(&self, others: &Ranges) -> Ranges {
        Ranges(
            self.0
                .iter()
                .cloned()
                .flat_map(|one| others.gaps(one))
                .collect(),
        )
    }

    /// Whether a byte of `range` is in one of them.
    pub(crate) fn touch(&self, range: Range<u64>) -> bool {
        self.within(range).next().is_some()
    }

    /// Whether all of `range` is in them.
    pub(crate) fn hold(&self, range: Range<u64>) -> bool {
        self.gaps(range).next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn some() -> impl Strategy<Value = Vec<Range<u64>>> {
        let one = (0u64..60, 0u64..12).prop_map(|(start, length)| start..start + length);
        prop::collection::vec(one, 0..6)
    }

    fn bytes(ranges: impl IntoIterator<Item = Range<u64>>) -> BTreeSet<u64> {
        ranges.into_iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn they_behave_as_sets_of_bytes(a in some(), b in some(), start in 0u64..70, length in 0u64..20) {
            let (left, right) = (Ranges::of(a.clone()), Ranges::of(b.clone()));
            let (slow_left, slow_right) = (bytes(a), bytes(b));
            let range = start..start + length;
            prop_assert_eq!(bytes(left.iter()), slow_left.clone());
            prop_assert!(left.0.windows(2).all(|pair| pair[0].end < pair[1].start));
            prop_assert_eq!(bytes(left.minus(&right).iter()), &slow_left - &slow_right);
            let window: BTreeSet<u64> = range.clone().collect();
            prop_assert_eq!(bytes(left.within(range.clone())), &slow_left & &window);
            prop_assert_eq!(bytes(left.gaps(range.clone())), &window - &slow_left);
            prop_assert_eq!(left.touch(range.clone()), !slow_left.is_disjoint(&window));
            prop_assert_eq!(left.around(start).is_some(), slow_left.contains(&start));
            prop_assert!(left.around(start).is_none_or(|one| one.contains(&start)));
            prop_assert_eq!(left.is_empty(), slow_left.is_empty());
            prop_assert_eq!(left.hold(range), window.is_subset(&slow_left));
        }
    }
}
