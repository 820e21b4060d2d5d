//! Why a machine was not switched, in the same words for every driver.

use std::fmt;

use serde::{Deserialize, Serialize};

use netflash_pxe::plain;

/// Longest explanation kept, in characters.
const DETAIL_MAX: usize = 300;

/// What went wrong. The JSON word is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    /// Nothing answers at the address.
    Unreachable,
    /// Something answers, but not in time.
    TimedOut,
    /// The device does not take the user or the password. Nobody tries again by itself: devices lock accounts.
    WrongPassword,
    /// The device's certificate is not the pinned one, or it speaks no TLS we speak.
    TlsMismatch,
    /// Somebody at the machine must agree first.
    UserConsent,
    /// The device, or another order, has the machine.
    Busy,
    /// The device said no.
    Refused,
    /// The device cannot do this.
    Unsupported,
    /// It accepted, but the state did not change in time.
    NotConfirmed,
    /// It was switched on, but never asked the server what to boot.
    NotSeen,
    /// Its answer makes no sense.
    Garbage,
    /// The machine's power setting, or its login, names nothing usable.
    Setting,
}

impl Failure {
    /// For a table.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Failure::Unreachable => "unreachable",
            Failure::TimedOut => "timed out",
            Failure::WrongPassword => "wrong user or password",
            Failure::TlsMismatch => "TLS mismatch",
            Failure::UserConsent => "user consent needed",
            Failure::Busy => "busy",
            Failure::Refused => "refused",
            Failure::Unsupported => "unsupported",
            Failure::NotConfirmed => "accepted, not confirmed",
            Failure::NotSeen => "not seen at the server",
            Failure::Garbage => "unexpected answer",
            Failure::Setting => "setting",
        }
    }

    /// The failure with what is known of it. The text may come from a device.
    pub(crate) fn because(self, detail: impl AsRef<str>) -> PowerError {
        PowerError {
            failure: self,
            detail: plain(detail.as_ref(), DETAIL_MAX),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A failure, and what the device said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{failure}: {detail}")]
pub(crate) struct PowerError {
    /// The word.
    pub(crate) failure: Failure,
    /// What is known of it, without control characters.
    pub(crate) detail: String,
}

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn what_a_device_says_cannot_paint_the_terminal() {
        let error = Failure::Refused.because("no\u{1b}[2J\n");
        assert_eq!(error.to_string(), "refused: no [2J");
    }

    #[test]
    fn the_words_in_json_are_stable() {
        let word = serde_json::to_string(&Failure::WrongPassword).unwrap();
        assert_eq!(word, "\"wrong-password\"");
    }
}
