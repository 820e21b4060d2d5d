//! The keys of a session on their way to one agent: bytes that mean nothing to anybody else.

use std::fmt;
use std::str::FromStr;

use crate::as_text::serde_as_text;

/// What the server has sealed to the agent's public key; travels as hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKeys(pub Vec<u8>);

/// Longest that is taken, in bytes.
const BYTES_MAX: usize = 1024;

/// Why a text holds no sealed keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed keys are an even number of hexadecimal digits, at most {digits}", digits = 2 * BYTES_MAX)]
pub struct SealedKeysError;

impl FromStr for SealedKeys {
    type Err = SealedKeysError;

    fn from_str(text: &str) -> Result<Self, SealedKeysError> {
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || digits.len() > 2 * BYTES_MAX {
            return Err(SealedKeysError);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(SealedKeysError);
        let byte = |pair: &[u8]| Ok((value(pair[0])? << 4 | value(pair[1])?) as u8);
        digits
            .chunks_exact(2)
            .map(byte)
            .collect::<Result<_, _>>()
            .map(SealedKeys)
    }
}

impl fmt::Display for SealedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SealedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKeys({} bytes)", self.0.len())
    }
}

serde_as_text!(SealedKeys);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_keys_survive_text() {
        let keys = SealedKeys((0..=255).collect());
        assert_eq!(keys.to_string().parse(), Ok(keys));
    }

    #[test]
    fn what_is_no_hexadecimal_or_too_long_is_refused() {
        for text in ["abc", "zz", "é0", &"00".repeat(BYTES_MAX + 1)] {
            assert_eq!(text.parse::<SealedKeys>(), Err(SealedKeysError), "{text}");
        }
    }
}
