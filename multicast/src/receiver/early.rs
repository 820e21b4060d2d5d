//! Datagrams that came too early: before an announce named the session, or before the preamble said
//! how the payload is cut. Kept as they are, within a bound, and looked at again later.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::guard::guard;

/// Memory for early datagrams.
pub(super) const MAX_EARLY_BYTES: usize = 4 << 20;
/// What a datagram costs beside its bytes.
const EACH_BYTES: usize = 96;

#[derive(Debug, Default)]
pub(super) struct Early {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    bytes: usize,
}

impl Early {
    /// Keeps a copy, if there is room.
    pub(super) fn keep(&mut self, from: SocketAddr, datagram: &[u8]) -> bool {
        let bytes = datagram.len() + EACH_BYTES;
        if !guard!("early_bound", self.bytes + bytes <= MAX_EARLY_BYTES) {
            return false;
        }
        self.bytes += bytes;
        self.datagrams.push_back((from, datagram.to_vec()));
        true
    }

    /// Everything kept, in the order it came; the store is empty afterwards.
    pub(super) fn take_all(&mut self) -> VecDeque<(SocketAddr, Vec<u8>)> {
        self.bytes = 0;
        std::mem::take(&mut self.datagrams)
    }

    /// Memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_in_order_and_the_rest_is_refused() {
        let from = SocketAddr::from(([192, 0, 2, 1], 9));
        let mut early = Early::default();
        let kept = (0..5000_u32)
            .filter(|at| early.keep(from, &[at.to_be_bytes().as_slice(); 368].concat()));
        let kept: Vec<u32> = kept.collect();
        assert!(early.bytes() <= MAX_EARLY_BYTES);
        assert_eq!(kept, (0..kept.len() as u32).collect::<Vec<u32>>());
        assert!(kept.len() > 2500);
        assert_eq!(early.take_all().len(), kept.len());
        assert!(early.keep(from, &[0]));
    }
}
