//! 32 bytes that travel as 64 hexadecimal digits: image ids, keys, tokens.

use std::fmt;
use std::str::FromStr;

use crate::as_text::serde_as_text;

/// 32 bytes, shown and serialised as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex32(pub [u8; 32]);

/// Why a text is not 32 bytes in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// The text has another length than 64.
    #[error("expected 64 hexadecimal digits, found {found} characters")]
    Length {
        /// Characters found.
        found: usize,
    },
    /// A character is no hexadecimal digit.
    #[error("character {at} is no hexadecimal digit")]
    Digit {
        /// Index of the character, from 0.
        at: usize,
    },
}

impl FromStr for Hex32 {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(HexError::Length {
                found: text.chars().count(),
            });
        }
        let mut bytes = [0; 32];
        for (at, digit) in digits.iter().enumerate() {
            let value = char::from(*digit)
                .to_digit(16)
                .ok_or(HexError::Digit { at })?;
            bytes[at / 2] = bytes[at / 2] << 4 | value as u8;
        }
        Ok(Hex32(bytes))
    }
}

impl fmt::Display for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hex32 {
    /// The first four bytes only: some of these are secrets, and logs are read by many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…")
    }
}

serde_as_text!(Hex32);

#[cfg(test)]
mod tests {
    use super::{Hex32, HexError};

    #[test]
    fn what_is_rendered_parses_to_the_same_bytes() {
        let mut bytes = [0; 32];
        bytes[0] = 0xab;
        bytes[31] = 7;
        assert_eq!(Hex32(bytes).to_string().parse(), Ok(Hex32(bytes)));
    }

    #[test]
    fn a_wrong_length_or_digit_is_named() {
        assert_eq!("ab".parse::<Hex32>(), Err(HexError::Length { found: 2 }));
        let text = format!("{}g", "0".repeat(63));
        assert_eq!(text.parse::<Hex32>(), Err(HexError::Digit { at: 63 }));
    }
}
