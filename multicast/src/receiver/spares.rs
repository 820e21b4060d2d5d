//! Memory of blocks that are done with, for blocks to come.
//!
//! A block fresh from the allocator costs a page fault for each 4 KiB, more than the placing of its symbols.

/// Bytes that are kept, at most: what a disk has in work.
const MAX_SPARE_BYTES: usize = 16 << 20;
/// Pieces that are kept, at most: small ones are cheap to make.
const MAX_SPARES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Spares {
    spares: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spares {
    /// Keeps `memory`, if there is room.
    pub(super) fn put(&mut self, memory: Vec<u8>) {
        if self.spares.len() < MAX_SPARES && self.bytes + memory.capacity() <= MAX_SPARE_BYTES {
            self.bytes += memory.capacity();
            self.spares.push(memory);
        }
    }

    /// Memory that holds `bytes` without growing, with anything in it; new when none does.
    pub(super) fn take(&mut self, bytes: usize) -> Vec<u8> {
        let fits = |spare: &Vec<u8>| spare.capacity() >= bytes;
        match self.spares.iter().rposition(fits) {
            Some(at) => {
                let spare = self.spares.swap_remove(at);
                self.bytes -= spare.capacity();
                spare
            }
            // Zeroed here, where the kernel may have zeroed it already.
            None => vec![0; bytes],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_suffices_is_used_again() {
        let mut spares = Spares::default();
        spares.put(vec![1; 1000]);
        assert!(spares.take(2000).iter().all(|&byte| byte == 0));
        assert_eq!(spares.take(900), vec![1; 1000]);
        assert_eq!((spares.take(900), spares.bytes), (vec![0; 900], 0));
    }

    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut spares = Spares::default();
        (0..20).for_each(|_| spares.put(vec![0; 3 << 19]));
        let kept: usize = spares.spares.iter().map(Vec::capacity).sum();
        assert_eq!((kept, spares.bytes), (15 << 20, 15 << 20));
        (0..20).for_each(|_| spares.put(vec![0; 1]));
        assert_eq!(spares.spares.len(), MAX_SPARES);
    }
}
