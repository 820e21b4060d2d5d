//! Sealing: who has no key of the session can neither read a datagram nor make one.
//!
//! ```text
//!   session key ──┬─ data key       seals symbols,  nonce: sequence
//!                 └─ announce key   seals announces, nonce: number of the announce
//!
//!   report secret ── report key of machine m ── key of one start of m
//!   (sender only)    (m only)                   seals its reports, nonce: number of the report;
//!                                               names it in the sender's books
//! ```
//!
//! Every key that seals is bound to the session's number, the sender's public key, the cipher and a salt that
//! each sender draws, so that no number ever seals two things under one key. `docs/PROTOCOL.md` has the bytes.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::keys::KeyError;

mod handover;
mod schedule;
mod secrets;

pub use handover::{AgentKey, HandoverError, Membership};
pub(crate) use schedule::{Binding, GroupKeys, Member};
pub use secrets::{ReportKey, ReportSecret, SessionKey};

/// Bytes that sealing adds to a datagram.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of a salt.
const SALT_BYTES: usize = 16;

/// The cipher of a session: the sender chooses, its announces say which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// AES-256 in Galois/counter mode: the fastest where the processor has instructions for it.
    #[default]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305: the fastest where it has none.
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The faster of them on this machine.
    pub fn fastest_here() -> Suite {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let has_aes = std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes {
            Suite::Aes256Gcm
        } else {
            Suite::ChaCha20Poly1305
        }
    }

    /// The suite that `number` stands for on the wire.
    pub(crate) fn from_number(number: u8) -> Option<Suite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305]
            .into_iter()
            .find(|suite| *suite as u8 == number)
    }
}

/// Drawn by each sender, so that its keys are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) [u8; SALT_BYTES]);

impl Salt {
    /// Bytes on the wire.
    pub(crate) const BYTES: usize = SALT_BYTES;
}

/// How a session is sealed, as its announces say in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealing {
    pub(crate) suite: Suite,
    pub(crate) salt: Salt,
}

/// What makes a sender a sealing one. Not to be cloned: its salt belongs to one sender.
#[derive(Debug)]
pub struct SenderSeal {
    pub(crate) key: SessionKey,
    pub(crate) report_secret: ReportSecret,
    pub(crate) sealing: Sealing,
    pub(crate) sequence_max: u32,
}

impl SenderSeal {
    /// Data datagrams one sender may seal: a million short of the numbers there are. The session then ends.
    pub const SEQUENCE_MAX: u32 = u32::MAX - (1 << 20);

    /// A seal for one sender, with a fresh salt.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`] when the operating system gives no random bytes.
    pub fn new(
        key: SessionKey,
        report_secret: ReportSecret,
        suite: Suite,
    ) -> Result<SenderSeal, KeyError> {
        let salt = random()?;
        Ok(SenderSeal::with_salt(key, report_secret, suite, salt))
    }

    /// A seal whose salt was drawn by the caller, who never uses it again: for runs that are to be repeated.
    pub fn with_salt(
        key: SessionKey,
        report_secret: ReportSecret,
        suite: Suite,
        salt: [u8; SALT_BYTES],
    ) -> SenderSeal {
        let salt = Salt(salt);
        SenderSeal {
            key,
            report_secret,
            sealing: Sealing { suite, salt },
            sequence_max: SenderSeal::SEQUENCE_MAX,
        }
    }

    /// The same, good for fewer datagrams than [`SenderSeal::SEQUENCE_MAX`].
    pub fn up_to(mut self, sequence_max: u32) -> SenderSeal {
        self.sequence_max = sequence_max.min(SenderSeal::SEQUENCE_MAX);
        self
    }
}

/// One key of one cipher, with the numbers it has sealed as nonces.
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    fn new(suite: Suite, key: &[u8; 32]) -> Cipher {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).expect("both ciphers have keys of 32 bytes");
        Cipher(LessSafeKey::new(key))
    }

    /// Seals in place what `out` has from `body` on; `out` from `head` to `body` stays in the clear and is proved
    /// along. No `number` seals twice.
    pub(crate) fn seal(&self, number: u32, out: &mut Vec<u8>, head: usize, body: usize) {
        let (clear, secret) = out.split_at_mut(body);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(number), Aad::from(&clear[head..]), secret)
            .expect("a datagram is far shorter than what one nonce may seal");
        out.extend_from_slice(tag.as_ref());
    }

    /// Opens `sealed`, which follows `head` in its datagram, into `room`; `None` when a single bit of either is
    /// not what was sealed. `room` then holds nothing of use.
    pub(crate) fn open<'a>(
        &self,
        number: u32,
        head: &[u8],
        sealed: &[u8],
        room: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        room.clear();
        room.extend_from_slice(sealed);
        let opened = self.0.open_in_place(nonce(number), Aad::from(head), room);
        opened.ok().map(|plain| &*plain)
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// Eight zeros and the number.
fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Bytes from the operating system.
fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| KeyError::NoRandom)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(suite: Suite) -> (Cipher, Vec<u8>) {
        let cipher = Cipher::new(suite, &[7; 32]);
        let mut out = b"before head body of a datagram".to_vec();
        cipher.seal(5, &mut out, 7, 12);
        (cipher, out)
    }

    #[test]
    fn what_is_sealed_is_unreadable_and_opens_again() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (cipher, out) = sealed(suite);
            assert_eq!(&out[..12], b"before head ");
            assert_eq!(out.len(), 30 + TAG_BYTES);
            assert!(!out.windows(4).any(|four| four == b"body"));
            let mut room = Vec::new();
            let opened = cipher.open(5, &out[7..12], &out[12..], &mut room);
            assert_eq!(opened, Some(&b"body of a datagram"[..]));
        }
    }

    #[test]
    fn one_wrong_bit_or_number_opens_nothing() {
        let (cipher, out) = sealed(Suite::Aes256Gcm);
        let mut room = Vec::new();
        assert_eq!(cipher.open(6, &out[7..12], &out[12..], &mut room), None);
        for bit in 7 * 8..out.len() * 8 {
            let mut damaged = out.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = cipher.open(5, &damaged[7..12], &damaged[12..], &mut room);
            assert_eq!(opened, None, "bit {bit}");
        }
    }
}
