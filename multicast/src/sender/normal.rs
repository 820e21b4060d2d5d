//! The normal distribution, as far as a sender needs it: how far the luckiest and unluckiest of many are from the middle.

/// The value that a standard normal variable stays below with probability `p`, 0 to 1. Good to a thousandth
/// (Abramowitz and Stegun, 26.2.23).
pub(super) fn quantile(p: f32) -> f32 {
    let tail = f64::from(p.min(1.0 - p)).max(1e-9);
    let t = (-2.0 * tail.ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let z = (t - above / below) as f32;
    if p < 0.5 { -z } else { z }
}

/// The mean of the largest of `count` standard normal variables (Blom); nothing for one alone.
pub(super) fn largest_of(count: u32) -> f32 {
    let count = f64::from(count.max(1));
    quantile(((count - 0.375) / (count + 0.25)) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, z) in [(0.5, 0.0), (0.9, 1.2816), (0.999, 3.0902), (0.1, -1.2816)] {
            assert!((quantile(p) - z).abs() < 2e-3, "{p}: {}", quantile(p));
        }
    }

    #[test]
    fn the_largest_of_many_is_known() {
        for (count, mean) in [(1, 0.0), (10, 1.5388), (100, 2.5076), (10_000, 3.8516)] {
            let found = largest_of(count);
            assert!((found - mean).abs() < 0.02, "{count}: {found}");
        }
    }
}
