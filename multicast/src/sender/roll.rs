//! The roll of a room, kept in step with every report: who was heard when, how many are ready, and how the losses are
//! spread. A report costs a few steps here however many machines there are.

use std::collections::BTreeSet;

use crate::clock::Instant;

use super::normal::quantile;
use super::room;

/// Losses are sorted into so many drawers, narrower for small losses.
const DRAWERS: usize = 512;
/// Machines that must have been measured before the loss of a room is known; more than half of a small one.
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
    awaited: BTreeSet<u64>,
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
            awaited: BTreeSet::new(),
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
            self.awaited.remove(&id);
            if let Some((loss, weight)) = before.loss.filter(|_| before.active) {
                self.drawers[drawer(loss)] -= 1;
                self.measured -= 1;
                self.weight -= u64::from(weight);
            }
        }
        if let Some(after) = after {
            self.list(&after).insert((after.heard, id));
            self.ready += usize::from(after.ready);
            if after.active && !after.ready {
                self.awaited.insert(id);
            }
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
    pub(super) fn awaited(&self) -> impl Iterator<Item = u64> {
        self.awaited.iter().copied()
    }

    /// The machine here that was heard longest ago, and when.
    pub(super) fn most_silent(&self) -> Option<(Instant, u64)> {
        self.active.first().copied()
    }

    /// The machine that is done or gone for longest.
    pub(super) fn oldest_past(&self) -> Option<u64> {
        self.past.first().map(|&(_, id)| id)
    }

    /// The loss of the machine that stands for those here (see [`room`]), 0 to 1, less what chance alone puts between
    /// the machine in the middle and that one. Machines that were not measured yet are taken for machines of the
    /// middle. `None` as long as so few are measured that the first to complain would pass for the room.
    pub(super) fn loss(&self) -> Option<f32> {
        let machines = self.active.len();
        if machines == 0 || self.measured < (machines / 2 + 1).min(MEASURED_MIN) {
            return None;
        }
        let above = machines - 1 - room::place(machines);
        let middle = (self.measured - 1) / 2;
        let usual = self.ranked(middle);
        let borne = self.within(room::bearable(usual));
        let rank = (self.measured - 1).saturating_sub(above);
        let rank = rank.min(borne.saturating_sub(1)).max(middle);
        let high = self.ranked(rank);
        let mean_weight = (self.weight / self.measured as u64).max(1) as f32;
        let spread = (high * (1.0 - high) / mean_weight).sqrt();
        let luck = quantile((rank as f32 + 0.5) / self.measured as f32).max(0.0) * spread;
        Some((high - luck).max(usual.min(high)))
    }

    /// How many machines lose no more than this.
    fn within(&self, loss: f32) -> usize {
        let drawers = &self.drawers[..=drawer(loss)];
        drawers.iter().map(|&count| count as usize).sum()
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

    /// The loss of a room whose machines lose these parts.
    fn loss_of_room(losses: &[f32]) -> Option<f32> {
        let mut roll = Roll::default();
        for (id, &loss) in losses.iter().enumerate() {
            roll.change(id as u64, None, standing(id as u64, loss));
        }
        roll.loss()
    }

    #[test]
    fn the_percentile_is_that_of_the_sorted_losses() {
        let losses: Vec<f32> = (0..200).map(|id| id as f32 / 1000.0).collect();
        let found = loss_of_room(&losses).unwrap();
        assert!((found - 0.179).abs() < 0.003, "{found}");
        assert_eq!(loss_of_room(&[]), None);
    }

    #[test]
    fn a_machine_that_is_nearly_cut_off_is_no_room() {
        for others in 1..12 {
            for cut_off in [0.3, 0.9, 0.999] {
                let mut losses = vec![0.01; others];
                losses.push(cut_off);
                let found = loss_of_room(&losses).unwrap();
                assert!((found - 0.01).abs() < 0.002, "{others} and one: {found}");
            }
        }
        assert!(loss_of_room(&[0.999]).unwrap() > 0.99);
        // Nor are two of eight, or half of four.
        let (few, half) = (
            [0.01, 0.01, 0.99, 0.99],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9, 0.9],
        );
        assert!(loss_of_room(&few).unwrap() < 0.02 && loss_of_room(&half).unwrap() == 0.0);
    }

    #[test]
    fn half_of_a_room_that_loses_is_the_room() {
        for losses in [&[0.0, 0.0, 0.2, 0.2][..], &[0.0, 0.2, 0.2]] {
            let found = loss_of_room(losses).unwrap();
            assert!((found - 0.2).abs() < 0.01, "{losses:?}: {found}");
        }
    }

    #[test]
    fn the_first_to_complain_does_not_pass_for_the_room() {
        let unmeasured = Standing {
            loss: None,
            ..standing(0, 0.0).unwrap()
        };
        for (machines, enough) in [(2, 2), (3, 2), (8, 5), (100, 10)] {
            let mut roll = Roll::default();
            (0..machines).for_each(|id| roll.change(id, None, Some(unmeasured)));
            roll.change(0, Some(unmeasured), standing(0, 0.3));
            for id in 1..enough {
                assert_eq!(roll.loss(), None, "{id} of {machines}");
                roll.change(id, Some(unmeasured), standing(0, 0.01));
            }
            assert!((roll.loss().unwrap() - 0.01).abs() < 0.002, "{machines}");
        }
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
        let loss = roll.loss().unwrap();
        assert!((loss - 0.05).abs() < 0.003, "{loss}");
    }
}
