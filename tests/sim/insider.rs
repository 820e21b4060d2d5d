//! A machine of the room that turned hostile: it has the key of the session and a report key of its own.
//!
//! Keys and bytes are made here after `docs/PROTOCOL.md`, not by the code under test.

use netflash_multicast::{ReportKey, SessionKey, VerifyKey};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::chance::Chance;

const DATA_KEY: &str = "netflash 2026 data key of a sender";
const REPORT_KEY: &str = "netflash 2026 report cipher of one start of a machine";
/// AES-256-GCM, as announces say it.
const CIPHER: u8 = 1;
/// First byte of a data datagram, of a report.
const DATA: u8 = 0x11;
const REPORT: u8 = 0x13;
/// What says in the second byte that a datagram is sealed.
const SEALED: u8 = 0x80;
/// Where a data datagram has its number and its symbol begins; where a report has its number, its start and its body.
const SEQUENCE_AT: usize = 6;
const SYMBOL_AT: usize = 16;
const NUMBER_AT: usize = 10;
const START_AT: usize = 14;
const BODY_AT: usize = 22;
const TAG_BYTES: usize = 16;

/// What it knows.
pub(super) struct Insider {
    data: LessSafeKey,
    report_key: [u8; 32],
    /// Session, cipher, salt and the sender's key: what every key is bound to.
    binding: Vec<u8>,
}

impl Insider {
    /// One who was told the keys of this session.
    pub(super) fn new(
        session: u32,
        salt: [u8; 16],
        sender: &VerifyKey,
        key: &SessionKey,
        own: &ReportKey,
    ) -> Insider {
        let mut binding = session.to_be_bytes().to_vec();
        binding.push(CIPHER);
        binding.extend_from_slice(&salt);
        binding.extend_from_slice(&sender.0);
        let material = [key.as_bytes().as_slice(), &binding].concat();
        Insider {
            data: cipher(DATA_KEY, &material),
            report_key: *own.as_bytes(),
            binding,
        }
    }

    /// Something that looks right and is not, made of a genuine datagram; `None` when it is no use.
    pub(super) fn forge(&self, chance: &mut Chance, genuine: &[u8]) -> Option<Vec<u8>> {
        if genuine.len() < BODY_AT + TAG_BYTES || genuine[1] & SEALED == 0 {
            return None;
        }
        match genuine[0] {
            DATA => self.wrong_symbol(chance, genuine),
            REPORT => Some(self.in_the_name_of(chance, genuine)),
            _ => None,
        }
    }

    /// The symbol with other bytes, or the same as another symbol or block, under a right seal.
    fn wrong_symbol(&self, chance: &mut Chance, genuine: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = genuine.split_at(SYMBOL_AT);
        let mut symbol = sealed.to_vec();
        let number = head[SEQUENCE_AT..SEQUENCE_AT + 4].try_into().ok()?;
        let opened = self
            .data
            .open_in_place(nonce(number), Aad::from(head), &mut symbol)
            .ok()?;
        let mut forged = head.to_vec();
        let mut symbol = opened.to_vec();
        if chance.hit(0.5) {
            let at = chance.range(0, symbol.len() as u64 - 1) as usize;
            symbol[at] ^= chance.range(1, 255) as u8;
        } else {
            let at = chance.range(SEQUENCE_AT as u64, SYMBOL_AT as u64 - 1) as usize;
            forged[at] = chance.draw() as u8;
        }
        let number = forged[SEQUENCE_AT..SEQUENCE_AT + 4].try_into().ok()?;
        seal(&self.data, number, &mut forged, &symbol);
        Some(forged)
    }

    /// A report with the number and the start of another machine, sealed with its own key: it has no other.
    fn in_the_name_of(&self, chance: &mut Chance, genuine: &[u8]) -> Vec<u8> {
        let mut forged = genuine[..BODY_AT].to_vec();
        // "Done", or whatever.
        forged[1] = SEALED | chance.range(0, 5) as u8;
        let number = (chance.draw() as u32).to_be_bytes();
        forged[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&number);
        let body = chance.bytes(genuine.len() - BODY_AT - TAG_BYTES);
        let key = self.key_of_start(&genuine[START_AT..BODY_AT]);
        seal(&key, number, &mut forged, &body);
        forged
    }

    /// What seals the reports of one start of this machine.
    fn key_of_start(&self, start: &[u8]) -> LessSafeKey {
        cipher(
            REPORT_KEY,
            &[&self.report_key[..], &self.binding, start].concat(),
        )
    }
}

fn cipher(context: &str, material: &[u8]) -> LessSafeKey {
    let key = blake3::derive_key(context, material);
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("a key of 32 bytes"))
}

fn seal(key: &LessSafeKey, number: [u8; 4], head: &mut Vec<u8>, body: &[u8]) {
    let mut body = body.to_vec();
    let tag = key.seal_in_place_separate_tag(nonce(number), Aad::from(&*head), &mut body);
    head.extend_from_slice(&body);
    head.extend_from_slice(tag.expect("a datagram is short").as_ref());
}

fn nonce(number: [u8; 4]) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 4..].copy_from_slice(&number);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use netflash_multicast::{
        Instant, Layout, ObjectId, Rate, Receiver, ReceiverConfig, ReedSolomon, Sender,
        SenderConfig, SigningKey, StartRule,
    };

    use super::super::world::Secrets;
    use super::*;

    const OWN: u32 = 9;

    /// A datagram of a sealed session, and a report of machine 9 about it.
    fn overheard(secrets: &Secrets, signing_key: SigningKey) -> (Vec<u8>, Vec<u8>) {
        let config = SenderConfig {
            session: 5,
            object_id: ObjectId(*blake3::hash(&[1; 600]).as_bytes()),
            signing_key,
            seal: Some(secrets.seal()),
            reply_to: None,
            symbol_bytes: 512,
            rate: Rate::Fixed(8_000_000),
            start: StartRule {
                receivers: 0,
                wait: Duration::ZERO,
            },
            linger: Duration::from_secs(10),
        };
        let layout = Layout::new(vec![4000]).expect("one block");
        let mut now = Instant::ZERO;
        let mut sender = Sender::new(now, config, &[1; 600], layout, ReedSolomon::new())
            .expect("a sane configuration");
        let expected = ReceiverConfig {
            id: 77,
            name: "nine".to_owned(),
            session: None,
            verify_key: None,
            membership: Some(secrets.membership(OWN)),
            object_id: None,
            silence: Duration::from_secs(20),
            chance: Box::new(|| 1),
        };
        let mut receiver = Receiver::new(now, expected, ReedSolomon::new());
        let (from, mut datum, mut report) = (
            SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            Vec::new(),
            Vec::new(),
        );
        while datum.is_empty() || report.is_empty() {
            now = now.after(Duration::from_millis(5));
            assert!(now < Instant::from_micros(9_000_000), "nobody speaks");
            sender.handle_timeout(now);
            let mut sent = Vec::new();
            while sender.poll_transmit(now, &mut sent).is_some() {
                receiver.handle_datagram(now, from, &sent);
                if sent[0] == DATA {
                    datum.clone_from(&sent);
                }
                sent.clear();
            }
            receiver.handle_timeout(now);
            if report.is_empty() {
                let _nobody = receiver.poll_transmit(now, &mut report);
            }
        }
        (datum, report)
    }

    #[test]
    fn it_opens_what_the_session_says_and_what_it_says_itself() {
        let mut chance = Chance::new(1);
        let secrets = Secrets::new(&mut chance);
        let signing_key = SigningKey::from_seed(&[4; 32]);
        let sender = signing_key.verify_key();
        let own = secrets.membership(OWN).report_key;
        let insider = Insider::new(5, secrets.salt, &sender, &secrets.key, &own);
        let (datum, report) = overheard(&secrets, signing_key);
        let forged = insider.forge(&mut chance, &datum);
        let forged = forged.expect("the symbol is opened");
        assert!(forged.len() == datum.len() && forged != datum);
        assert!(insider.forge(&mut chance, &forged).is_some());
        let (head, body) = report.split_at(BODY_AT);
        let number = head[NUMBER_AT..START_AT].try_into().expect("four bytes");
        let key = insider.key_of_start(&head[START_AT..]);
        let mut body = body.to_vec();
        let opened = key.open_in_place(nonce(number), Aad::from(head), &mut body);
        assert!(opened.is_ok_and(|said| said.windows(4).any(|name| name == b"nine")));
    }
}
