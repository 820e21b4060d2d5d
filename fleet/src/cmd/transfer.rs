//! What `send` and `receive` have in common: keys, the result, and how a rate is shown.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use netflash_multicast::{KeyError, Membership, SenderSeal, SessionKey, SigningKey, Suite};
use serde::Serialize;
use zeroize::Zeroizing;

/// A shared secret shorter than this is no secret, in bytes.
const SECRET_BYTES_MIN: usize = 16;
/// Separates keys made from one secret for different ends.
const SIGNING_CONTEXT: &str = "netflash 2026 session signing key of a shared secret";

/// The result of a transfer, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct TransferResult {
    pub(crate) image_id: String,
    pub(crate) seconds: f64,
    pub(crate) wire_bytes: u64,
    pub(crate) datagrams: u64,
    pub(crate) source_symbols: u64,
    pub(crate) repair_symbols: u64,
    /// Bits per second in the end; only the sender knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) rate_changes: Vec<RateChangeResult>,
    pub(crate) receivers: Vec<ReceiverResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<FallbackResult>,
}

/// What came or went over HTTP.
#[derive(Debug, Serialize)]
pub(crate) struct FallbackResult {
    /// In which way multicast failed; the sender does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) bytes: u64,
}

/// One change of an automatic rate.
#[derive(Debug, Serialize)]
pub(crate) struct RateChangeResult {
    /// Since the first announce.
    pub(crate) seconds: f64,
    /// Bits per second from then on.
    pub(crate) bits: u64,
    pub(crate) reason: String,
}

/// One machine of it.
#[derive(Debug, Serialize)]
pub(crate) struct ReceiverResult {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) received_bytes: u64,
    pub(crate) lost_symbols: u64,
    pub(crate) verified: bool,
}

/// The keys that everybody with one secret computes: whoever has it may send as well as receive.
#[derive(Debug)]
pub(crate) struct SharedKeys {
    pub(crate) signing: SigningKey,
    session: SessionKey,
}

impl SharedKeys {
    /// The keys of the secret in a file.
    pub(crate) fn of_file(path: &Path) -> anyhow::Result<SharedKeys> {
        let secret = fs::read(path).map(Zeroizing::new);
        let secret = secret.with_context(|| format!("reading key file {}", path.display()))?;
        ensure!(
            secret.len() >= SECRET_BYTES_MIN,
            "key file {} has {} bytes; a secret needs at least {SECRET_BYTES_MIN}",
            path.display(),
            secret.len()
        );
        let seed = Zeroizing::new(blake3::derive_key(SIGNING_CONTEXT, &secret));
        Ok(SharedKeys {
            signing: SigningKey::from_seed(&seed),
            session: SessionKey::of_secret(&secret),
        })
    }

    /// The seal of one sender.
    pub(crate) fn seal(&self) -> Result<SenderSeal, KeyError> {
        let report_secret = self.session.report_secret();
        SenderSeal::new(self.session.clone(), report_secret, Suite::fastest_here())
    }

    /// The keys of a receiver.
    pub(crate) fn membership(&self) -> Membership {
        Membership::of_key(&self.session)
    }
}

/// Seconds with milliseconds.
pub(crate) fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}

/// A share of a whole in per cent; all of nothing is everything.
pub(crate) fn percent(part: u64, whole: u64) -> u64 {
    (part.min(whole) * 100).checked_div(whole).unwrap_or(100)
}

/// Megabytes per second.
pub(crate) fn megabytes_per_second(bytes: u64, span: Duration) -> f64 {
    bytes as f64 / 1e6 / span.as_secs_f64().max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_everybody_the_same_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        fs::write(&path, "sixteen bytes or more").expect("written");
        let keys = || SharedKeys::of_file(&path).expect("long enough");
        let (ours, theirs) = (keys(), keys());
        assert_eq!(ours.signing.verify_key(), theirs.signing.verify_key());
        assert_eq!(ours.session.as_bytes(), theirs.session.as_bytes());
        fs::write(&path, "another sixteen bytes").expect("written");
        assert_ne!(keys().session.as_bytes(), ours.session.as_bytes());
    }

    #[test]
    fn a_short_secret_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key");
        fs::write(&path, "short").expect("written");
        let error = SharedKeys::of_file(&path).expect_err("too short");
        assert!(error.to_string().contains("at least 16"), "{error}");
    }

    #[test]
    fn all_of_nothing_is_everything() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(1, 3), 33);
    }
}
