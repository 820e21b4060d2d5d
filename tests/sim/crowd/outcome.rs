//! What a crowd came to.

use std::time::Duration;

/// Counted over a whole run.
#[derive(Clone, Debug, Default)]
pub struct CrowdOutcome {
    /// From the first symbol of the payload until each machine had everything; `None` for those that never had.
    pub complete_after: Vec<Option<Duration>>,
    /// From the same moment until the session was over.
    pub over_after: Option<Duration>,
    /// Symbols that carry preamble and payload once.
    pub source_symbols: u64,
    /// Symbols sent.
    pub sent_symbols: u64,
    /// Blocks of the preamble and the payload, by their number of symbols: how many, and how long.
    pub blocks: Vec<(u32, u16)>,
    /// Bytes the sender put on the wire until the last machine was complete, Ethernet headers included.
    pub sent_bytes: u64,
    /// The rate, in bits per second, at the end of each tenth of a second since that first symbol.
    pub rates: Vec<u64>,
    /// Announces.
    pub announces: u64,
    /// Reports of all machines, and their bytes on the wire with Ethernet headers.
    pub reports: u64,
    /// See [`CrowdOutcome::reports`].
    pub report_bytes: u64,
    /// Bytes of the reports between the first symbol of the payload and the last machine's completion.
    pub flow_report_bytes: u64,
    /// Machines the sender heard DONE of.
    pub done: usize,
    /// Machines given up as silent.
    pub lost: usize,
}

impl CrowdOutcome {
    /// Machines that ended complete.
    pub fn complete(&self) -> usize {
        self.complete_after.iter().flatten().count()
    }

    /// When the last machine was complete; `None` when one never was.
    pub fn last(&self) -> Option<Duration> {
        self.last_of(self.complete_after.len())
    }

    /// When the last of the first `machines` was complete; `None` when one never was.
    pub fn last_of(&self, machines: usize) -> Option<Duration> {
        let all = self.complete_after.iter().take(machines).copied();
        all.collect::<Option<Vec<Duration>>>()?.into_iter().max()
    }

    /// Mean of the rate in the second half of the time until the last machine was complete, in bits per second.
    pub fn settled_rate(&self) -> f64 {
        let end = self
            .last()
            .map_or(self.rates.len(), |last| last.as_millis() as usize / 100);
        let half = &self.rates[..end.min(self.rates.len())];
        let half = &half[half.len() / 2..];
        half.iter().sum::<u64>() as f64 / half.len().max(1) as f64
    }

    /// Symbols sent for each source symbol.
    pub fn wire_ratio(&self) -> f64 {
        self.sent_symbols as f64 / self.source_symbols as f64
    }

    /// Bytes of reports for each byte sent, from the first symbol of the payload to the last machine's completion.
    pub fn feedback_ratio(&self) -> f64 {
        self.flow_report_bytes as f64 / self.sent_bytes as f64
    }
}
