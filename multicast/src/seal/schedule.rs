//! From secrets to the keys that seal: BLAKE3 in its key derivation mode, one context for each purpose.

use zeroize::Zeroizing;

use crate::keys::VerifyKey;

use super::{Cipher, ReportKey, Salt, Sealing, SessionKey};

const DATA: &str = "netflash 2026 data key of a sender";
const ANNOUNCE: &str = "netflash 2026 announce key of a sender";
const REPORTS: &str = "netflash 2026 report cipher of one start of a machine";
const NAME: &str = "netflash 2026 name of one start of a machine";

/// Secret, session, suite, salt and the sender's public key.
const MATERIAL_BYTES: usize = 32 + 4 + 1 + Salt::BYTES + 32;

/// What every key that seals is bound to, so that no two senders ever share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) session: u32,
    pub(crate) sealing: Sealing,
    pub(crate) sender: VerifyKey,
}

/// The keys of what everybody hears.
#[derive(Debug)]
pub(crate) struct GroupKeys {
    pub(crate) data: Cipher,
    pub(crate) announce: Cipher,
}

/// One start of one machine, as it and the sender know it.
#[derive(Debug)]
pub(crate) struct Member {
    /// Seals its reports.
    pub(crate) cipher: Cipher,
    /// What the sender calls it. Nobody can choose another's: it takes that machine's key to compute it.
    pub(crate) name: u64,
}

impl GroupKeys {
    pub(crate) fn new(key: &SessionKey, binding: &Binding) -> GroupKeys {
        let material = binding.material(key.as_bytes());
        let cipher = |context| binding.cipher(context, &*material);
        GroupKeys {
            data: cipher(DATA),
            announce: cipher(ANNOUNCE),
        }
    }
}

impl Member {
    /// The machine with `key` that drew `number` at its start.
    pub(crate) fn new(key: &ReportKey, binding: &Binding, number: u64) -> Member {
        let mut material = Zeroizing::new([0; MATERIAL_BYTES + 8]);
        let (shared, own) = material.split_at_mut(MATERIAL_BYTES);
        shared.copy_from_slice(&*binding.material(key.as_bytes()));
        own.copy_from_slice(&number.to_be_bytes());
        let name = blake3::derive_key(NAME, &*material);
        let mut first = [0; 8];
        first.copy_from_slice(&name[..8]);
        Member {
            cipher: binding.cipher(REPORTS, &*material),
            name: u64::from_be_bytes(first),
        }
    }
}

impl Binding {
    fn material(&self, secret: &[u8; 32]) -> Zeroizing<[u8; MATERIAL_BYTES]> {
        let mut material = Zeroizing::new([0; MATERIAL_BYTES]);
        let mut at = 0;
        let mut append = |bytes: &[u8]| {
            material[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        append(secret);
        append(&self.session.to_be_bytes());
        append(&[self.sealing.suite as u8]);
        append(&self.sealing.salt.0);
        append(&self.sender.0);
        material
    }

    fn cipher(&self, context: &str, material: &[u8]) -> Cipher {
        let key = Zeroizing::new(blake3::derive_key(context, material));
        Cipher::new(self.sealing.suite, &key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Suite;

    fn binding() -> Binding {
        let (suite, salt) = (Suite::Aes256Gcm, Salt([3; 16]));
        Binding {
            session: 7,
            sealing: Sealing { suite, salt },
            sender: VerifyKey([4; 32]),
        }
    }

    /// Whether what `one` seals, `other` opens.
    fn agree(one: &Cipher, other: &Cipher) -> bool {
        let mut out = b"text".to_vec();
        one.seal(1, &mut out, 0, 0);
        other.open(1, &[], &out, &mut Vec::new()).is_some()
    }

    #[test]
    fn a_key_is_bound_to_everything_it_shall_be_bound_to() {
        let key = SessionKey::from_bytes([1; 32]);
        let ours = GroupKeys::new(&key, &binding());
        assert!(agree(&ours.data, &GroupKeys::new(&key, &binding()).data));
        assert!(!agree(&ours.data, &ours.announce));
        let sealing = |suite, salt| Sealing { suite, salt };
        let others = [
            Binding {
                session: 8,
                ..binding()
            },
            Binding {
                sender: VerifyKey([5; 32]),
                ..binding()
            },
            Binding {
                sealing: sealing(Suite::Aes256Gcm, Salt([9; 16])),
                ..binding()
            },
            Binding {
                sealing: sealing(Suite::ChaCha20Poly1305, Salt([3; 16])),
                ..binding()
            },
        ];
        for other in others {
            assert!(!agree(&ours.data, &GroupKeys::new(&key, &other).data));
        }
    }

    #[test]
    fn each_start_of_a_machine_has_a_key_and_a_name() {
        let key = ReportKey::from_bytes([2; 32]);
        let (one, same) = (
            Member::new(&key, &binding(), 1),
            Member::new(&key, &binding(), 1),
        );
        assert!(agree(&one.cipher, &same.cipher) && one.name == same.name);
        let other = Member::new(&key, &binding(), 2);
        assert!(!agree(&one.cipher, &other.cipher) && one.name != other.name);
        let stranger = Member::new(&ReportKey::from_bytes([9; 32]), &binding(), 1);
        assert!(!agree(&one.cipher, &stranger.cipher) && one.name != stranger.name);
    }
}
