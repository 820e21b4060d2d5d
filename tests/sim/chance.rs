//! Chance from a seed: SplitMix64, whose whole state is one number.

/// A stream of numbers that is the same for the same seed, on every machine and in every version.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// A stream of its own for one purpose, so that drawing more in one place changes no other.
    pub fn fork(&self, purpose: u64) -> Chance {
        let mut other = Chance(self.0 ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        other.draw();
        other
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number of `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low + 1)
    }

    /// True with probability `p`, 0 to 1.
    pub fn hit(&mut self, p: f64) -> bool {
        ((self.draw() >> 11) as f64) < p * (1u64 << 53) as f64
    }

    /// `bytes` random bytes.
    pub fn bytes(&mut self, bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes + 8);
        while out.len() < bytes {
            out.extend_from_slice(&self.draw().to_le_bytes());
        }
        out.truncate(bytes);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn the_same_seed_gives_the_same_stream() {
        let draw = |seed| Chance::new(seed).bytes(64);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn probability_is_what_was_asked() {
        let mut chance = Chance::new(1);
        let hits = (0..100_000).filter(|_| chance.hit(0.05)).count();
        assert!((4_700..5_300).contains(&hits), "{hits}");
        assert!(!(0..1000).any(|_| chance.hit(0.0)) && (0..1000).all(|_| chance.hit(1.0)));
    }
}
