//! Who sits in a crowd, and what goes wrong with each.

use std::time::Duration;

use super::super::chance::Chance;

/// Bytes of a symbol, as a rule.
const TINY: u16 = 2;

/// What one machine goes through.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// When it is switched on.
    pub on_at: Duration,
    /// It goes off so long after the payload began to flow, for so long; its disk keeps what it has.
    pub off: Option<(Duration, Duration)>,
    /// Part of its datagrams that vanish independently.
    pub loss: f64,
    /// Only of its large ones: announces arrive.
    pub only_data: bool,
    /// Part of the time its port is bad, with half of all datagrams lost.
    pub bursts: f64,
    /// What its disk takes, in bytes a second; `None` is whatever comes.
    pub disk: Option<u64>,
    /// How fast its clock goes wrong, in millionths.
    pub skew_ppm: i32,
}

impl Default for Seat {
    fn default() -> Seat {
        Seat {
            on_at: Duration::ZERO,
            off: None,
            loss: 0.0,
            only_data: false,
            bursts: 0.0,
            disk: None,
            skew_ppm: 0,
        }
    }
}

/// A place on the way that takes less than the link of the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// What it takes, in bits per second on the wire.
    pub bits: u64,
    /// What waits there at most; the rest is dropped for everybody.
    pub buffer_bytes: u64,
}

/// A room and its session.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// Where all chance of the run comes from.
    pub seed: u64,
    /// The machines.
    pub seats: Vec<Seat>,
    /// Blocks of the payload.
    pub blocks: u32,
    /// Source symbols of each.
    pub symbols: u16,
    /// Bytes of a symbol that are really carried, even; the wire is reckoned with 1452 in any case. Machines with symbols
    /// of that size run out of memory when they do so in truth.
    pub symbol_bytes: u16,
    /// Pace on the wire, in bits per second; of an automatic rate, the speed of the sender's link.
    pub rate_bits: u64,
    /// The sender finds the rate by itself.
    pub automatic: bool,
    /// What everybody sits behind.
    pub bottleneck: Option<Bottleneck>,
    /// Part of the reports that vanish.
    pub report_loss: f64,
    /// Machines behind one switch, and the part of the datagrams it drops for all of them.
    pub switches: Option<(usize, f64)>,
    /// The run is over when so many of the first machines are complete; `None`: with the session.
    pub until: Option<usize>,
}

impl Crowd {
    /// Machines that all lose `loss` independently, from a sender at 1 Gbit/s and blocks as a real image has them.
    pub fn uniform(seed: u64, machines: usize, loss: f64) -> Crowd {
        let seat = Seat {
            loss,
            ..Seat::default()
        };
        Crowd {
            seed,
            seats: vec![seat; machines],
            blocks: 64,
            symbols: 1000,
            symbol_bytes: TINY,
            rate_bits: 1_000_000_000,
            automatic: false,
            bottleneck: None,
            report_loss: loss,
            switches: None,
            until: None,
        }
    }

    /// The same with so many blocks.
    pub fn with_blocks(self, blocks: u32) -> Crowd {
        Crowd { blocks, ..self }
    }

    /// The same with one machine more, which loses the part `loss` of the data and hears every announce, so that it asks
    /// all the time. Symbols are real ones, so that its memory fills as it would.
    pub fn with_a_laggard(mut self, loss: f64) -> Crowd {
        let usual = self.seats.first().cloned().unwrap_or_default();
        self.seats.push(Seat {
            loss,
            only_data: true,
            ..usual
        });
        Crowd {
            symbol_bytes: 1452,
            ..self
        }
    }

    /// The same at a rate that the sender finds by itself, perhaps behind a bottleneck. Symbols are real ones: the sender
    /// compares what it sends with its rate.
    pub fn automatic(self, bottleneck: Option<Bottleneck>) -> Crowd {
        Crowd {
            automatic: true,
            bottleneck,
            symbol_bytes: 1452,
            ..self
        }
    }

    /// The same, played until the first `machines` are complete.
    pub fn until(self, machines: usize) -> Crowd {
        Crowd {
            until: Some(machines),
            ..self
        }
    }

    /// A room where everything goes wrong that a room has been seen to do: loss of its own kind at every port, bursts,
    /// switches that drop for all behind them, one machine of a hundred with 30 % loss, disks of all speeds, one in ten
    /// late, one in twenty switched off and on, reports that vanish, clocks that go wrong.
    pub fn motley(seed: u64, machines: usize) -> Crowd {
        let mut chance = Chance::new(seed).fork(77);
        let mut crowd = Crowd::uniform(seed, machines, 0.0);
        for seat in &mut crowd.seats {
            seat.loss = chance.range(0, 40) as f64 / 1000.0;
            if chance.hit(0.2) {
                seat.bursts = chance.range(5, 40) as f64 / 1000.0;
            }
            if chance.hit(0.01) {
                seat.loss = 0.3;
            }
            if chance.hit(0.05) {
                seat.disk = Some(chance.range(20_000_000, 400_000_000));
            }
            if chance.hit(0.1) {
                seat.on_at = Duration::from_millis(chance.range(500, 3000));
            } else if chance.hit(0.05) {
                let off_at = Duration::from_millis(chance.range(0, 900));
                let back_in = Duration::from_millis(chance.range(100, 2000));
                seat.off = Some((off_at, back_in));
            }
            seat.skew_ppm = chance.range(0, 1000) as i32 - 500;
        }
        crowd.report_loss = 0.05;
        crowd.switches = Some((48, 0.002));
        crowd
    }

    /// Symbols that carry the payload once.
    pub fn source_symbols(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.symbols)
    }
}
