//! How much repair goes along with the source of a block, before anybody asks.
//!
//! Of k symbols sent, a machine that loses the part p lacks a binomial number; the unluckiest of a room lacks as many
//! as the mean and a few standard deviations. That much goes along, so that a block is mostly complete everywhere
//! after its first pass. How many deviations it takes is learned: losses in bursts take more than the formula says,
//! losses that all machines share take less. A block of which somebody lacks symbols after its pass asks for more of
//! a margin, one that everybody has for less, until about six blocks of ten need another word: repair that is
//! asked for costs nothing but time, which other blocks hide, and what goes along in vain costs the room.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::clock::Instant;

use super::normal::largest_of;

/// Loss for which repair goes along, at most: more is left to those who ask.
const LOSS_MAX: f32 = 0.3;
/// A block that nobody has asked for within this time after its pass counts as complete.
const SILENCE: Duration = Duration::from_millis(120);
/// What is learned of a block that was asked for, and of one that was not, in standard deviations.
const ASKED: f32 = 0.08;
const NOT_ASKED: f32 = 0.12;
/// What is learned of a block that lacked more than `FAR_OFF` deviations.
const ASKED_FAR_OFF: f32 = 0.5;
const FAR_OFF: f32 = 1.5;
/// How far experience may lead away from the formula, in standard deviations.
const LEARNED_MAX: f32 = 6.0;
/// What the last blocks of a session get on top: nothing hides the time that their repair takes.
const LAST: f32 = 0.7;
/// Blocks on trial, at most.
const MAX_TRIALS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Margin {
    loss: f32,
    learned: f32,
    /// Blocks that have passed and may yet be asked for: their standard deviation.
    trials: BTreeMap<u32, f32>,
    passed: VecDeque<(Instant, u32)>,
}

impl Margin {
    /// Expect this share of the datagrams to be lost from now on.
    pub(super) fn expect_loss(&mut self, loss: f32) {
        self.loss = loss.clamp(0.0, LOSS_MAX);
    }

    /// Repair symbols that go along with `symbols` to `machines`; `last` when little comes after them. None at all
    /// when no loss is seen.
    pub(super) fn extra(&self, symbols: u16, machines: u32, last: bool) -> u16 {
        let (mean, deviation) = self.spread(symbols);
        if mean < 0.05 {
            return 0;
        }
        let z = largest_of(machines);
        // The distribution leans to the side of many losses, the more the fewer are expected.
        let lean = (z * z - 1.0).max(0.0) * (1.0 + self.loss) / (6.0 * (1.0 - self.loss));
        let last = if last { LAST } else { 0.0 };
        let extra = mean + lean + (z + self.learned + last) * deviation;
        extra.round().clamp(0.0, f32::from(symbols)) as u16
    }

    /// What it takes to bring `deficit` symbols to a machine that loses some of them as well.
    pub(super) fn with_loss(&self, deficit: u16) -> u16 {
        let more = f32::from(deficit) * self.loss / (1.0 - self.loss);
        deficit.saturating_add(more.round() as u16)
    }

    /// Mean and standard deviation of the symbols to be sent beyond `symbols`.
    fn spread(&self, symbols: u16) -> (f32, f32) {
        let lost = f32::from(symbols) * self.loss;
        (lost / (1.0 - self.loss), lost.sqrt() / (1.0 - self.loss))
    }

    /// The first pass of a block with `symbols` has ended.
    pub(super) fn passed(&mut self, now: Instant, place: u32, symbols: u16) {
        let (mean, deviation) = self.spread(symbols);
        if mean >= 0.05 && self.trials.len() < MAX_TRIALS {
            self.trials.insert(place, deviation);
            self.passed.push_back((now, place));
        }
    }

    /// Somebody who counts lacks `deficit` symbols of a block that may be on trial.
    pub(super) fn asked(&mut self, place: u32, deficit: u16) {
        if let Some(deviation) = self.trials.remove(&place) {
            let short = f32::from(deficit) / deviation.max(1.0);
            self.learn(if short > FAR_OFF {
                ASKED_FAR_OFF
            } else {
                ASKED
            });
        }
    }

    /// Judges the blocks that nobody has asked for.
    pub(super) fn judge(&mut self, now: Instant) {
        while let Some(&(passed, place)) = self.passed.front()
            && now.since(passed) >= SILENCE
        {
            self.passed.pop_front();
            if self.trials.remove(&place).is_some() {
                self.learn(-NOT_ASKED);
            }
        }
    }

    fn learn(&mut self, deviations: f32) {
        self.learned = (self.learned + deviations).clamp(-LEARNED_MAX, LEARNED_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn margin(loss: f32) -> Margin {
        let mut margin = Margin::default();
        margin.expect_loss(loss);
        margin
    }

    #[test]
    fn no_loss_means_no_extra() {
        assert_eq!(margin(0.0).extra(1000, 10_000, true), 0);
    }

    #[test]
    fn the_first_guess_is_the_expected_maximum() {
        // By the formula of negative binomial maxima, k = 1000.
        for (loss, machines, expected) in [
            (0.05, 1, 52.6),
            (0.05, 100, 72.6),
            (0.05, 10_000, 83.9),
            (0.2, 1000, 309.6),
            (0.001, 10_000, 7.4),
        ] {
            let extra = f32::from(margin(loss).extra(1000, machines, false));
            assert!(
                (extra - expected).abs() <= 1.5,
                "{loss} {machines}: {extra}"
            );
        }
    }

    #[test]
    fn a_block_that_was_asked_for_widens_the_margin_and_silence_narrows_it() {
        let mut margin = margin(0.05);
        let first = margin.extra(1000, 100, false);
        for place in 0..10 {
            margin.passed(Instant::ZERO, place, 1000);
            margin.asked(place, 50);
            margin.asked(place, 50);
        }
        let wide = margin.extra(1000, 100, false);
        assert!(wide > first + 30, "{first} {wide}");
        for place in 0..200 {
            margin.passed(Instant::ZERO, place, 1000);
        }
        margin.judge(Instant::ZERO.after(SILENCE));
        assert!(margin.extra(1000, 100, false) < first);
        assert!(margin.trials.is_empty() && margin.passed.is_empty());
    }
}
