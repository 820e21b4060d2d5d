//! Handing the keys of a session to one machine, so that nobody but the agent that asked can read them.
//!
//! The agent makes a key pair at its start and sends the public half with its hello. Whoever knows that half seals
//! to it: a one-time key pair, X25519, a cipher key from the shared secret, ChaCha20-Poly1305.

use std::fmt;

use ring::aead::NONCE_LEN;
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::keys::KeyError;

use super::{Cipher, ReportKey, SessionKey, Suite, TAG_BYTES, random};

const CONTEXT: &str = "netflash 2026 session keys handed to an agent";
/// Number of the machine, session key, report key.
const PLAIN_BYTES: usize = 4 + 32 + 32;
/// One-time public key, what is sealed, tag.
const SEALED_BYTES: usize = 32 + PLAIN_BYTES + TAG_BYTES;
/// Each key seals once.
const ONCE: u32 = 0;
const _: () = assert!(NONCE_LEN == 12);

/// What a machine needs to take part in a sealed session.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Its number; reports of this number are opened with `report_key` only.
    pub machine: u32,
    /// Opens data and announces.
    pub session_key: SessionKey,
    /// Seals this machine's reports.
    pub report_key: ReportKey,
}

/// Why sealed keys cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandoverError {
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] KeyError),
    /// The public key belongs to no secret.
    #[error("the agent's key is no X25519 key")]
    WeakKey,
    /// Of another length than sealed keys have.
    #[error("sealed keys are {SEALED_BYTES} bytes, not {0}")]
    Length(usize),
    /// Sealed to somebody else, for another session, or damaged.
    #[error("the session's keys are not sealed to this agent")]
    Foreign,
}

impl Membership {
    /// The membership of somebody who has the session key, where no server gives each machine its own.
    pub fn of_key(session_key: &SessionKey) -> Membership {
        let machine = 0;
        Membership {
            machine,
            session_key: session_key.clone(),
            report_key: session_key.report_secret().key_of(machine),
        }
    }

    /// Seals it to the agent with this public key. It opens for session number `session` only.
    ///
    /// # Errors
    /// No random bytes, or a public key to which everybody could open.
    pub fn seal_to(&self, agent: &[u8; 32], session: u32) -> Result<Vec<u8>, HandoverError> {
        let one_time = StaticSecret::from(random()?);
        let public = PublicKey::from(&one_time).to_bytes();
        let cipher = cipher_of(&one_time, agent, &public, agent)?;
        let mut out = public.to_vec();
        out.extend_from_slice(&session.to_be_bytes());
        let body = out.len();
        out.extend_from_slice(&self.machine.to_be_bytes());
        out.extend_from_slice(self.session_key.as_bytes());
        out.extend_from_slice(self.report_key.as_bytes());
        cipher.seal(ONCE, &mut out, 0, body);
        // Both ends know the session; it is proved, not sent.
        out.drain(body - 4..body);
        Ok(out)
    }
}

/// The key pair of one start of an agent.
pub struct AgentKey(StaticSecret);

impl AgentKey {
    /// A fresh pair.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`] when the operating system gives no random bytes.
    pub fn generate() -> Result<AgentKey, KeyError> {
        random().map(|bytes| AgentKey(StaticSecret::from(bytes)))
    }

    /// The public half, for the hello.
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// Opens what was sealed to this agent for session number `session`.
    ///
    /// # Errors
    /// Sealed to another agent or for another session, damaged, or no sealed keys at all.
    pub fn open(&self, sealed: &[u8], session: u32) -> Result<Membership, HandoverError> {
        let wrong = HandoverError::Length(sealed.len());
        if sealed.len() != SEALED_BYTES {
            return Err(wrong);
        }
        let (public, body) = sealed.split_first_chunk::<32>().ok_or(wrong)?;
        let cipher = cipher_of(&self.0, public, public, &self.public())?;
        let mut head = public.to_vec();
        head.extend_from_slice(&session.to_be_bytes());
        let mut room = Zeroizing::new(Vec::with_capacity(body.len()));
        let plain = cipher
            .open(ONCE, &head, body, &mut room)
            .ok_or(HandoverError::Foreign)?;
        let (machine, keys) = plain.split_first_chunk().ok_or(wrong)?;
        let (session_key, keys) = keys.split_first_chunk().ok_or(wrong)?;
        let (report_key, _) = keys.split_first_chunk().ok_or(wrong)?;
        Ok(Membership {
            machine: u32::from_be_bytes(*machine),
            session_key: SessionKey::from_bytes(*session_key),
            report_key: ReportKey::from_bytes(*report_key),
        })
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKey(..)")
    }
}

fn cipher_of(
    ours: &StaticSecret,
    theirs: &[u8; 32],
    one_time: &[u8; 32],
    agent: &[u8; 32],
) -> Result<Cipher, HandoverError> {
    let shared = ours.diffie_hellman(&PublicKey::from(*theirs));
    if !shared.was_contributory() {
        return Err(HandoverError::WeakKey);
    }
    let mut material = Zeroizing::new([0; 96]);
    material[..32].copy_from_slice(shared.as_bytes());
    material[32..64].copy_from_slice(one_time);
    material[64..].copy_from_slice(agent);
    let mut key = blake3::derive_key(CONTEXT, &*material);
    // Handed over once a job: what is cheap everywhere will do.
    let cipher = Cipher::new(Suite::ChaCha20Poly1305, &key);
    key.zeroize();
    Ok(cipher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        Membership {
            machine: 9,
            session_key: SessionKey::from_bytes([1; 32]),
            report_key: ReportKey::from_bytes([2; 32]),
        }
    }

    fn agent() -> AgentKey {
        AgentKey::generate().expect("random bytes")
    }

    #[test]
    fn an_agent_opens_what_was_sealed_to_it() {
        let agent = agent();
        let sealed = membership().seal_to(&agent.public(), 7).expect("sealed");
        assert_eq!(sealed.len(), SEALED_BYTES);
        let opened = agent.open(&sealed, 7).expect("its own");
        assert_eq!(opened.machine, 9);
        assert_eq!(opened.session_key.as_bytes(), &[1; 32]);
        assert_eq!(opened.report_key.as_bytes(), &[2; 32]);
    }

    #[test]
    fn nobody_else_opens_it_and_nothing_can_be_changed() {
        let ours = agent();
        let sealed = membership().seal_to(&ours.public(), 7).expect("sealed");
        let foreign = Some(HandoverError::Foreign);
        assert_eq!(agent().open(&sealed, 7).err(), foreign);
        assert_eq!(ours.open(&sealed, 8).err(), foreign);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(ours.open(&changed, 7).is_err(), "byte {at}");
        }
        let length = sealed.len() - 1;
        let cut = ours.open(&sealed[..length], 7).err();
        assert_eq!(cut, Some(HandoverError::Length(length)));
    }

    #[test]
    fn a_public_key_that_everybody_shares_is_refused() {
        let sealed = membership().seal_to(&[0; 32], 7);
        assert_eq!(sealed.err(), Some(HandoverError::WeakKey));
    }
}
