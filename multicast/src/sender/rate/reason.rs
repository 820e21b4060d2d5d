//! Why the rate is what it is, in words an operator understands.

use std::fmt;

/// Why an automatic rate changed. Its text is a clause without full stop.
#[derive(Clone, Debug, PartialEq)]
pub enum RateReason {
    /// Nothing is known yet.
    Start,
    /// What was sent arrived; more is tried.
    TakesMore,
    /// Loss rose with the rate.
    Loss {
        /// Loss that is there at lower rates too, 0 to 1.
        from: f64,
        /// Loss at the rate that was too high, 0 to 1.
        to: f64,
        /// That rate, in bits per second.
        at_bits: u64,
    },
    /// Machines do not empty their sockets in time.
    Overflow {
        /// One of them.
        name: String,
    },
    /// Disks do not keep up.
    Backlog {
        /// Bytes that wait for the disk of the machine at the percentile.
        bytes: u64,
    },
    /// Datagrams wait in a queue that others fill: they get a share.
    Shared,
    /// The queue on the way is empty again.
    Alone,
    /// Loss stayed when the rate fell: it is answered by repair, not by slowing.
    Steady {
        /// That loss, 0 to 1.
        loss: f64,
    },
    /// Nobody has reported for a while.
    Silence,
}

impl fmt::Display for RateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        match self {
            RateReason::Start => f.write_str("to begin with"),
            RateReason::TakesMore => f.write_str("the room takes more"),
            RateReason::Loss { from, to, at_bits } => write!(
                f,
                "loss rose from {} to {} at {} Mbit/s",
                percent(*from),
                percent(*to),
                at_bits / 1_000_000
            ),
            RateReason::Overflow { name } => write!(f, "{name} drops: socket overflow"),
            RateReason::Backlog { bytes } => write!(
                f,
                "{} MiB wait for the disk at the 90th percentile of the machines",
                bytes >> 20
            ),
            RateReason::Shared => f.write_str("others fill the queue on the way, and get a share"),
            RateReason::Alone => f.write_str("the queue on the way is empty again"),
            RateReason::Steady { loss } => write!(
                f,
                "loss of {} does not fall with the rate: it is repaired",
                percent(*loss)
            ),
            RateReason::Silence => f.write_str("nobody reports"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_a_sentence_goes_on() {
        let reason = RateReason::Loss {
            from: 0.001,
            to: 0.03,
            at_bits: 940_000_000,
        };
        assert_eq!(
            reason.to_string(),
            "loss rose from 0.1 % to 3.0 % at 940 Mbit/s"
        );
    }
}
