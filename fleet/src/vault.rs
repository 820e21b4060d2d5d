//! What the server must be able to read again, sealed at rest: logins of power devices.
//!
//! A copy of the database alone gives nothing away; the key is a file of its own beside it. Each secret is bound to
//! its name, so that a row cannot be passed off as another one.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use netflash_pxe::Hex32;

use crate::data_dir::{DataDir, DirError};
use crate::secret;

const KEY_FILE: &str = "vault.key";

/// Why a secret cannot be sealed or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The key cannot be read or written.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The key's file holds something else.
    #[error("{KEY_FILE} holds no key; restore it, or remove it and enter the logins again")]
    Key,
    /// What was sealed is not what this key sealed under this name.
    #[error("{0:?} was sealed with another key than {KEY_FILE}, or changed; enter it again")]
    Sealed(String),
}

/// The key that seals secrets at rest.
pub(crate) struct Vault(LessSafeKey);

impl Vault {
    /// The vault of a directory; its key is made at the first start.
    pub(crate) fn open(dir: &DataDir) -> Result<Vault, VaultError> {
        let key = match dir.read(KEY_FILE)? {
            Some(text) => {
                let text = Zeroizing::new(text);
                text.trim().parse::<Hex32>().map_err(|_| VaultError::Key)?.0
            }
            None => {
                let key = secret::random();
                let text = Zeroizing::new(format!("{}\n", Hex32(key)));
                dir.write(KEY_FILE, 0o600, text.as_bytes())?;
                key
            }
        };
        let key = Zeroizing::new(key);
        let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| VaultError::Key)?;
        Ok(Vault(LessSafeKey::new(key)))
    }

    /// Seal a secret under its name.
    pub(crate) fn seal(&self, name: &str, secret: &str) -> Vec<u8> {
        // 96 random bits: far fewer than 2^32 logins are ever sealed with one key.
        let random = secret::random();
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&random[..NONCE_LEN]);
        let mut body = secret.as_bytes().to_vec();
        let bound = Aad::from(name.as_bytes());
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut body)
            .expect("a secret is far shorter than AES-GCM allows");
        [nonce.as_slice(), &body].concat()
    }

    /// Read a secret that was sealed under this name.
    pub(crate) fn read(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<String>, VaultError> {
        let wrong = || VaultError::Sealed(name.to_owned());
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = Zeroizing::new(body.to_vec());
        let bound = Aad::from(name.as_bytes());
        let clear = self
            .0
            .open_in_place(nonce, bound, &mut body)
            .map_err(|_| wrong())?;
        let text = std::str::from_utf8(clear).map_err(|_| wrong())?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

#[cfg(test)]
mod tests {
    use super::{KEY_FILE, Vault};
    use crate::data_dir::DataDir;

    #[test]
    fn a_secret_is_read_back_by_the_same_server_under_the_same_name_only() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let sealed = Vault::open(&dir).unwrap().seal("bmc", "hunter2");
        assert!(!sealed.windows(7).any(|bytes| bytes == b"hunter2"));
        let again = Vault::open(&dir).unwrap();
        assert_eq!(again.read("bmc", &sealed).unwrap().as_str(), "hunter2");
        assert!(again.read("pdu", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(again.read("bmc", &changed).is_err(), "byte {at}");
        }
        assert!(again.read("bmc", &sealed[..5]).is_err());
        std::fs::remove_file(dir.path(KEY_FILE)).unwrap();
        let other = Vault::open(&dir).unwrap().read("bmc", &sealed);
        assert!(other.unwrap_err().to_string().contains("enter it again"));
    }

    #[test]
    fn equal_secrets_look_different() {
        let scratch = tempfile::tempdir().unwrap();
        let vault = Vault::open(&DataDir::open(scratch.path()).unwrap()).unwrap();
        assert_ne!(vault.seal("a", "x"), vault.seal("a", "x"));
    }
}
