//! Which machine stands for its room: how much repair goes along, how fast is sent and who is a laggard is measured by
//! what this one loses.
//!
//! It is the machine at the 90th percentile, rounded down: of two the better, of eight the second worst. If the room
//! would take more than twice as long for it as for its middle, it is the next better one that would not: whoever is
//! nearly cut off is served when the others are done, be it one machine of three or three of eight. Half of a room that
//! loses what can be borne is the room.

/// The machine that stands for its room, in per cent of the machines in ascending order of loss.
const PERCENTILE: usize = 90;
/// So many times as long as for its middle a room may take for the machine that stands for it.
const BORNE: f32 = 2.0;
/// A machine that loses so many times what its room loses and this much more, which is more than chance puts between
/// equal ones, is a laggard if the others would take so many times as long for it.
const LAGGARD_FACTOR: f32 = 1.5;
const LAGGARD_MORE: f32 = 0.02;
const LAGGARD_DELAY: f32 = 1.08;

/// Where the machine at the percentile stands among `count` in ascending order, from 0.
pub(super) fn place(count: usize) -> usize {
    count.saturating_sub(1) * PERCENTILE / 100
}

/// The loss up to which a machine may stand for a room whose middle loses the part `middle`.
pub(super) fn bearable(middle: f32) -> f32 {
    1.0 - (1.0 - middle) / BORNE
}

/// Whether nobody shall wait for a machine that loses the part `loss` in a room that loses `usual`.
pub(super) fn is_laggard(loss: f32, usual: f32) -> bool {
    let chance = usual * LAGGARD_FACTOR + LAGGARD_MORE;
    loss > chance && (1.0 - usual) > LAGGARD_DELAY * (1.0 - loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_a_small_room_does_not_stand_for_it() {
        let places = [1, 2, 3, 4, 8, 10, 11, 100].map(place);
        assert_eq!(places, [0, 0, 1, 2, 6, 8, 9, 89]);
    }

    #[test]
    fn a_laggard_is_who_would_keep_the_others() {
        for (loss, usual, laggard) in [
            (0.05, 0.0, false),
            (0.3, 0.0, true),
            (0.3, 0.01, true),
            (0.3, 0.2, false),
            (0.999, 0.2, true),
            (0.999, 0.999, false),
        ] {
            assert_eq!(is_laggard(loss, usual), laggard, "{loss} beside {usual}");
        }
    }
}
