//! A machine that was not booted over the network asks what it shall do.
//!
//! Whoever started from a stick, a CD or by kexec has the server's authority and address, and no token: media are
//! copied, so nothing on them may open anything. It says who it is, over TLS, and hears the same decision that iPXE
//! would have got; only a known machine with a job gets a token. Everybody else waits and knocks again.

use serde::{Deserialize, Serialize};

use crate::contract::{LIST_MAX, TEXT_MAX};
use crate::{ContractError, Firmware, Identity};

/// Path of the knock.
pub const API_KNOCK: &str = "/agent/v1/knock";

/// What such a machine says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knock {
    /// Who it is.
    pub identity: Identity,
    /// How it was started.
    pub firmware: Firmware,
    /// Whether it has knocked since it was started: what is decided as before is not worth another line in the log.
    pub again: bool,
}

/// What it hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnockAnswer {
    /// The one-time token to say hello with, when there is something to do.
    pub token: Option<String>,
    /// The decision in plain words, for the console.
    pub reason: String,
    /// Seconds to wait before knocking again without a token.
    pub again_seconds: u32,
}

impl Knock {
    /// Check the sizes of everything the sender chose.
    ///
    /// # Errors
    /// Names the list or text that is too long.
    pub fn check(&self) -> Result<(), ContractError> {
        let found = self.identity.macs.len();
        if found > LIST_MAX {
            let what = "identity.macs";
            return Err(ContractError::List { what, found });
        }
        let identity = &self.identity;
        for (what, text) in [
            ("identity.uuid", &identity.uuid),
            ("identity.serial", &identity.serial),
            ("identity.board_serial", &identity.board_serial),
        ] {
            let found = text.as_ref().map_or(0, String::len);
            if found > TEXT_MAX {
                return Err(ContractError::Text { what, found });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Knock;
    use crate::{ContractError, Firmware, Identity, Mac};

    #[test]
    fn a_knock_of_a_hostile_size_is_refused() {
        let mut knock = Knock {
            identity: Identity::default(),
            firmware: Firmware::Uefi,
            again: false,
        };
        assert_eq!(knock.check(), Ok(()));
        knock.identity.macs = vec![Mac([2; 6]); 257];
        assert!(matches!(knock.check(), Err(ContractError::List { .. })));
        knock.identity.macs.clear();
        knock.identity.serial = Some("x".repeat(513));
        assert!(matches!(knock.check(), Err(ContractError::Text { .. })));
    }
}
