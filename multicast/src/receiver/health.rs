//! Whether multicast reaches this machine, and if not, in which way it fails.
//!
//! ```text
//!           nothing heard for `patience`                  heard before: WentSilent
//!   Fine ---------------------------------------------->  never heard:  NoAnnounce
//!     |     announces come and tell of datagrams sent,
//!     +---- none of which came, for half of it  ------->  NoData
//!     ^                                                     |
//!     +------------- the missing thing is heard again ------+
//! ```
//!
//! Only what came by multicast counts: an announce that was fetched another way proves nothing.

use std::fmt;
use std::time::Duration;

use crate::clock::Instant;

/// So many datagrams in a row are never lost by chance.
const MISSED_MIN: u32 = 32;
/// Switches forget a machine no sooner than this after the last membership report.
const AGEING_MIN: Duration = Duration::from_secs(100);

/// Whether multicast reaches this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does, or it is too early to say.
    Fine,
    /// It does not.
    Blocked(Blockage),
}

/// In which way multicast fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blockage {
    /// Nothing of the session was ever heard.
    NoAnnounce {
        /// How long it was listened for.
        listened: Duration,
    },
    /// Announces come and tell of datagrams sent, but none of these came.
    NoData {
        /// Datagrams missed since the last that came, modulo 2^32.
        missed: u32,
    },
    /// It worked, and stopped.
    WentSilent {
        /// From the first sign of the session to the last.
        after: Duration,
    },
}

impl fmt::Display for Blockage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blockage::NoAnnounce { listened } => write!(
                f,
                "no announce heard for {} s: does multicast pass the switch and the firewall?",
                listened.as_secs()
            ),
            Blockage::NoData { missed } => write!(
                f,
                "announces come, but none of {missed} datagrams sent: is large or fast multicast \
                 filtered?"
            ),
            Blockage::WentSilent { after } if *after >= AGEING_MIN => write!(
                f,
                "multicast stopped after {} s: does the switch snoop IGMP without a querier?",
                after.as_secs()
            ),
            Blockage::WentSilent { after } => {
                write!(f, "multicast stopped after {} s", after.as_secs())
            }
        }
    }
}

/// What was heard by multicast, and when.
#[derive(Debug)]
pub(super) struct Vigil {
    began: Instant,
    first: Option<Instant>,
    last: Instant,
    /// Datagrams the sender told of since the last that came, and since when.
    missed: u32,
    missing_since: Instant,
}

impl Vigil {
    pub(super) fn new(now: Instant) -> Vigil {
        Vigil {
            began: now,
            first: None,
            last: now,
            missed: 0,
            missing_since: now,
        }
    }

    /// A genuine announce came; it tells of `sent` datagrams that have not come yet.
    pub(super) fn announced(&mut self, now: Instant, sent: u32) {
        self.heard(now);
        if self.missed == 0 {
            self.missing_since = now;
        }
        self.missed = self.missed.saturating_add(sent);
    }

    /// A datagram of the session came.
    pub(super) fn data(&mut self, now: Instant) {
        self.heard(now);
        self.missed = 0;
    }

    fn heard(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// What is to be said at `now` by somebody who waits `patience` before saying it.
    pub(super) fn health(&self, now: Instant, patience: Duration) -> Health {
        let (missed, missing) = (self.missed, now.since(self.missing_since));
        if now.since(self.last) >= patience {
            return Health::Blocked(match self.first {
                None => Blockage::NoAnnounce {
                    listened: now.since(self.began),
                },
                Some(first) => Blockage::WentSilent {
                    after: self.last.since(first),
                },
            });
        }
        if missed >= MISSED_MIN && missing >= patience / 2 {
            return Health::Blocked(Blockage::NoData { missed });
        }
        Health::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_machine_that_hears_nothing_says_so_after_its_patience() {
        let vigil = Vigil::new(at(5));
        assert_eq!(vigil.health(at(14), PATIENCE), Health::Fine);
        let listened = PATIENCE;
        let blocked = Health::Blocked(Blockage::NoAnnounce { listened });
        assert_eq!(vigil.health(at(15), PATIENCE), blocked);
    }

    #[test]
    fn announces_without_data_are_told_apart_from_a_sender_that_pauses() {
        let mut pausing = Vigil::new(at(0));
        let mut blocked = Vigil::new(at(0));
        for second in 0..8 {
            pausing.announced(at(second), 0);
            blocked.announced(at(second), 100);
        }
        assert_eq!(pausing.health(at(8), PATIENCE), Health::Fine);
        let verdict = Health::Blocked(Blockage::NoData { missed: 800 });
        assert_eq!(blocked.health(at(8), PATIENCE), verdict);
        blocked.data(at(8));
        assert_eq!(blocked.health(at(8), PATIENCE), Health::Fine);
    }

    #[test]
    fn a_stop_after_the_ageing_time_names_the_querier() {
        let mut vigil = Vigil::new(at(0));
        vigil.announced(at(1), 0);
        vigil.data(at(261));
        let Health::Blocked(why) = vigil.health(at(271), PATIENCE) else {
            panic!("it is blocked");
        };
        let after = Duration::from_secs(260);
        assert_eq!(why, Blockage::WentSilent { after });
        assert!(why.to_string().contains("querier"));
    }

    #[test]
    fn multicast_that_comes_back_is_fine() {
        let mut vigil = Vigil::new(at(0));
        assert_ne!(vigil.health(at(20), PATIENCE), Health::Fine);
        vigil.announced(at(20), 0);
        assert_eq!(vigil.health(at(21), PATIENCE), Health::Fine);
    }
}
