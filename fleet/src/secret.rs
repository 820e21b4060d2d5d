//! Tokens: random, shown once, kept as a hash.

use ring::rand::{SecureRandom, SystemRandom};

use netflash_pxe::Hex32;

/// A secret text nobody can guess: 32 random bytes in hexadecimal.
pub(crate) fn fresh() -> String {
    Hex32(random()).to_string()
}

/// What the database keeps of a secret. The secret is random, so a plain hash cannot be inverted by trying.
pub(crate) fn hash(secret: &str) -> String {
    blake3::hash(secret.as_bytes()).to_hex().to_string()
}

/// Whether a secret is the one with this hash. Comparing hashes tells a timing attacker nothing of use.
pub(crate) fn matches(secret: &str, expected_hash: &str) -> bool {
    hash(secret) == expected_hash
}

/// 32 random bytes.
pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system has random numbers once it has booted");
    bytes
}

#[cfg(test)]
mod tests {
    use super::{fresh, hash, matches};

    #[test]
    fn a_secret_is_known_by_its_hash() {
        let secret = fresh();
        assert_eq!(secret.len(), 64);
        assert!(matches(&secret, &hash(&secret)));
        assert!(!matches(&fresh(), &hash(&secret)));
    }
}
