//! The keys of a running session. They live as long as its sender, in memory only.

use netflash_multicast::{
    KeyError, Membership, ReportSecret, SenderSeal, SessionKey, SigningKey, Suite,
};
use serde::Deserialize;

/// Which cipher seals the sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Cipher {
    /// What is fastest on this server; nearly everywhere AES.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// AES-256-GCM.
    #[serde(rename = "aes-256-gcm")]
    Aes,
    /// ChaCha20-Poly1305, for machines without AES instructions.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha,
}

impl Cipher {
    fn suite(self) -> Suite {
        match self {
            Cipher::Auto => Suite::fastest_here(),
            Cipher::Aes => Suite::Aes256Gcm,
            Cipher::ChaCha => Suite::ChaCha20Poly1305,
        }
    }
}

/// What one sender signs and seals with.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) signing: SigningKey,
    pub(super) seal: Option<SenderSeal>,
    pub(super) secrets: Option<Secrets>,
}

/// What machines get their keys from.
#[derive(Debug, Clone)]
pub(super) struct Secrets {
    session_key: SessionKey,
    report_secret: ReportSecret,
}

impl Keys {
    /// Fresh ones; sealing ones if there is a cipher.
    pub(super) fn generate(cipher: Option<Cipher>) -> Result<Keys, KeyError> {
        let mut keys = Keys {
            signing: SigningKey::generate()?,
            seal: None,
            secrets: None,
        };
        if let Some(cipher) = cipher {
            let secrets = Secrets {
                session_key: SessionKey::generate()?,
                report_secret: ReportSecret::generate()?,
            };
            let (key, report) = (secrets.session_key.clone(), secrets.report_secret.clone());
            keys.seal = Some(SenderSeal::new(key, report, cipher.suite())?);
            keys.secrets = Some(secrets);
        }
        Ok(keys)
    }
}

impl Secrets {
    /// What machine number `machine` needs to take part.
    pub(super) fn membership(&self, machine: u32) -> Membership {
        Membership {
            machine,
            session_key: self.session_key.clone(),
            report_key: self.report_secret.key_of(machine),
        }
    }
}
