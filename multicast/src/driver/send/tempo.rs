//! The rate a run keeps: what its session takes, no more than its part of the cap, in user space and in the kernel.

use std::time::Duration;

use super::budget::RateShare;
use crate::{driver::pace::Pacer, udp::Endpoint};

/// A session that has sent no data for so long has none, and wants only its announces.
const IDLE: Duration = Duration::from_millis(100);
/// What announces need, in bits per second.
const IDLE_BITS: u64 = 500_000;
/// How much faster than we the kernel may let go: it smooths our bursts, and we keep the rate.
const KERNEL_PERCENT: u64 = 105;

/// The pacer of a run, and who has a say in its rate.
#[derive(Debug)]
pub(super) struct Tempo {
    pub(super) pacer: Pacer,
    share: Option<RateShare>,
    bits: u64,
    /// Data datagrams sent, and when the last of them.
    data: (u64, Duration),
}

impl Tempo {
    pub(super) fn new(share: Option<RateShare>) -> Tempo {
        Tempo {
            pacer: Pacer::new(0),
            share,
            bits: 0,
            data: (0, Duration::ZERO),
        }
    }

    /// From `now` on at most `bits` per second; `data` datagrams with data were sent so far.
    pub(super) fn keep(&mut self, now: Duration, bits: u64, data: u64, endpoint: &Endpoint) {
        if data != self.data.0 {
            self.data = (data, now);
        }
        let idle = now.saturating_sub(self.data.1) >= IDLE;
        let granted = match &mut self.share {
            Some(share) if idle => share.ask(now, bits.min(IDLE_BITS)),
            Some(share) => share.ask(now, bits),
            None => bits,
        };
        if granted != self.bits {
            self.bits = granted;
            self.pacer.set_rate(granted);
            endpoint.limit_pace(granted / 8 * KERNEL_PERCENT / 100);
        }
    }
}
