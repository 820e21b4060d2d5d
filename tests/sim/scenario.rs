//! What happens in a run: the room, its payload, and what goes wrong, all from one seed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chance::Chance;

/// A kind of bad day. A scenario may have several at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Datagrams vanish independently, up to 20 %.
    Loss,
    /// Datagrams vanish in bursts (Gilbert-Elliott).
    BurstLoss,
    /// A switch drops a datagram for everybody at once.
    SharedLoss,
    /// Reports of the machines vanish, up to 30 %.
    ReportLoss,
    /// Datagrams overtake each other.
    Reorder,
    /// Datagrams come twice.
    Duplicate,
    /// Bits flip on the way.
    Corrupt,
    /// Noise, damaged and recorded datagrams of somebody who does not know our formats.
    Forge,
    /// Well-formed datagrams with wrong content, by somebody who does; in a sealed session by one who has its key.
    Hostile,
    /// Another session on the same group, of another sender and another image.
    ForeignSession,
    /// A machine comes when the session is under way.
    LateJoin,
    /// A machine is switched off and comes back; what is on its disk stays.
    Reboot,
    /// A machine goes for good.
    Vanish,
    /// A disk is slower than the network.
    SlowDisk,
    /// The disk takes a block and reads it back wrong.
    BadReadBack,
    /// The disk holds some of the blocks already.
    HalfDone,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 16] = [
        Fault::Loss,
        Fault::BurstLoss,
        Fault::SharedLoss,
        Fault::ReportLoss,
        Fault::Reorder,
        Fault::Duplicate,
        Fault::Corrupt,
        Fault::Forge,
        Fault::Hostile,
        Fault::ForeignSession,
        Fault::LateJoin,
        Fault::Reboot,
        Fault::Vanish,
        Fault::SlowDisk,
        Fault::BadReadBack,
        Fault::HalfDone,
    ];
}

/// What one machine goes through.
#[derive(Clone, Debug)]
pub struct MachinePlan {
    /// When it is switched on.
    pub on_at: Duration,
    /// Goes off when it holds this part of the blocks, for so long; `None` is for good.
    pub off_at: Option<(f64, Option<Duration>)>,
    /// Loss on its port, 0 to 1.
    pub loss: f64,
    /// Part of the time its port is in a bad state, in which half of all datagrams vanish.
    pub bursts: f64,
    /// Bytes its disk takes a second.
    pub disk_bytes_per_second: u64,
    /// Part of the blocks that read back wrong once.
    pub bad_read_back: f64,
    /// Part of the blocks that are on the disk from the start.
    pub half_done: f64,
    /// Time its survey takes.
    pub survey: Duration,
}

/// A whole run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it came from.
    pub seed: u64,
    /// What goes wrong.
    pub faults: BTreeSet<Fault>,
    /// Everything is sealed; whoever knows our formats then also has the key of the session, and a machine's own.
    pub sealed: bool,
    /// The room.
    pub machines: Vec<MachinePlan>,
    /// Payload bytes of each block.
    pub blocks: Vec<u32>,
    /// Bytes of the preamble.
    pub preamble_bytes: usize,
    /// Payload bytes of a datagram.
    pub symbol_bytes: u16,
    /// Pace, in bits per second.
    pub rate_bits: u64,
    /// Machines the sender waits for.
    pub wait_for: u32,
    /// Part of the reports that vanish.
    pub report_loss: f64,
    /// Part of the datagrams that vanish for everybody.
    pub shared_loss: f64,
    /// Part of the datagrams that are late.
    pub reorder: f64,
    /// Part of the datagrams that come twice.
    pub duplicate: f64,
    /// Part of the datagrams that arrive damaged.
    pub corrupt: f64,
    /// Hostile datagrams in all; they stop at some time, or nobody could ever be done.
    pub attacks: u32,
}

impl Scenario {
    /// The scenario of `seed`: mostly small rooms, half of them sealed, each fault in about a third of the runs.
    pub fn from_seed(seed: u64) -> Scenario {
        let mut chance = Chance::new(seed).fork(1);
        let faults = Fault::ALL.into_iter().filter(|_| chance.hit(0.3)).collect();
        let machines = match chance.range(0, 9) {
            0 => 1,
            1..=7 => chance.range(2, 12),
            8 => chance.range(13, 40),
            _ => chance.range(41, 100),
        };
        Scenario {
            sealed: Chance::new(seed).fork(9).hit(0.5),
            ..Scenario::draw(seed, machines as usize, faults, chance)
        }
    }

    /// A room of `machines` in which only `faults` happen.
    pub fn with(seed: u64, machines: usize, faults: &[Fault]) -> Scenario {
        let chance = Chance::new(seed).fork(2);
        Scenario::draw(seed, machines, faults.iter().copied().collect(), chance)
    }

    fn draw(seed: u64, machines: usize, faults: BTreeSet<Fault>, mut chance: Chance) -> Scenario {
        let symbol_bytes = 512 + 2 * chance.range(0, 120) as u16;
        // Large rooms get small payloads: the work is machines times symbols.
        let largest = if machines > 12 { 40 } else { 160 };
        let count = chance.range(1, if machines > 12 { 4 } else { 9 });
        let blocks = (0..count)
            .map(|_| {
                let bytes = (chance.range(1, largest) * u64::from(symbol_bytes)) as u32;
                bytes - (chance.range(0, 300) as u32).min(bytes - 1)
            })
            .collect();
        let has = |fault| faults.contains(&fault);
        let part = |chance: &mut Chance, fault, low: u64, high: u64| {
            let per_mille = chance.range(low, high);
            if has(fault) {
                per_mille as f64 / 1000.0
            } else {
                0.0
            }
        };
        let mut scenario = Scenario {
            seed,
            sealed: false,
            machines: Vec::new(),
            blocks,
            preamble_bytes: chance.range(1, 5000) as usize,
            symbol_bytes,
            rate_bits: chance.range(2, 16) * 1_000_000,
            wait_for: chance.range(0, machines as u64) as u32,
            report_loss: part(&mut chance, Fault::ReportLoss, 10, 300),
            shared_loss: part(&mut chance, Fault::SharedLoss, 1, 50),
            reorder: part(&mut chance, Fault::Reorder, 1, 200),
            duplicate: part(&mut chance, Fault::Duplicate, 1, 200),
            corrupt: part(&mut chance, Fault::Corrupt, 1, 50),
            attacks: 0,
            faults: faults.clone(),
        };
        if has(Fault::Forge) || has(Fault::Hostile) || has(Fault::ForeignSession) {
            scenario.attacks = chance.range(20, 400) as u32;
        }
        // At least one machine goes through what the scenario is about.
        let chosen = chance.range(0, machines as u64 - 1) as usize;
        for index in 0..machines {
            let plan = scenario.machine(&mut chance, index == chosen);
            scenario.machines.push(plan);
        }
        scenario
    }

    fn machine(&self, chance: &mut Chance, chosen: bool) -> MachinePlan {
        let mut struck = |fault, p: f64| self.faults.contains(&fault) && (chosen | chance.hit(p));
        let late = struck(Fault::LateJoin, 0.2);
        let reboots = struck(Fault::Reboot, 0.1);
        let vanishes = struck(Fault::Vanish, 0.1) && !reboots;
        let (lossy, bursty) = (struck(Fault::Loss, 0.8), struck(Fault::BurstLoss, 0.5));
        let (slow, bad) = (
            struck(Fault::SlowDisk, 0.2),
            struck(Fault::BadReadBack, 0.2),
        );
        let half_done = struck(Fault::HalfDone, 0.3);
        let per_mille = |chance: &mut Chance, on: bool, low, high| {
            let drawn = chance.range(low, high) as f64 / 1000.0;
            if on { drawn } else { 0.0 }
        };
        let off_part = chance.range(0, 950) as f64 / 1000.0;
        let back_in = Duration::from_millis(chance.range(1, 4000));
        let on_at = if late {
            chance.range(100, 4000)
        } else {
            chance.range(0, 50)
        };
        MachinePlan {
            on_at: Duration::from_millis(on_at),
            off_at: if reboots {
                Some((off_part, Some(back_in)))
            } else {
                vanishes.then_some((off_part, None))
            },
            loss: per_mille(chance, lossy, 1, 200),
            bursts: per_mille(chance, bursty, 10, 200),
            disk_bytes_per_second: if slow {
                chance.range(40_000, 200_000)
            } else {
                1 << 30
            },
            bad_read_back: per_mille(chance, bad, 50, 400),
            half_done: per_mille(chance, half_done, 0, 1000),
            survey: Duration::from_millis(chance.range(0, 300)),
        }
    }

    /// Datagrams that carry the payload once.
    pub fn source_symbols(&self) -> u64 {
        let symbol = u64::from(self.symbol_bytes);
        self.blocks
            .iter()
            .map(|&bytes| u64::from(bytes).div_ceil(symbol))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Scenario};

    #[test]
    fn a_scenario_is_a_function_of_its_seed() {
        let text = |seed| format!("{:?}", Scenario::from_seed(seed));
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }

    #[test]
    fn only_what_was_asked_for_goes_wrong() {
        for seed in 0..50 {
            let quiet = Scenario::with(seed, 20, &[]);
            assert_eq!((quiet.attacks, quiet.corrupt), (0, 0.0));
            assert!(
                quiet
                    .machines
                    .iter()
                    .all(|m| m.loss == 0.0 && m.off_at.is_none())
            );
            let reboot = Scenario::with(seed, 3, &[Fault::Reboot]);
            assert!(
                reboot
                    .machines
                    .iter()
                    .any(|m| matches!(m.off_at, Some((_, Some(_)))))
            );
        }
    }
}
