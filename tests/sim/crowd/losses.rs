//! Which datagrams of a slot a port loses: as a set of bits, drawn loss by loss rather than datagram by datagram.

use super::super::chance::Chance;

/// Datagrams of one slot, at most: one bit each.
pub(super) const SLOT_DATAGRAMS: u32 = 64;
/// Mean length of a burst, in datagrams.
const BURST: f64 = 12.0;

/// A port that loses independently, and now and then falls into a state in which it loses every second datagram
/// (Gilbert-Elliott).
#[derive(Debug)]
pub(super) struct Losses {
    chance: Chance,
    loss: f64,
    /// Datagrams that pass before the next one is lost.
    pass: u32,
    bursts: f64,
    in_burst: bool,
    /// Datagrams for which the state stays as it is.
    stay: u32,
}

impl Losses {
    /// `loss` of all datagrams vanish by themselves; for the part `bursts` of the time the port is bad.
    pub(super) fn new(loss: f64, bursts: f64, chance: Chance) -> Losses {
        let mut losses = Losses {
            chance,
            loss,
            pass: 0,
            bursts,
            in_burst: false,
            stay: 0,
        };
        losses.pass = losses.gap(loss);
        losses.stay = losses.sojourn();
        losses
    }

    /// Which of the next `count` datagrams, at most [`SLOT_DATAGRAMS`], are lost.
    pub(super) fn draw(&mut self, count: u32) -> u64 {
        let mut lost = 0;
        while self.pass < count {
            lost |= 1 << self.pass;
            self.pass += 1 + self.gap(self.loss);
        }
        self.pass -= count;
        if self.bursts > 0.0 {
            lost |= self.burst(count);
        }
        lost
    }

    fn burst(&mut self, count: u32) -> u64 {
        let (mut at, mut lost) = (0, 0);
        while at < count {
            let end = count.min(at.saturating_add(self.stay));
            if self.in_burst {
                lost |= below(end) & !below(at) & self.chance.draw();
            }
            self.stay -= end - at;
            if self.stay == 0 {
                self.in_burst ^= true;
                self.stay = self.sojourn();
            }
            at = end;
        }
        lost
    }

    fn sojourn(&mut self) -> u32 {
        if self.bursts <= 0.0 {
            return u32::MAX;
        }
        let leave = 1.0 / BURST;
        let turn = if self.in_burst {
            leave
        } else {
            leave * self.bursts / (1.0 - self.bursts)
        };
        1 + self.gap(turn)
    }

    /// How many times something of probability `p` does not happen before it does.
    fn gap(&mut self, p: f64) -> u32 {
        if p <= 0.0 {
            return u32::MAX / 2;
        }
        let uniform = ((self.chance.draw() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        (uniform.ln() / (1.0 - p).ln()) as u32
    }
}

fn below(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(loss: f64, bursts: f64) -> f64 {
        let mut losses = Losses::new(loss, bursts, Chance::new(9));
        let drawn = (0..20_000).map(|at| losses.draw(at % 50).count_ones());
        f64::from(drawn.sum::<u32>()) / (0..20_000).map(|at| f64::from(at % 50)).sum::<f64>()
    }

    #[test]
    fn a_port_loses_as_much_as_it_is_told() {
        assert_eq!(share(0.0, 0.0), 0.0);
        for loss in [0.001, 0.05, 0.3] {
            let drawn = share(loss, 0.0);
            assert!((drawn / loss - 1.0).abs() < 0.1, "{drawn} for {loss}");
        }
        let drawn = share(0.0, 0.1);
        assert!((0.045..0.055).contains(&drawn), "{drawn} for half of 0.1");
    }
}
