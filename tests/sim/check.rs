//! What must hold whatever goes wrong, each with a name, and what a run came to.

use std::fmt;
use std::time::Duration;

use super::scenario::{Fault, Scenario};

/// A promise of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Every machine that stays (or comes back) ends complete.
    EveryoneCompletes,
    /// What a machine holds at the end is what was sent, byte for byte.
    ContentIsRight,
    /// Without a hostile insider, no block with wrong bytes ever reaches a sink.
    SinksGetOnlyTruth,
    /// A sink is handed only blocks it wants, each once at a time.
    SinksGetOnlyWhatTheyWant,
    /// A sink that has no room is left alone.
    FullSinksAreLeftAlone,
    /// A machine joins the session whose key it was given, and no other.
    OnlyTheRightSessionIsJoined,
    /// The session ends soon after the last machine is done.
    SessionEnds,
    /// The session does not end while somebody lacks something and says so.
    SessionWaitsForItsMachines,
    /// Data on the wire stays near what loss makes necessary.
    WireIsBounded,
    /// A machine that has most of it does not make the rest flow again.
    ResumeIsCheap,
    /// Reports stay few.
    FeedbackIsSmall,
    /// Whoever has everything learns that the sender knows, and stops.
    DoneIsAcknowledged,
    /// A machine that is on and speaks is not given up.
    NobodyAliveIsGivenUp,
    /// Timers and events do not spin.
    NothingSpins,
    /// Nothing panics, whatever comes.
    NothingPanics,
}

/// A promise broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// How.
    pub how: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.how)
    }
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Promises broken.
    pub violations: Vec<Violation>,
    /// Time of the room when the session ended.
    pub took: Duration,
    /// Data datagrams of the payload on the wire.
    pub data_datagrams: u64,
    /// Datagrams that carry the payload once.
    pub source_symbols: u64,
    /// Bytes the machines sent.
    pub feedback_bytes: u64,
    /// Bytes the sender sent.
    pub sent_bytes: u64,
    /// Numbers of the machines whose DONE the sender has heard.
    pub done: std::collections::BTreeSet<u64>,
    /// Machines complete at the end.
    pub complete: usize,
    /// Datagrams that carry once what the first machine lacks.
    pub lacking_symbols: u64,
}

impl Outcome {
    pub(super) fn broken(&mut self, check: Check, how: impl Into<String>) {
        // One broken promise often breaks a thousand times: the first ones tell the story.
        if self.violations.len() < 20 {
            self.violations.push(Violation {
                check,
                how: how.into(),
            });
        }
    }

    /// Compares what flowed with what had to flow.
    pub(super) fn weigh(&mut self, scenario: &Scenario) {
        let has = |fault| scenario.faults.contains(&fault);
        let only = |allowed: &[Fault]| scenario.faults.iter().all(|fault| allowed.contains(fault));
        let blocks = scenario.blocks.len() as f64;
        let sent = self.data_datagrams as f64;
        if only(&[Fault::Loss, Fault::Duplicate]) {
            // The expected maximum, with room for small blocks, where chance weighs more.
            let bound = necessary(scenario) * 1.15 + 12.0 * blocks;
            if sent > bound {
                self.broken(
                    Check::WireIsBounded,
                    format!("{sent} datagrams, {bound:.0} allowed"),
                );
            }
        } else if !(has(Fault::SlowDisk) || has(Fault::BadReadBack) || scenario.attacks > 0) {
            let visits = scenario.machines.iter().map(|m| {
                u32::from(m.on_at > Duration::from_millis(50)) + u32::from(m.off_at.is_some())
            });
            let bound =
                necessary(scenario) * f64::from(2 + visits.sum::<u32>()) * 1.5 + 80.0 * blocks;
            if sent > bound {
                self.broken(
                    Check::WireIsBounded,
                    format!("{sent} datagrams, {bound:.0} allowed"),
                );
            }
        }
        let alone = scenario.machines.len() == 1 && scenario.wait_for > 0;
        if alone && only(&[Fault::HalfDone, Fault::Duplicate]) {
            let bound = self.lacking_symbols as f64 * 1.1 + 2.0;
            if sent > bound {
                self.broken(
                    Check::ResumeIsCheap,
                    format!("{sent} datagrams, {bound:.0} allowed"),
                );
            }
        }
        let machines = scenario.machines.len() as u64;
        let seconds = self.took.as_secs() + 1;
        let allowed = self.sent_bytes / 20 + machines * (2000 + 400 * seconds);
        if self.feedback_bytes > allowed && !scenario.attacks > 0 {
            let how = format!("{} bytes, {allowed} allowed", self.feedback_bytes);
            self.broken(Check::FeedbackIsSmall, how);
        }
    }

    /// Whether `check` was broken.
    pub fn breaks(&self, check: Check) -> bool {
        self.violations
            .iter()
            .any(|violation| violation.check == check)
    }

    /// All violations, one a line.
    pub fn story(&self) -> String {
        let lines: Vec<String> = self.violations.iter().map(Violation::to_string).collect();
        lines.join("\n")
    }
}

/// Datagrams that are necessary for the whole room: for each block the expected maximum over its
/// machines of what must be sent until k arrive (as DESIGN's limit, at the worst port's loss).
fn necessary(scenario: &Scenario) -> f64 {
    let loss = scenario
        .machines
        .iter()
        .map(|m| 1.0 - (1.0 - m.loss) * (1.0 - m.bursts / 2.0))
        .fold(0.0, f64::max);
    let arrives = (1.0 - loss) * (1.0 - scenario.shared_loss) * (1.0 - scenario.corrupt);
    let symbol = u32::from(scenario.symbol_bytes);
    let symbols = scenario.blocks.iter().map(|bytes| bytes.div_ceil(symbol));
    symbols
        .map(|k| expected_max(scenario.machines.len() as i32, 1.0 - arrives, k))
        .sum()
}

/// Expected number of datagrams to send until each of `machines` has got `k` of them, when each loses
/// independently with probability `loss`: the mean of the largest of negative binomial variables.
pub fn expected_max(machines: i32, loss: f64, k: u32) -> f64 {
    if loss <= 0.0 {
        return f64::from(k);
    }
    let (mut reached, mut sent, mut mean) = (0.0f64, k, f64::from(k));
    let mut log_p = f64::from(k) * (1.0 - loss).ln();
    loop {
        reached += log_p.exp();
        let not_all = 1.0 - reached.min(1.0).powi(machines);
        mean += not_all;
        if not_all < 1e-9 {
            return mean;
        }
        sent += 1;
        log_p += loss.ln() + f64::from(sent - 1).ln() - f64::from(sent - k).ln();
    }
}

#[cfg(test)]
mod tests {
    use super::expected_max;

    #[test]
    fn the_necessary_number_is_that_of_the_textbook() {
        // One machine, any k: k / (1 - p).
        for (loss, k) in [(0.01, 1), (0.05, 10), (0.2, 1000)] {
            let mean = expected_max(1, loss, k);
            let limit = f64::from(k) / (1.0 - loss);
            assert!((mean / limit - 1.0).abs() < 1e-6, "{mean} {limit}");
        }
        // k = 1: the maximum of geometric variables, here 1 + sum of 1-(1-p^i)^n by hand.
        let by_hand: f64 = 1.0
            + (1..200)
                .map(|i| 1.0 - (1.0 - 0.1f64.powi(i)).powi(8))
                .sum::<f64>();
        assert!((expected_max(8, 0.1, 1) - by_hand).abs() < 1e-6);
    }
}
