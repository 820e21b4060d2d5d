//! Mapping pairs: which clusters of the volume hold a stream, packed in a few bytes for each run.

use std::ops::Range;

/// Most runs of one stream; Windows itself stops long before.
const RUNS_MAX: usize = 1 << 20;
/// Longest stream, holes included: its end in bytes has room in 63 bits, whatever a cluster is.
const CLUSTERS_MAX: u64 = 1 << 42;

/// Consecutive clusters of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Clusters of the stream.
    pub(super) within: Range<u64>,
    /// Where they lie on the volume; none for a hole, which reads as zero.
    pub(super) at: Option<u64>,
}

impl Run {
    /// The clusters of the volume; empty for a hole.
    pub(super) fn clusters(&self) -> Range<u64> {
        let at = self.at.unwrap_or(0);
        let count = self.at.map_or(0, |_| self.within.end - self.within.start);
        at..at + count
    }
}

/// Appends what `pairs` say to `runs`, which must end where `pairs` begin. `within` are the
/// clusters of the stream they claim to describe; the volume has `clusters`. Nothing is said of
/// what `runs` hold after a failure.
pub(super) fn append(
    runs: &mut Vec<Run>,
    pairs: &[u8],
    within: Range<u64>,
    clusters: u64,
) -> Option<()> {
    if runs.last().map_or(0, |last| last.within.end) != within.start || within.end > CLUSTERS_MAX {
        return None;
    }
    let (mut place, mut at) = (within.start, 0u64);
    let mut rest = pairs;
    loop {
        let (&head, body) = rest.split_first()?;
        if head == 0 {
            break;
        }
        let (count_bytes, at_bytes) = (usize::from(head & 15), usize::from(head >> 4));
        let count = unsigned(body.get(..count_bytes)?)?;
        let body = &body[count_bytes..];
        let step = body.get(..at_bytes)?;
        rest = &body[at_bytes..];
        let end = place.checked_add(count).filter(|&end| end <= within.end)?;
        if count == 0 || runs.len() == RUNS_MAX {
            return None;
        }
        let at_of_run = if step.is_empty() {
            None
        } else {
            at = at.checked_add_signed(signed(step)?)?;
            at.checked_add(count).filter(|&end| end <= clusters)?;
            Some(at)
        };
        runs.push(Run {
            within: place..end,
            at: at_of_run,
        });
        place = end;
    }
    (place == within.end).then_some(())
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(wide))
}

fn signed(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last()? & 0x80 != 0;
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(wide))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Packs runs the way a writer does that spends no byte too many or `spare` bytes too many.
    fn packed(runs: &[Run], spare: usize) -> Vec<u8> {
        let mut pairs = Vec::new();
        let mut before = 0i64;
        for run in runs {
            let count = (run.within.end - run.within.start).to_le_bytes();
            let count_bytes = (8 - run.within.end.leading_zeros() as usize / 8 + spare).min(8);
            let step = run.at.map(|at| at as i64 - before);
            before = run.at.map_or(before, |at| at as i64);
            let step_bytes = if step.is_some() { 8 } else { 0 };
            pairs.push((step_bytes << 4 | count_bytes) as u8);
            pairs.extend(&count[..count_bytes]);
            pairs.extend(&step.unwrap_or(0).to_le_bytes()[..step_bytes]);
        }
        pairs.push(0);
        pairs
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            lengths in prop::collection::vec((1u64..5000, prop::option::of(0u64..1 << 30)), 0..40),
            spare in 0usize..3,
            cut in 0usize..40,
        ) {
            let mut place = 0;
            let runs: Vec<Run> = lengths
                .into_iter()
                .map(|(count, at)| {
                    place += count;
                    Run { within: place - count..place, at }
                })
                .collect();
            // In two attributes, as a fragmented stream has them.
            let (head, tail) = runs.split_at(cut.min(runs.len()));
            let middle = head.last().map_or(0, |run| run.within.end);
            let mut found = Vec::new();
            prop_assert!(append(&mut found, &packed(head, spare), 0..middle, 1 << 31).is_some());
            prop_assert!(append(&mut found, &packed(tail, spare), middle..place, 1 << 31).is_some());
            prop_assert_eq!(found, runs);
        }

        #[test]
        fn any_bytes_give_runs_inside_the_volume_or_nothing(
            pairs in prop::collection::vec(any::<u8>(), 0..60),
            clusters in 0u64..100_000,
        ) {
            let mut runs = Vec::new();
            if append(&mut runs, &pairs, 0..clusters, clusters).is_some() {
                prop_assert!(runs.iter().all(|run| run.clusters().end <= clusters));
                prop_assert_eq!(runs.last().map_or(0, |run| run.within.end), clusters);
            }
        }
    }

    #[test]
    fn the_example_of_a_fragmented_file_is_read() {
        // 0x38 clusters at 0x342573, 0x114 at 0x200 before... as negative steps, and a hole.
        let pairs = [
            0x31, 0x38, 0x73, 0x25, 0x34, 0x32, 0x14, 0x01, 0xe5, 0x11, 0x02, 0x01, 0x42, 0,
        ];
        let mut runs = Vec::new();
        append(&mut runs, &pairs, 0..0x38 + 0x114 + 0x42, 1 << 30).unwrap();
        let places: Vec<Option<u64>> = runs.iter().map(|run| run.at).collect();
        assert_eq!(places, [Some(0x34_2573), Some(0x36_3758), None]);
    }

    #[test]
    fn pairs_that_contradict_their_attribute_are_refused() {
        let pairs = [0x11, 0x08, 0x10, 0];
        let refused = |pairs: &[u8], within: Range<u64>, clusters| {
            append(&mut Vec::new(), pairs, within, clusters).is_none()
        };
        assert!(!refused(&pairs, 0..8, 0x18));
        assert!(refused(&pairs, 0..8, 0x17), "beyond the volume");
        assert!(refused(&pairs, 0..9, 0x18), "too short");
        assert!(refused(&pairs, 0..7, 0x18), "too long");
        assert!(refused(&pairs, 1..9, 0x18), "not where the last ended");
        assert!(refused(&pairs[..3], 0..8, 0x18), "without an end");
        assert!(
            refused(&[0x11, 0x08, 0xff, 0], 0..8, 0x18),
            "before the volume"
        );
        assert!(refused(&[0x01, 0x00, 0], 0..0, 0x18), "an empty run");
        let hole = [0x06, 1, 0, 0, 0, 0, 4, 0];
        assert!(refused(&hole, 0..(1 << 42) + 1, 0x18), "a hole without end");
        assert!(refused(&[0x1f, 0], 0..0, 0x18), "a count of 15 bytes");
    }
}
