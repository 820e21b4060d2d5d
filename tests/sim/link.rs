//! What happens to a datagram on its way to one machine.

use std::time::Duration;

use super::chance::Chance;
use super::scenario::{MachinePlan, Scenario};

/// A switch port: it loses, delays, doubles and damages.
pub(super) struct Link {
    chance: Chance,
    loss: f64,
    bursts: f64,
    in_burst: bool,
    reorder: f64,
    duplicate: f64,
    corrupt: f64,
}

/// Mean length of a burst, in datagrams.
const BURST: f64 = 12.0;

impl Link {
    /// The port of a machine; `loss` of the reports for its way back.
    pub(super) fn new(scenario: &Scenario, loss: f64, plan: &MachinePlan, chance: Chance) -> Link {
        Link {
            chance,
            loss,
            bursts: plan.bursts,
            in_burst: false,
            reorder: scenario.reorder,
            duplicate: scenario.duplicate,
            corrupt: scenario.corrupt,
        }
    }

    /// The copies that arrive, each with its delay.
    pub(super) fn carry(&mut self, datagram: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        let mut copies = Vec::new();
        let count = if self.chance.hit(self.duplicate) {
            2
        } else {
            1
        };
        for _ in 0..count {
            if self.drops() {
                continue;
            }
            let mut bytes = datagram.to_vec();
            if self.chance.hit(self.corrupt) {
                self.damage(&mut bytes);
            }
            let late = self.chance.hit(self.reorder);
            let micros = self.chance.range(50, 150)
                + if late {
                    self.chance.range(0, 40_000)
                } else {
                    0
                };
            copies.push((Duration::from_micros(micros), bytes));
        }
        copies
    }

    fn drops(&mut self) -> bool {
        if self.bursts > 0.0 {
            let leave = 1.0 / BURST;
            let enter = leave * self.bursts / (1.0 - self.bursts);
            let turns = self.chance.hit(if self.in_burst { leave } else { enter });
            self.in_burst ^= turns;
            if self.in_burst && self.chance.hit(0.5) {
                return true;
            }
        }
        self.chance.hit(self.loss)
    }

    /// One to three flipped bits, sometimes a cut.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.chance.range(1, 3) {
            let at = self.chance.range(0, bytes.len() as u64 - 1) as usize;
            bytes[at] ^= 1 << self.chance.range(0, 7);
        }
        if self.chance.hit(0.1) {
            bytes.truncate(self.chance.range(0, bytes.len() as u64) as usize);
        }
    }
}
