//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use crate::as_text::serde_as_text;

/// An Ethernet address; shown and serialised as `52:54:00:aa:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no MAC address; write it like 52:54:00:aa:00:01")]
pub struct MacError {
    text: String,
}

impl Mac {
    /// Whether the address can name one machine: not zero, not a group address, and not from the `fa:…` range
    /// that servers give to the network card between host and management controller, equal on all of a model.
    pub fn names_a_machine(self) -> bool {
        self.0 != [0; 6] && self.0[0] & 1 == 0 && self.0[0] != 0xfa
    }
}

impl FromStr for Mac {
    type Err = MacError;

    /// Accepts `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` and `aabbccddeeff`, in either case.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError {
            text: crate::plain(text, 40),
        };
        let digits: Vec<u8> = match text.len() {
            12 => text.bytes().collect(),
            17 => {
                let separator = text.as_bytes()[2];
                let separated = text.bytes().skip(2).step_by(3).all(|b| b == separator);
                if !separated || !matches!(separator, b':' | b'-') {
                    return Err(wrong());
                }
                let digit = |(at, byte)| (at % 3 != 2).then_some(byte);
                text.bytes().enumerate().filter_map(digit).collect()
            }
            _ => return Err(wrong()),
        };
        let mut bytes = [0; 6];
        for (at, digit) in digits.iter().enumerate() {
            let value = char::from(*digit).to_digit(16).ok_or_else(wrong)?;
            bytes[at / 2] = bytes[at / 2] << 4 | value as u8;
        }
        Ok(Mac(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(Mac);

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn the_three_usual_spellings_are_one_address() {
        let mac = Mac([0x52, 0x54, 0, 0xaa, 0, 1]);
        for text in ["52:54:00:aa:00:01", "52-54-00-AA-00-01", "525400AA0001"] {
            assert_eq!(text.parse(), Ok(mac));
        }
        assert_eq!(mac.to_string(), "52:54:00:aa:00:01");
    }

    #[test]
    fn half_an_address_is_refused() {
        for text in [
            "",
            "52:54",
            "52:54-00:aa:00:01",
            "5254:00:aa:00:010",
            "zz5400AA0001",
            "é2:54:00:aa:00:0",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn shared_addresses_name_nobody() {
        assert!(!Mac([0; 6]).names_a_machine());
        assert!(!Mac([0xff; 6]).names_a_machine());
        assert!(!Mac([0xfa, 0, 0, 0, 0, 1]).names_a_machine());
        assert!(Mac([0x52, 0x54, 0, 0, 0, 1]).names_a_machine());
    }
}
