//! The secrets a session is sealed with. They are wiped when dropped and never printed.

use std::fmt;

use zeroize::Zeroizing;

use crate::keys::KeyError;

use super::random;

const OF_SECRET: &str = "netflash 2026 session key of a shared secret";
const OF_SESSION_KEY: &str = "netflash 2026 report secret of a session key";
const OF_MACHINE: &str = "netflash 2026 report key of a machine";

/// What everybody of a session shares: it seals data and announces.
#[derive(Clone)]
pub struct SessionKey(Zeroizing<[u8; 32]>);

/// What only the sender has, and every machine's report key is made from.
#[derive(Clone)]
pub struct ReportSecret(Zeroizing<[u8; 32]>);

/// What one machine seals its reports with.
#[derive(Clone)]
pub struct ReportKey(Zeroizing<[u8; 32]>);

macro_rules! secret {
    ($($name:ident)*) => {$(
        impl $name {
            /// The key of these bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> $name {
                $name(Zeroizing::new(bytes))
            }

            /// Its bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}

secret!(SessionKey ReportSecret ReportKey);

impl SessionKey {
    /// A key for one session.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`] when the operating system gives no random bytes.
    pub fn generate() -> Result<SessionKey, KeyError> {
        random().map(SessionKey::from_bytes)
    }

    /// The key that everybody with this secret computes. A secret that can be guessed gives a key that can be
    /// guessed: it is not stretched.
    pub fn of_secret(secret: &[u8]) -> SessionKey {
        SessionKey::from_bytes(blake3::derive_key(OF_SECRET, secret))
    }

    /// The report secret of sessions without a server, where whoever has the session key may be sender and machine.
    pub fn report_secret(&self) -> ReportSecret {
        ReportSecret::from_bytes(blake3::derive_key(OF_SESSION_KEY, self.as_bytes()))
    }
}

impl ReportSecret {
    /// A secret for one session.
    ///
    /// # Errors
    /// [`KeyError::NoRandom`] when the operating system gives no random bytes.
    pub fn generate() -> Result<ReportSecret, KeyError> {
        random().map(ReportSecret::from_bytes)
    }

    /// The key of machine `machine`. It says nothing about any other machine's.
    pub fn key_of(&self, machine: u32) -> ReportKey {
        let mut material = Zeroizing::new([0; 36]);
        material[..32].copy_from_slice(self.as_bytes());
        material[32..].copy_from_slice(&machine.to_be_bytes());
        ReportKey::from_bytes(blake3::derive_key(OF_MACHINE, &*material))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_a_key_of_its_own() {
        let secret = SessionKey::of_secret(b"a shared secret").report_secret();
        assert_eq!(secret.key_of(3).as_bytes(), secret.key_of(3).as_bytes());
        assert_ne!(secret.key_of(3).as_bytes(), secret.key_of(4).as_bytes());
        assert_ne!(secret.key_of(3).as_bytes(), secret.as_bytes());
    }

    #[test]
    fn a_secret_is_not_printed() {
        let key = SessionKey::from_bytes([0x5a; 32]);
        let text = format!("{key:?} {:?} {:?}", key.report_secret(), key);
        assert_eq!(text, "SessionKey(..) ReportSecret(..) SessionKey(..)");
    }
}
