//! How long a machine waits before it asks: long enough that few speak when all of a large room lack the same.
//!
//! Everybody draws a moment within a window, early moments being rarer the larger the room: the first to speak are a
//! few, however many lack something. What they ask for is promised within milliseconds in the next announce, and
//! whoever lacks no more than that stays silent. Only who lacks more goes on, so the announce climbs to the deficit of
//! the worst machine in a handful of reports.

use std::time::Duration;

/// The window of a machine that is alone, and what each doubling of the room adds to it. An answer takes some 5 ms.
const WINDOW: Duration = Duration::from_millis(5);
const WINDOW_MORE: Duration = Duration::from_micros(2_500);
/// The window doubles each time a machine has to ask again, so many times at most.
const DOUBLINGS_MAX: u32 = 6;

/// How long a machine of a room of `machines` waits before it asks for the `again`-th time for the same; `drawn` is
/// drawn at random. Never more than twice the report `interval`, which is made for everybody speaking.
pub(super) fn backoff(machines: u32, again: u32, interval: Duration, drawn: u32) -> Duration {
    let machines = f64::from(machines.max(1));
    let window = WINDOW + WINDOW_MORE.mul_f64(machines.log2());
    let window = (window * (1 << again.min(DOUBLINGS_MAX))).min(interval * 2);
    let steepness = machines.ln() + 1.0;
    let uniform = f64::from(drawn) / f64::from(u32::MAX);
    let share = (uniform * steepness.exp_m1()).ln_1p() / steepness;
    window.mul_f64(share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    /// How many of a room speak within 5 ms after its first, when all lack the same.
    fn speak(machines: u32) -> usize {
        let drawn = |at| ((f64::from(at) + 0.5) / f64::from(machines) * f64::from(u32::MAX)) as u32;
        let waits = (0..machines).map(|at| backoff(machines, 0, INTERVAL, drawn(at)));
        let waits: Vec<Duration> = waits.collect();
        let first = waits.iter().min().copied().unwrap_or_default();
        let heard = first + Duration::from_millis(5);
        waits.iter().filter(|wait| **wait <= heard).count()
    }

    #[test]
    fn few_speak_however_large_the_room() {
        for machines in [1, 8, 100, 1000, 10_000] {
            let reports = speak(machines);
            assert!(reports <= 12, "{reports} of {machines}");
        }
    }

    #[test]
    fn one_machine_asks_within_milliseconds_and_each_time_later() {
        assert!(backoff(1, 0, INTERVAL, u32::MAX) <= WINDOW);
        assert!(backoff(10_000, 0, INTERVAL, u32::MAX) <= Duration::from_millis(40));
        assert_eq!(
            backoff(1, 3, INTERVAL, u32::MAX),
            backoff(1, 0, INTERVAL, u32::MAX) * 8
        );
        assert!(
            backoff(10_000, 99, Duration::from_millis(20), u32::MAX) <= Duration::from_millis(40)
        );
    }
}
