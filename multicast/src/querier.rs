//! Asking who listens where nobody asks: an IGMP querier that steps back for any other.
//!
//! ```text
//!               nothing heard for `patience`
//!   listening ------------------------------> asking: twice quickly, then every `interval`
//!       ^                                       |
//!       +---- a query of a lower address -------+
//! ```
//!
//! Switches that snoop IGMP forget a machine when nobody asks it: then multicast works for some minutes and stops. The
//! election is that of RFC 3376, 6.6.2, with one difference: who listens stays polite, even to a higher address. A
//! query from 0.0.0.0 is a switch's own and takes no part in the election, but keeps its table alive all the same.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::clock::Instant;
use crate::igmp::Igmp;

/// Queries sent a quarter of the interval apart at first.
const STARTUP_QUERIES: u32 = 2;
/// Longest time a machine may take for its answer.
const RESPONSE_MAX: Duration = Duration::from_secs(10);

/// How a [`Querier`] asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuerierConfig {
    /// Version of IGMP, 2 or 3.
    pub version: u8,
    /// Time between two queries; 125 s is usual.
    pub interval: Duration,
}

/// The state of one querier on one network.
#[derive(Debug)]
pub struct Querier {
    config: QuerierConfig,
    address: Ipv4Addr,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening { since: Instant },
    Asking { next: Instant, quick: u32 },
}

impl Querier {
    /// Listens from `now` on; `address` is its own on that network.
    pub fn new(now: Instant, address: Ipv4Addr, config: QuerierConfig) -> Querier {
        Querier {
            config,
            address,
            state: State::Listening { since: now },
        }
    }

    /// Somebody asked who listens to anything.
    pub fn handle_query(&mut self, now: Instant, from: Ipv4Addr) {
        if from == self.address {
            return;
        }
        let elected = !from.is_unspecified() && from < self.address;
        match self.state {
            State::Asking { .. } if !elected => {}
            _ => self.state = State::Listening { since: now },
        }
    }

    /// The query that is due at `now`, if one is.
    pub fn poll_query(&mut self, now: Instant) -> Option<Igmp> {
        let quick = match self.state {
            State::Listening { since } if now.since(since) >= self.patience() => STARTUP_QUERIES,
            State::Asking { next, quick } if now >= next => quick,
            _ => return None,
        };
        let pause = match quick {
            0 => self.config.interval,
            _ => self.config.interval / 4,
        };
        self.state = State::Asking {
            next: now.after(pause),
            quick: quick.saturating_sub(1),
        };
        Some(Igmp::Query {
            version: self.config.version,
            group: Ipv4Addr::UNSPECIFIED,
            response: RESPONSE_MAX.min(self.config.interval / 2),
            interval: self.config.interval,
        })
    }

    /// Whether it asks, or would if it were time.
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// RFC 3376, 8.5: twice the interval and half a response, after which another querier has gone.
    fn patience(&self) -> Duration {
        self.config.interval * 2 + RESPONSE_MAX.min(self.config.interval / 2) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const LOWER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
    const HIGHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);
    const CONFIG: QuerierConfig = QuerierConfig {
        version: 3,
        interval: Duration::from_secs(100),
    };

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// The seconds at which it asks, up to `end`; `heard` are queries of others.
    fn asks(heard: &[(u64, Ipv4Addr)], end: u64) -> Vec<u64> {
        let mut querier = Querier::new(at(0), OURS, CONFIG);
        let mut asked = Vec::new();
        for second in 0..end {
            for (_, from) in heard.iter().filter(|(when, _)| *when == second) {
                querier.handle_query(at(second), *from);
            }
            if querier.poll_query(at(second)).is_some() {
                asked.push(second);
            }
        }
        asked
    }

    #[test]
    fn where_nobody_asks_it_begins_after_its_patience() {
        assert_eq!(asks(&[], 500), [205, 230, 255, 355, 455]);
    }

    #[test]
    fn it_says_nothing_as_long_as_anybody_asks() {
        let heard: Vec<(u64, Ipv4Addr)> = (0..10).map(|n| (n * 100, HIGHER)).collect();
        assert_eq!(asks(&heard, 1000), []);
        let switch: Vec<(u64, Ipv4Addr)> =
            (0..10).map(|n| (n * 100, Ipv4Addr::UNSPECIFIED)).collect();
        assert_eq!(asks(&switch, 1000), []);
    }

    #[test]
    fn the_lower_address_wins() {
        assert_eq!(asks(&[(210, LOWER)], 400), [205]);
        assert_eq!(asks(&[(210, HIGHER)], 240), [205, 230]);
        assert_eq!(asks(&[(210, Ipv4Addr::UNSPECIFIED)], 240), [205, 230]);
        assert_eq!(asks(&[(210, OURS)], 240), [205, 230]);
        assert_eq!(
            asks(&[(210, LOWER)], 420),
            [205, 415],
            "when it falls silent"
        );
    }
}
