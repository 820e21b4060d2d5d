//! One room of equal machines, beside what no protocol can do better.

use std::fmt;
use std::time::{Duration, Instant};

use tests::sim::{Crowd, CrowdOutcome, expected_max, play};

/// What a room came to.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) machines: usize,
    pub(crate) loss: f64,
    /// Symbols sent for each source symbol.
    pub(crate) wire: f64,
    /// The expected maximum over the machines of what must be sent, for each source symbol.
    pub(crate) least: f64,
    /// When the last machine had everything; `None` when one never had.
    pub(crate) last: Option<Duration>,
    /// Bytes of reports for each byte sent.
    pub(crate) feedback: f64,
    /// Reports of each machine over the whole session, joining and leaving included.
    pub(crate) reports: f64,
    /// Processor time it took to play.
    pub(crate) cost: Duration,
}

impl Cell {
    /// Plays a room in which everybody loses the part `loss`.
    pub(crate) fn measure(machines: usize, loss: f64, blocks: u32) -> Cell {
        let begin = Instant::now();
        let outcome = play(&Crowd::uniform(1, machines, loss).with_blocks(blocks));
        Cell {
            machines,
            loss,
            wire: outcome.wire_ratio(),
            least: least(&outcome, machines, loss),
            last: outcome.last(),
            feedback: outcome.feedback_ratio(),
            reports: outcome.reports as f64 / machines as f64,
            cost: begin.elapsed(),
        }
    }

    /// How much more is sent than must be expected.
    pub(crate) fn excess(&self) -> f64 {
        self.wire / self.least
    }
}

/// Symbols that must be expected to be sent for each source symbol, whoever sends them.
fn least(outcome: &CrowdOutcome, machines: usize, loss: f64) -> f64 {
    let expected = |&(count, symbols): &(u32, u16)| {
        f64::from(count) * expected_max(machines as i32, loss, u32::from(symbols))
    };
    outcome.blocks.iter().map(expected).sum::<f64>() / outcome.source_symbols as f64
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} machines, loss {}: {:.4} sent, {:.4} of {:.4}; last after {:.3?}; feedback {:.3} %; played in {:.1?}",
            self.machines,
            self.loss,
            self.wire,
            self.excess(),
            self.least,
            self.last,
            100.0 * self.feedback,
            self.cost
        )
    }
}
