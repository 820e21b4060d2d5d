//! When a membership is told: now and then, and several times after the link came back.

use std::time::Duration;

/// The first repetition: the report of the kernel's own join may have been lost.
const FIRST: Duration = Duration::from_secs(1);

/// The moments of one membership, as time since its beginning.
///
/// A switch forgets who listens behind a port whose link went away, and spanning tree may swallow what is said for most
/// of a minute after it came back: so it is said at once, and then after twice as long each time, until the ordinary
/// interval is reached.
#[derive(Debug)]
pub(super) struct Cadence {
    every: Duration,
    next: Duration,
    /// The pause after the next one, while it is shorter than the ordinary.
    pause: Duration,
    ups: u64,
}

impl Cadence {
    /// `ups` is how often the link came up so far.
    pub(super) fn new(every: Duration, ups: u64) -> Cadence {
        Cadence {
            every,
            next: FIRST.min(every),
            pause: every,
            ups,
        }
    }

    /// Whether it is told now. `spread` is a random number: a room does not speak with one voice.
    pub(super) fn is_due(&mut self, elapsed: Duration, ups: u64, spread: u32) -> bool {
        if ups != self.ups {
            self.ups = ups;
            self.next = elapsed;
            self.pause = FIRST.min(self.every);
        }
        if elapsed < self.next {
            return false;
        }
        // Nine to eleven tenths.
        let share = 0.9 + f64::from(spread % 1024) / 5120.0;
        self.next = elapsed + self.pause.mul_f64(share);
        self.pause = (self.pause * 2).min(self.every);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(60);

    /// The seconds at which it is told, looked at ten times a second; the link comes up at `up`.
    fn told(until: u64, up: Option<u64>) -> Vec<u64> {
        let mut cadence = Cadence::new(EVERY, 1);
        let tenths = (0..until * 10).filter(|tenth| {
            let ups = if up.is_some_and(|up| tenth / 10 >= up) {
                2
            } else {
                1
            };
            cadence.is_due(Duration::from_millis(tenth * 100), ups, 512)
        });
        tenths.map(|tenth| tenth / 10).collect()
    }

    #[test]
    fn a_quiet_link_is_told_of_soon_and_then_now_and_then() {
        assert_eq!(told(200, None), [1, 61, 121, 181]);
    }

    #[test]
    fn a_link_that_came_back_is_told_of_at_once_and_all_through_spanning_tree() {
        assert_eq!(told(180, Some(30)), [1, 30, 31, 33, 37, 45, 61, 93, 153]);
    }

    #[test]
    fn nobody_speaks_more_than_a_tenth_early_or_late() {
        for spread in [0, 1023, u32::MAX] {
            let mut cadence = Cadence::new(EVERY, 0);
            assert!(cadence.is_due(FIRST, 0, spread));
            let pause = cadence.next - FIRST;
            assert!(
                pause >= EVERY * 9 / 10 && pause <= EVERY * 11 / 10,
                "{pause:?}"
            );
        }
    }
}
