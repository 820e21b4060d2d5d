//! Ed25519 keys of a session: the sender signs its announces, receivers check them.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use thiserror::Error;

use crate::block::ObjectId;

/// Bytes of a signature on the wire.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Why a key cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The operating system gave no random bytes.
    #[error("the system has no random numbers")]
    NoRandom,
    /// A key or object id is 64 hexadecimal digits.
    #[error("expected 64 hexadecimal digits")]
    NotHex,
}

/// The sender's secret.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A fresh key from the operating system's random numbers.
    pub fn generate() -> Result<SigningKey, KeyError> {
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| KeyError::NoRandom)?;
        Ok(SigningKey::from_seed(&seed))
    }

    /// The key that `seed` always gives (RFC 8032, the private key).
    pub fn from_seed(seed: &[u8; 32]) -> SigningKey {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        SigningKey(pair.expect("any 32 bytes are an Ed25519 seed"))
    }

    /// The public half.
    pub fn verify_key(&self) -> VerifyKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        VerifyKey(bytes)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        bytes
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verify_key())
    }
}

/// The sender's public key. Displays and parses as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey(pub [u8; 32]);

impl VerifyKey {
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for VerifyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<VerifyKey, KeyError> {
        parse_hex(text).map(VerifyKey)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for ObjectId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<ObjectId, KeyError> {
        parse_hex(text).map(ObjectId)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8; 32]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn parse_hex(text: &str) -> Result<[u8; 32], KeyError> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return Err(KeyError::NotHex);
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(KeyError::NotHex);
        *byte = (digit(0)? << 4 | digit(1)?) as u8;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_binds_key_and_message() {
        let key = SigningKey::from_seed(&[7; 32]);
        let signature = key.sign(b"announce");
        assert!(key.verify_key().verifies(b"announce", &signature));
        assert!(!key.verify_key().verifies(b"announcf", &signature));
        assert!(
            !SigningKey::from_seed(&[8; 32])
                .verify_key()
                .verifies(b"announce", &signature)
        );
    }

    #[test]
    fn keys_survive_text() {
        let key = SigningKey::from_seed(&[7; 32]).verify_key();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("zz".parse::<VerifyKey>(), Err(KeyError::NotHex));
        assert_eq!("é".repeat(32).parse::<VerifyKey>(), Err(KeyError::NotHex));
    }
}
