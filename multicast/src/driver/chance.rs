//! Random numbers for the state machines, which draw none themselves.

use ring::rand::{SecureRandom, SystemRandom};

use crate::keys::KeyError;

/// A number for a new session. Never reuse one: receivers tell sessions apart by it.
///
/// # Errors
/// [`KeyError::NoRandom`] when the operating system gives no random bytes.
pub fn random_session() -> Result<u32, KeyError> {
    let mut bytes = [0; 4];
    draw(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// The number of a receiver, drawn anew at each start.
pub(crate) fn random_id() -> Result<u64, KeyError> {
    let mut bytes = [0; 8];
    draw(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A cheap endless sequence (SplitMix64) from a random seed, to spread moments; no secrets depend on it.
pub(crate) fn sequence() -> Result<impl FnMut() -> u32 + Send + 'static, KeyError> {
    let mut state = random_id()?;
    Ok(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 32) as u32
    })
}

fn draw(bytes: &mut [u8]) -> Result<(), KeyError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| KeyError::NoRandom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_spreads_over_its_range() {
        let mut chance = sequence().expect("random bytes");
        let drawn: Vec<u32> = (0..64).map(|_| chance()).collect();
        assert!(drawn.iter().any(|&number| number < u32::MAX / 2));
        assert!(drawn.iter().any(|&number| number > u32::MAX / 2));
    }
}
