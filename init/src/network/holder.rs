//! Which card has the address that nobody lent: one of them, with a signal, and the preferred one if it can be had.

use std::time::{Duration, Instant};

use super::PREFERRED_WAIT;

/// How long a card may be without its signal while another would do, before that one gets the address.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who has it, and since when it is or is not fit for it.
#[derive(Debug, Default)]
pub(super) struct Holder {
    name: Option<String>,
    /// When somebody first wanted it.
    wanted: Option<Instant>,
    /// Since when the holder has no signal.
    deaf_since: Option<Instant>,
}

/// The card that asks.
pub(super) struct Candidate<'a> {
    pub name: &'a str,
    pub has_signal: bool,
    /// Whether it is the preferred card, or none is preferred.
    pub is_preferred: bool,
}

impl Holder {
    /// Whether the address is this card's now. Every card asks again and again.
    pub(super) fn claim(&mut self, card: &Candidate<'_>, now: Instant) -> bool {
        let wanted = *self.wanted.get_or_insert(now);
        if self.name.as_deref() == Some(card.name) {
            self.deaf_since = match card.has_signal {
                true => None,
                false => self.deaf_since.or(Some(now)),
            };
            return true;
        }
        let free = match self.name {
            None => card.is_preferred || now >= wanted + PREFERRED_WAIT,
            Some(_) => self.deaf_since.is_some_and(|since| now >= since + PATIENCE),
        };
        let taken = free && card.has_signal;
        if taken {
            self.name = Some(card.name.to_owned());
            self.deaf_since = None;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(name: &str, has_signal: bool, is_preferred: bool) -> Candidate<'_> {
        Candidate {
            name,
            has_signal,
            is_preferred,
        }
    }

    #[test]
    fn one_card_with_a_signal_has_the_address() {
        let now = Instant::now();
        let mut holder = Holder::default();
        assert!(!holder.claim(&card("eth0", false, true), now));
        assert!(holder.claim(&card("eth1", true, true), now));
        assert!(!holder.claim(&card("eth0", true, true), now));
        assert!(holder.claim(&card("eth1", true, true), now));
    }

    #[test]
    fn another_card_waits_for_the_preferred_one_but_not_for_ever() {
        let now = Instant::now();
        let mut holder = Holder::default();
        assert!(!holder.claim(&card("eth1", true, false), now));
        assert!(holder.claim(&card("eth0", true, true), now));
        let mut holder = Holder::default();
        assert!(!holder.claim(&card("eth1", true, false), now));
        assert!(holder.claim(&card("eth1", true, false), now + PREFERRED_WAIT));
    }

    #[test]
    fn a_cable_that_is_moved_takes_the_address_along() {
        let now = Instant::now();
        let later = now + PATIENCE;
        let mut holder = Holder::default();
        assert!(holder.claim(&card("eth0", true, true), now));
        assert!(holder.claim(&card("eth0", false, true), now));
        assert!(!holder.claim(&card("eth1", true, true), now));
        assert!(!holder.claim(&card("eth1", false, true), later));
        assert!(holder.claim(&card("eth1", true, true), later));
        assert!(!holder.claim(&card("eth0", true, true), later));
    }

    #[test]
    fn a_flap_takes_nothing_away() {
        let now = Instant::now();
        let mut holder = Holder::default();
        assert!(holder.claim(&card("eth0", true, true), now));
        assert!(holder.claim(&card("eth0", false, true), now));
        assert!(holder.claim(&card("eth0", true, true), now + PATIENCE));
        assert!(!holder.claim(&card("eth1", true, true), now + PATIENCE));
    }
}
