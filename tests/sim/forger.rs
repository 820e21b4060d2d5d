//! Whoever sends what nobody asked for: noise, old and damaged datagrams, another session on the same
//! group, and datagrams whose form is right and whose content is not.
//!
//! Offsets are those of `docs/PROTOCOL.md`, written here once more: the forger is no friend of the code.

use std::time::Duration;

use netflash_multicast::{
    Instant, Layout, ObjectId, Rate, ReedSolomon, Sender, SenderConfig, SenderEvent, SigningKey,
    StartRule,
};

use super::chance::Chance;
use super::insider::Insider;
use super::scenario::{Fault, Scenario};
use super::world::Truth;

/// First byte of a data datagram, of an announce, of a report.
const DATA: u8 = 0x11;
const ANNOUNCE: u8 = 0x12;
const REPORT: u8 = 0x13;
/// Where a data datagram has its block; the high bit marks the preamble.
const BLOCK_AT: usize = 10;
/// Where a report has the number of its machine.
const RECEIVER_AT: usize = 14;
/// Number of the machine that turned hostile; none of the room has it.
const OWN_NUMBER: u32 = 9;
/// Datagrams a forger remembers.
const MEMORY: usize = 64;

/// Whether this is a data datagram of the payload.
pub(super) fn is_payload(datagram: &[u8]) -> bool {
    datagram.len() > BLOCK_AT && datagram[0] == DATA && datagram[BLOCK_AT] & 0x80 == 0
}

#[derive(Clone, Copy)]
enum Trick {
    Noise,
    Damaged,
    Replay,
    Foreign,
    Wrong,
}

/// An attacker on the LAN.
pub(super) struct Forger {
    tricks: Vec<Trick>,
    /// Datagrams overheard, and whether they went to the sender.
    heard: Vec<(bool, Vec<u8>)>,
    turns: usize,
    /// What a machine of a sealed session can do that turned hostile.
    insider: Option<Insider>,
    foreign: Sender<ReedSolomon>,
    foreign_now: Instant,
    foreign_blocks: Vec<u32>,
}

impl Forger {
    pub(super) fn new(scenario: &Scenario, truth: &Truth, mut chance: Chance) -> Forger {
        let mut tricks = Vec::new();
        for fault in &scenario.faults {
            match fault {
                Fault::Forge => tricks.extend([Trick::Noise, Trick::Damaged, Trick::Replay]),
                Fault::Hostile => tricks.push(Trick::Wrong),
                Fault::ForeignSession => tricks.push(Trick::Foreign),
                _ => {}
            }
        }
        Forger {
            tricks,
            heard: Vec::new(),
            turns: 0,
            insider: truth.secrets.as_ref().map(|secrets| {
                let own = secrets.membership(OWN_NUMBER).report_key;
                let (session, sender) = (truth.session, &truth.verify_key);
                Insider::new(session, secrets.salt, sender, &secrets.key, &own)
            }),
            foreign: foreign_sender(scenario, truth, &mut chance),
            foreign_now: Instant::ZERO,
            foreign_blocks: scenario.blocks.clone(),
        }
    }

    /// Remembers what is on the wire.
    pub(super) fn overhear(&mut self, datagram: &[u8], to_sender: bool) {
        if self.tricks.is_empty() {
            return;
        }
        self.turns += 1;
        let heard = (to_sender, datagram.to_vec());
        if self.heard.len() < MEMORY {
            self.heard.push(heard);
        } else if self.turns.is_multiple_of(7) {
            let at = self.turns / 7 % MEMORY;
            self.heard[at] = heard;
        }
    }

    /// A datagram, and whether it goes to the sender rather than to the group.
    pub(super) fn forge(&mut self, chance: &mut Chance) -> (bool, Vec<u8>) {
        let trick = match self.tricks.len() {
            0 => Trick::Noise,
            count => self.tricks[chance.range(0, count as u64 - 1) as usize],
        };
        let heard = match self.heard.len() {
            0 => None,
            count => Some(self.heard[chance.range(0, count as u64 - 1) as usize].clone()),
        };
        match (trick, heard) {
            (Trick::Foreign, _) => (false, self.of_the_other_session(chance)),
            (Trick::Noise, _) | (_, None) => (chance.hit(0.3), noise(chance)),
            (Trick::Replay, Some(heard)) => heard,
            (Trick::Damaged, Some((to_sender, mut bytes))) => {
                for _ in 0..chance.range(1, 4) {
                    let at = chance.range(0, bytes.len() as u64 - 1) as usize;
                    bytes[at] ^= chance.range(1, 255) as u8;
                }
                match chance.range(0, 4) {
                    0 => bytes.truncate(chance.range(0, bytes.len() as u64) as usize),
                    1 => bytes.extend(chance.bytes(8)),
                    _ => {}
                }
                (to_sender, bytes)
            }
            (Trick::Wrong, Some((to_sender, bytes))) => {
                let insider = self.insider.as_ref();
                let forged = insider.and_then(|insider| insider.forge(chance, &bytes));
                (to_sender, forged.unwrap_or_else(|| wrong(chance, bytes)))
            }
        }
    }

    fn of_the_other_session(&mut self, chance: &mut Chance) -> Vec<u8> {
        if chance.hit(0.05) {
            self.foreign.end(self.foreign_now);
        }
        for _ in 0..100 {
            self.foreign_now = self
                .foreign_now
                .after(Duration::from_millis(chance.range(1, 50)));
            if self
                .foreign
                .poll_timeout()
                .is_some_and(|due| due <= self.foreign_now)
            {
                self.foreign.handle_timeout(self.foreign_now);
            }
            while let Some(event) = self.foreign.poll_event() {
                if let SenderEvent::NeedBlock(block) = event {
                    let bytes = self.foreign_blocks[block.index() as usize] as usize;
                    let fits = self.foreign.provide(block, chance.bytes(bytes));
                    fits.expect("the block is as long as its layout says");
                }
            }
            let mut datagram = Vec::new();
            if self
                .foreign
                .poll_transmit(self.foreign_now, &mut datagram)
                .is_some()
            {
                return datagram;
            }
        }
        noise(chance)
    }
}

/// A sender of something else. Only an insider takes the number of our session, a data datagram of
/// which carries no proof of its origin yet.
fn foreign_sender(scenario: &Scenario, truth: &Truth, chance: &mut Chance) -> Sender<ReedSolomon> {
    let preamble = chance.bytes(scenario.preamble_bytes);
    let mut seed = [0; 32];
    seed.copy_from_slice(&chance.bytes(32));
    let config = SenderConfig {
        session: if scenario.faults.contains(&Fault::Hostile) && chance.hit(0.5) {
            truth.session
        } else {
            chance.draw() as u32
        },
        object_id: ObjectId(*blake3::hash(&preamble).as_bytes()),
        signing_key: SigningKey::from_seed(&seed),
        seal: None,
        reply_to: None,
        symbol_bytes: scenario.symbol_bytes,
        rate: Rate::Fixed(scenario.rate_bits),
        start: StartRule {
            receivers: 0,
            wait: Duration::ZERO,
        },
        linger: Duration::from_secs(3600),
    };
    let layout = Layout::new(scenario.blocks.clone()).expect("a scenario has sane blocks");
    Sender::new(Instant::ZERO, config, &preamble, layout, ReedSolomon::new())
        .expect("a scenario has a sane configuration")
}

fn noise(chance: &mut Chance) -> Vec<u8> {
    let length = chance.range(0, 1600) as usize;
    let mut bytes = chance.bytes(length);
    if let Some(first) = bytes.first_mut() {
        *first = [DATA, ANNOUNCE, REPORT, *first][chance.range(0, 3) as usize];
    }
    bytes
}

/// A genuine datagram with a field or the content changed, and the checksum made right again.
fn wrong(chance: &mut Chance, mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() < 24 {
        return noise(chance);
    }
    let body = bytes.len() - 4;
    match bytes[0] {
        // Reports carry no signature yet: a forger may invent a machine, but not speak for another.
        REPORT => {
            let number = chance.bytes(8);
            bytes[RECEIVER_AT..RECEIVER_AT + 8].copy_from_slice(&number);
            let at = chance.range(RECEIVER_AT as u64 + 8, body as u64 - 1) as usize;
            bytes[at] = chance.draw() as u8;
        }
        // "The session is over."
        ANNOUNCE if chance.hit(0.5) => bytes[1] ^= 2,
        _ if chance.hit(0.5) => {
            let at = chance.range(1, 15) as usize;
            bytes[at] = chance.draw() as u8;
        }
        _ => {
            let at = chance.range(16, body as u64 - 1) as usize;
            bytes[at] ^= chance.range(1, 255) as u8;
        }
    }
    let crc = crc32(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// CRC-32 (IEEE 802.3) bit by bit, as the textbook has it.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xEDB8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_the_one_everybody_uses() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
