//! The roll of a room, kept in step with every report: who was heard when, how many are ready, and how the losses are
//! spread. A report costs a few steps here however many machines there are.

use std::collections::BTreeSet;

use crate::clock::Instant;

use super::normal::quantile;

/// Losses are sorted into so many drawers, narrower for small losses.
const DRAWERS: usize = 512;
/// Machines that must have been measured before the loss of a room is known; a tenth of a small one.
const MEASURED_MIN: usize = 10;

/// How a machine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// It is here and not done.
    pub(super) active: bool,
    /// It is here and knows what it lacks, or is done.
    pub(super) ready: bool,
    /// When it was heard last.
    pub(super) heard: Instant,
    /// Its loss, and over how many datagrams it was measured.
    pub(super) loss: Option<(f32, u32)>,
}

#[derive(Debug)]
pub(super) struct Roll {
    active: BTreeSet<(Instant, u64)>,
    past: BTreeSet<(Instant, u64)>,
    ready: usize,
    /// Machines here that cannot say yet what they lack.
    awaited: usize,
    drawers: Vec<u32>,
    measured: usize,
    /// Datagrams over which all those losses were measured together.
    weight: u64,
}

impl Default for Roll {
    fn default() -> Roll {
        Roll {
            active: BTreeSet::new(),
            past: BTreeSet::new(),
            ready: 0,
            awaited: 0,
            drawers: vec![0; DRAWERS],
            measured: 0,
            weight: 0,
        }
    }
}

impl Roll {
    /// Machine `id` counts like `after` and no longer like `before`.
    pub(super) fn change(&mut self, id: u64, before: Option<Standing>, after: Option<Standing>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.list(&before).remove(&(before.heard, id));
            self.ready -= usize::from(before.ready);
            self.awaited -= usize::from(before.active && !before.ready);
            if let Some((loss, weight)) = before.loss.filter(|_| before.active) {
                self.drawers[drawer(loss)] -= 1;
                self.measured -= 1;
                self.weight -= u64::from(weight);
            }
        }
        if let Some(after) = after {
            self.list(&after).insert((after.heard, id));
            self.ready += usize::from(after.ready);
            self.awaited += usize::from(after.active && !after.ready);
            if let Some((loss, weight)) = after.loss.filter(|_| after.active) {
                self.drawers[drawer(loss)] += 1;
                self.measured += 1;
                self.weight += u64::from(weight);
            }
        }
    }

    fn list(&mut self, standing: &Standing) -> &mut BTreeSet<(Instant, u64)> {
        if standing.active {
            &mut self.active
        } else {
            &mut self.past
        }
    }

    /// Machines that are here and not done.
    pub(super) fn active(&self) -> usize {
        self.active.len()
    }

    /// Machines that know what they lack, the done ones included.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Machines here that cannot say yet what they lack.
    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    /// The machine here that was heard longest ago, and when.
    pub(super) fn most_silent(&self) -> Option<(Instant, u64)> {
        self.active.first().copied()
    }

    /// The machine that is done or gone for longest.
    pub(super) fn oldest_past(&self) -> Option<u64> {
        self.past.first().map(|&(_, id)| id)
    }

    /// The loss that `percent` of the machines here do not exceed, 0 to 1, less what chance alone puts between the
    /// machine in the middle and that one. Machines that were not measured yet are taken for machines of the middle.
    /// `None` as long as so few are measured that the first to complain would pass for the room.
    pub(super) fn loss(&self, percent: usize) -> Option<f32> {
        if self.measured == 0 || self.measured * 10 < self.active.len().min(MEASURED_MIN * 10) {
            return None;
        }
        let above =
            self.active.len() - 1 - (self.active.len() * percent / 100).min(self.active.len() - 1);
        let middle = (self.measured - 1) / 2;
        let rank = (self.measured - 1).saturating_sub(above).max(middle);
        let (high, middle) = (self.ranked(rank), self.ranked(middle));
        let mean_weight = (self.weight / self.measured as u64).max(1) as f32;
        let spread = (high * (1.0 - high) / mean_weight).sqrt();
        let luck = quantile((rank as f32 + 0.5) / self.measured as f32).max(0.0) * spread;
        Some((high - luck).max(middle.min(high)))
    }

    /// The loss of the machine that `rank` machines lose less than.
    fn ranked(&self, rank: usize) -> f32 {
        let mut below = 0;
        let found = self.drawers.iter().position(|&count| {
            below += count as usize;
            below > rank
        });
        loss_of(found.unwrap_or(0))
    }
}

fn drawer(loss: f32) -> usize {
    let root = loss.clamp(0.0, 1.0).sqrt();
    ((root * DRAWERS as f32) as usize).min(DRAWERS - 1)
}

/// The middle of a drawer; no loss at all is exactly none.
fn loss_of(drawer: usize) -> f32 {
    if drawer == 0 {
        return 0.0;
    }
    ((drawer as f32 + 0.5) / DRAWERS as f32).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(heard: u64, loss: f32) -> Option<Standing> {
        Some(Standing {
            active: true,
            ready: true,
            heard: Instant::from_micros(heard),
            loss: Some((loss, 1 << 20)),
        })
    }

    #[test]
    fn whoever_leaves_the_roll_leaves_no_trace() {
        let mut roll = Roll::default();
        (0..100).for_each(|id| roll.change(id, None, standing(id, id as f32 / 1000.0)));
        let past = Standing {
            active: false,
            ..standing(7, 0.0).unwrap()
        };
        roll.change(7, standing(7, 0.007), Some(past));
        assert_eq!((roll.active(), roll.ready()), (99, 100));
        assert_eq!(roll.oldest_past(), Some(7));
        (0..100).filter(|&id| id != 7).for_each(|id| {
            assert_eq!(roll.most_silent().map(|(_, id)| id), Some(id));
            roll.change(id, standing(id, id as f32 / 1000.0), None);
        });
        roll.change(7, Some(past), None);
        assert_eq!((roll.active(), roll.ready(), roll.measured), (0, 0, 0));
        assert!(roll.drawers.iter().all(|&count| count == 0) && roll.weight == 0);
    }

    #[test]
    fn the_percentile_is_that_of_the_sorted_losses() {
        let mut roll = Roll::default();
        (0..200).for_each(|id| roll.change(id, None, standing(id, id as f32 / 1000.0)));
        for percent in [50, 90, 99] {
            let sorted = percent as f32 * 2.0 / 1000.0;
            let found = roll.loss(percent).unwrap();
            assert!((found - sorted).abs() < 0.003, "{percent}: {found}");
        }
        assert_eq!(Roll::default().loss(90), None);
    }

    #[test]
    fn the_first_to_complain_does_not_pass_for_the_room() {
        let mut roll = Roll::default();
        let unmeasured = Standing {
            loss: None,
            ..standing(0, 0.0).unwrap()
        };
        (1..100).for_each(|id| roll.change(id, None, Some(unmeasured)));
        roll.change(0, None, standing(0, 0.3));
        assert_eq!(roll.loss(90), None);
        (1..10).for_each(|id| roll.change(id, Some(unmeasured), standing(0, 0.01)));
        assert!((roll.loss(90).unwrap() - 0.01).abs() < 0.002);
    }

    #[test]
    fn luck_is_not_taken_for_loss() {
        // Losses spread as 400 datagrams at 5 % spread them.
        let mut roll = Roll::default();
        for id in 0..999 {
            let z = quantile((id as f32 + 0.5) / 999.0);
            let loss = 0.05 + z * (0.05_f32 * 0.95 / 400.0).sqrt();
            let standing = Standing {
                loss: Some((loss, 400)),
                ..standing(id, 0.0).unwrap()
            };
            roll.change(id, None, Some(standing));
        }
        let loss = roll.loss(90).unwrap();
        assert!((loss - 0.05).abs() < 0.003, "{loss}");
    }
}
