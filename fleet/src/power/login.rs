//! Users and passwords of power devices: typed once, kept sealed, shown never.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// Longest password, in bytes. Controllers take 16 to 32.
const PASSWORD_MAX: usize = 256;
/// Longest user name, in bytes.
const USER_MAX: usize = 128;

/// A password; wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Password(Zeroizing<String>);

impl Password {
    /// A password of this text.
    pub(crate) fn new(text: String) -> Password {
        Password(Zeroizing::new(text))
    }

    /// The text, for the device only.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Password {
        Password::new(text)
    }
}

impl Serialize for Password {
    /// On its way to the server, or into the vault.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a driver logs in with.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Password,
    /// Tells this login apart from every other one, also from an older one of the same name.
    pub(crate) stamp: u64,
}

/// Body of `POST /api/v1/power/logins`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLogin {
    /// A profile, or `PROFILE:ADDRESS` for one device of it.
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) password: Password,
}

impl NewLogin {
    /// What is wrong with it, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let control = |text: &str| text.chars().any(char::is_control);
        if self.user.len() > USER_MAX || control(&self.user) {
            return Some("a user's name has up to 128 bytes and no control characters");
        }
        let password = self.password.text();
        if password.is_empty() || password.len() > PASSWORD_MAX || control(password) {
            return Some("a password has 1 to 256 bytes and no control characters");
        }
        None
    }
}

/// What is shown of a login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoginView {
    /// A profile, or `PROFILE:ADDRESS`.
    pub(crate) name: String,
    pub(crate) user: String,
    /// Seconds since 1970 when it was entered.
    pub(crate) entered: u64,
}

#[cfg(test)]
mod tests {
    use super::{NewLogin, Password};

    #[test]
    fn a_password_is_not_shown_by_accident() {
        let login = NewLogin {
            name: "bmc".to_owned(),
            user: "admin".to_owned(),
            password: Password::new("hunter2".to_owned()),
        };
        assert!(!format!("{login:?}").contains("hunter2"));
        assert_eq!(login.fault(), None);
        let line_end = NewLogin {
            password: Password::new("a\nb".to_owned()),
            ..login
        };
        assert!(line_end.fault().is_some());
    }
}
