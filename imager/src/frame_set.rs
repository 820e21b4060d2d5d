//! A set of frames of one image, one bit each: what a machine still lacks.

use crate::id::FrameId;

const WORD_BITS: usize = u64::BITS as usize;

/// A set of the frames `0 .. count` of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSet {
    words: Vec<u64>,
    count: usize,
    len: usize,
}

impl FrameSet {
    /// No frame of an image of `count` frames.
    pub fn empty(count: usize) -> FrameSet {
        FrameSet {
            words: vec![0; count.div_ceil(WORD_BITS)],
            count,
            len: 0,
        }
    }

    /// Every frame of an image of `count` frames.
    pub fn full(count: usize) -> FrameSet {
        let mut words = vec![u64::MAX; count.div_ceil(WORD_BITS)];
        let rest = count % WORD_BITS;
        if let Some(last) = words.last_mut().filter(|_| rest != 0) {
            *last = (1 << rest) - 1;
        }
        FrameSet {
            words,
            count,
            len: count,
        }
    }

    /// How many frames the image has: the bound of what the set can hold.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many frames are in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no frame is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `frame` is in the set; a frame the image does not have never is.
    pub fn contains(&self, frame: FrameId) -> bool {
        self.words
            .get(frame.index() / WORD_BITS)
            .is_some_and(|word| word >> (frame.index() % WORD_BITS) & 1 == 1)
    }

    /// Adds `frame`; true when it was not there. A frame the image does not have is ignored.
    pub fn insert(&mut self, frame: FrameId) -> bool {
        let new = frame.index() < self.count && !self.contains(frame);
        if new {
            self.words[frame.index() / WORD_BITS] |= 1 << (frame.index() % WORD_BITS);
            self.len += 1;
        }
        new
    }

    /// Takes `frame` out; true when it was there.
    pub fn remove(&mut self, frame: FrameId) -> bool {
        let there = self.contains(frame);
        if there {
            self.words[frame.index() / WORD_BITS] &= !(1 << (frame.index() % WORD_BITS));
            self.len -= 1;
        }
        there
    }

    /// The frames of the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = FrameId> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
                left &= left - 1;
                Some(FrameId((index * WORD_BITS + bit) as u32))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_an_ordered_set(
            count in 0usize..300,
            steps in prop::collection::vec((any::<bool>(), 0u32..310), 0..200),
        ) {
            let mut set = FrameSet::empty(count);
            let mut slow = BTreeSet::new();
            for (add, frame) in steps {
                if add && (frame as usize) < count {
                    prop_assert_eq!(set.insert(FrameId(frame)), slow.insert(frame));
                } else if add {
                    prop_assert!(!set.insert(FrameId(frame)));
                } else {
                    prop_assert_eq!(set.remove(FrameId(frame)), slow.remove(&frame));
                }
            }
            prop_assert_eq!(set.len(), slow.len());
            prop_assert_eq!(set.iter().map(|f| f.0).collect::<Vec<_>>(), slow.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn full_holds_each_frame_once(count in 0usize..200) {
            let set = FrameSet::full(count);
            prop_assert_eq!(set.len(), count);
            prop_assert_eq!(set.iter().map(FrameId::index).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
