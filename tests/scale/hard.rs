//! Rooms in which not everything is alike: who waits for whom, and what it costs.

use std::fmt;
use std::time::Duration;

use tests::sim::{Crowd, CrowdOutcome, Seat, play};

/// One room, and what it came to.
#[derive(Clone, Debug)]
pub(crate) struct Day {
    pub(crate) what: String,
    pub(crate) machines: usize,
    pub(crate) complete: usize,
    pub(crate) wire: f64,
    pub(crate) feedback: f64,
    /// When half, 95 of 100, and all of the machines had everything.
    pub(crate) times: [Option<Duration>; 3],
}

impl Day {
    /// All of them, one after the other, for the largest rooms of `machines`.
    pub(crate) fn all(machines: &[usize], blocks: u32) -> impl Iterator<Item = Day> {
        let many = machines.iter().copied().max().unwrap_or(100).min(1000);
        let uniform = move |machines| Crowd::uniform(5, machines, 0.01).with_blocks(blocks);
        // Real symbols, so that the memory of the slow one fills as it would.
        let real = Crowd {
            symbol_bytes: 1452,
            ..uniform(98)
        };
        let days: Vec<(&str, Crowd)> = vec![
            ("98 machines, 1 % loss", real.clone()),
            (
                "the same and one with 30 % loss, one with a disk of a tenth of the rate",
                with_two_laggards(real),
            ),
            (
                "bursts: 10 % of the time half of all datagrams lost",
                every_seat(uniform(many), |seat| {
                    (seat.loss, seat.bursts) = (0.0, 0.1);
                }),
            ),
            (
                "switches of 48 ports that lose 3 % for all behind them, ports 0.2 %",
                Crowd {
                    switches: Some((48, 0.03)),
                    ..every_seat(uniform(many), |seat| seat.loss = 0.002)
                },
            ),
            (
                "half of all reports lost",
                Crowd {
                    report_loss: 0.5,
                    ..uniform(many)
                },
            ),
            (
                "everything at once: own loss at each port, bursts, switches, 1 % of the machines with 30 % loss, disks \
                 of all speeds, 10 % late, 5 % switched off and on, clocks that go wrong",
                Crowd::motley(5, many).with_blocks(blocks),
            ),
        ];
        days.into_iter()
            .map(|(what, crowd)| Day::of(what, &crowd, &play(&crowd)))
    }

    fn of(what: &str, crowd: &Crowd, outcome: &CrowdOutcome) -> Day {
        let mut after: Vec<Duration> = outcome.complete_after.iter().flatten().copied().collect();
        after.sort_unstable();
        let machines = crowd.seats.len();
        let at = |part: f64| {
            after
                .get((machines as f64 * part).ceil() as usize - 1)
                .copied()
        };
        Day {
            what: what.to_owned(),
            machines,
            complete: outcome.complete(),
            wire: outcome.wire_ratio(),
            feedback: outcome.feedback_ratio(),
            times: [at(0.5), at(0.95), at(1.0)],
        }
    }
}

fn every_seat(mut crowd: Crowd, change: impl Fn(&mut Seat)) -> Crowd {
    crowd.seats.iter_mut().for_each(change);
    crowd
}

/// One machine that loses nearly a third of everything, and one whose disk takes a tenth of what comes.
fn with_two_laggards(mut crowd: Crowd) -> Crowd {
    let usual = crowd.seats[0].clone();
    crowd.seats.push(Seat {
        loss: 0.3,
        ..usual.clone()
    });
    crowd.seats.push(Seat {
        disk: Some(crowd.rate_bits / 80),
        ..usual
    });
    crowd
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} of {} complete, {:.4} sent, feedback {:.3} %, after {:.3?}",
            self.what,
            self.complete,
            self.machines,
            self.wire,
            100.0 * self.feedback,
            self.times
        )
    }
}
