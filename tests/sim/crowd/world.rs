//! The course of a crowd's session: slot by slot, a sender and its machines.
//!
//! A slot is as long as a datagram travels. What the sender says in one slot arrives in the next, and so do reports:
//! within a slot nobody can hear of anybody, and each machine is played through it at one go.

use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, Layout, ObjectId, Rate, Sabotage, Sender, SenderConfig, SenderEvent,
    SigningKey, StartRule,
};

use super::super::chance::Chance;
use super::counting::Counting;
use super::losses::{Losses, SLOT_DATAGRAMS};
use super::member::{Briefing, Member, NEVER, Sent, Slot, micros};
use super::outcome::CrowdOutcome;
use super::pipe::Pipe;
use super::plan::{Crowd, Seat};

/// Bytes of a symbol that are reckoned.
const SYMBOL_BYTES: u64 = 1452;
/// Bytes around each datagram on the wire: Ethernet, IPv4, UDP.
const WIRE_OVERHEAD: u64 = 42;
/// Symbols of the preamble.
const PREAMBLE_SYMBOLS: u16 = 100;
/// Longest slot, in microseconds.
const SLOT: u64 = 500;
/// The sender stays so long after the last word.
const LINGER: Duration = Duration::from_secs(2);
/// Longest run, in microseconds of the room.
const TIME_MAX: u64 = 900_000_000;
/// Time between two notes of the rate, in microseconds.
const RATE_EVERY: u64 = 100_000;
/// First byte of a data datagram.
const DATA: u8 = 0x11;

struct World<'a> {
    crowd: &'a Crowd,
    briefing: Briefing,
    sender: Sender<Counting>,
    members: Vec<Member>,
    /// What everybody sits behind.
    pipe: Option<Pipe>,
    /// What is dropped for all machines behind one switch.
    switches: Vec<Losses>,
    chance: Chance,
    /// When the sender may send again, in nanoseconds.
    free: u64,
    /// When the payload began to flow, and when the session was over, in microseconds.
    started: Option<u64>,
    over: Option<u64>,
    completed_at: Vec<Option<u64>>,
    lacking: usize,
    outcome: CrowdOutcome,
}

/// Plays a session to its end.
pub fn play(crowd: &Crowd) -> CrowdOutcome {
    let _symbols = Sabotage::remove("symbol_bytes");
    let _signature = Sabotage::remove("announce_signature");
    World::new(crowd).play()
}

fn address(number: u32) -> SocketAddr {
    SocketAddr::from(([10, 77, (number >> 8) as u8, number as u8], 4000))
}

impl<'a> World<'a> {
    fn new(crowd: &'a Crowd) -> World<'a> {
        let chance = Chance::new(crowd.seed).fork(40);
        // Zeros, because a code that counts restores zeros.
        let preamble = vec![0; usize::from(crowd.symbol_bytes) * usize::from(PREAMBLE_SYMBOLS)];
        let block = u32::from(crowd.symbols) * u32::from(crowd.symbol_bytes);
        let layout = Layout::new(vec![block; crowd.blocks as usize]).expect("blocks are sane");
        let machines = crowd.seats.len();
        let config = SenderConfig {
            session: 0x5ca1e,
            object_id: ObjectId(*blake3::hash(&preamble).as_bytes()),
            signing_key: SigningKey::from_seed(&[3; 32]),
            seal: None,
            reply_to: None,
            symbol_bytes: crowd.symbol_bytes,
            rate: match crowd.automatic {
                true => Rate::Auto {
                    link_bits: crowd.rate_bits,
                },
                false => Rate::Fixed(crowd.rate_bits),
            },
            start: StartRule {
                receivers: machines as u32,
                wait: Duration::from_secs(5),
            },
            linger: LINGER,
        };
        let sender = Sender::new(Instant::ZERO, config, &preamble, layout.clone(), Counting);
        let member = |(number, seat): (usize, &Seat)| {
            let chance = chance.fork(1000 + number as u64);
            Member::new(number as u32 + 2, seat.clone(), crowd.blocks, chance)
        };
        let switches = crowd
            .switches
            .map_or(0, |(ports, _)| machines.div_ceil(ports));
        let drops = crowd.switches.map_or(0.0, |(_, drops)| drops);
        World {
            crowd,
            briefing: Briefing {
                layout,
                block_bytes: u64::from(crowd.symbols) * SYMBOL_BYTES,
                sender: address(1),
            },
            sender: sender.expect("the configuration is sane, but for its symbols"),
            pipe: crowd.bottleneck.map(Pipe::new),
            members: crowd.seats.iter().enumerate().map(member).collect(),
            switches: (0..switches)
                .map(|at| Losses::new(drops, 0.0, chance.fork(500_000 + at as u64)))
                .collect(),
            chance: chance.fork(7),
            free: 0,
            started: None,
            over: None,
            completed_at: vec![None; machines],
            lacking: machines,
            outcome: CrowdOutcome {
                source_symbols: crowd.source_symbols() + u64::from(PREAMBLE_SYMBOLS),
                blocks: vec![(1, PREAMBLE_SYMBOLS), (crowd.blocks, crowd.symbols)],
                ..CrowdOutcome::default()
            },
        }
    }

    fn play(mut self) -> CrowdOutcome {
        let (mut now, mut slot, mut heard) = (0, Slot::default(), Vec::new());
        while self.over.is_none() && !self.is_enough() && now < TIME_MAX {
            let until = now + self.slot_micros();
            let mut said = Vec::new();
            if let Some(pipe) = &mut self.pipe {
                slot = pipe.pull(until);
            }
            self.machines(now, until, &slot, &mut said);
            slot = Slot::default();
            self.sender(now, until, heard, &mut slot);
            heard = self.carry(until - now, said);
            self.note_rate(until);
            now = until;
        }
        self.judge()
    }

    fn is_enough(&self) -> bool {
        let complete = |first: usize| self.completed_at[..first].iter().all(Option::is_some);
        self.crowd.until.is_some_and(complete)
    }

    /// Short enough that its datagrams fit a set of bits.
    fn slot_micros(&self) -> u64 {
        let datagram_bits = (SYMBOL_BYTES + 20 + WIRE_OVERHEAD) * 8;
        // An announce is shorter than a symbol; half of the bits are left for those.
        let fits = u64::from(SLOT_DATAGRAMS * 3 / 4) * datagram_bits * 1_000_000;
        (fits / self.crowd.rate_bits).clamp(1, SLOT)
    }

    /// Every machine hears `slot` and does what is due before `until`.
    fn machines(&mut self, now: u64, until: u64, slot: &Slot, said: &mut Vec<Sent>) {
        let count = slot.datagrams.len() as u32;
        let ports = self.crowd.switches.map_or(usize::MAX, |(ports, _)| ports);
        let announces = slot.announces();
        let dropped: Vec<u64> = self.switches.iter_mut().map(|s| s.draw(count)).collect();
        for (at, member) in self.members.iter_mut().enumerate() {
            if !member.is_on() {
                if member.wake < until {
                    member.power_on(member.wake.max(now));
                }
                continue;
            }
            if let (Some((off_at, back_in)), Some(started)) = (member.seat.off, self.started)
                && now >= started + micros(off_at)
            {
                member.seat.off = None;
                member.power_off(now + micros(back_in));
                continue;
            }
            if count == 0 && member.wake >= until {
                continue;
            }
            let mut lost =
                member.losses.draw(count) | dropped.get(at / ports).copied().unwrap_or(0);
            if member.seat.only_data {
                lost &= !announces;
            }
            let before = member.complete;
            member.play(until, slot, lost, &self.briefing, said);
            if member.complete && !before {
                self.completed_at[at] = Some(until);
                self.lacking -= 1;
            }
        }
    }

    /// Reports on their way: some vanish, the others arrive after `delay`, in order.
    fn carry(&mut self, delay: u64, mut said: Vec<Sent>) -> Vec<Sent> {
        for report in &said {
            let bytes = report.bytes.len() as u64 + WIRE_OVERHEAD;
            self.outcome.reports += 1;
            self.outcome.report_bytes += bytes;
            if self.started.is_some() && self.lacking > 0 {
                self.outcome.flow_report_bytes += bytes;
            }
        }
        let loss = self.crowd.report_loss;
        said.retain(|_| !self.chance.hit(loss));
        said.sort_by_key(|report| (report.at, report.member));
        said.iter_mut().for_each(|report| report.at += delay);
        said
    }

    /// The sender hears `heard` and sends as fast as it may until `until`.
    fn sender(&mut self, now: u64, until: u64, heard: Vec<Sent>, slot: &mut Slot) {
        let mut heard = heard.into_iter().peekable();
        let delay = until - now;
        let mut at = now.max(self.free / 1000);
        loop {
            while let Some(report) = heard.next_if(|report| report.at <= at.min(until)) {
                let from = address(report.member);
                let moment = Instant::from_micros(report.at);
                self.sender.handle_datagram(moment, from, &report.bytes);
            }
            if at >= until || self.over.is_some() {
                return;
            }
            let moment = Instant::from_micros(at);
            if self.sender.poll_timeout().is_some_and(|due| due <= moment) {
                self.sender.handle_timeout(moment);
            }
            self.listen(at);
            let from = slot.bytes.len();
            if self.sender.poll_transmit(moment, &mut slot.bytes).is_some() {
                let to = slot.bytes.len();
                let bits = 8 * self.account(&slot.bytes[from..to]);
                let since = self.free.max(at * 1000);
                self.free = since + bits * 1_000_000_000 / self.sender.rate_bits();
                match &mut self.pipe {
                    Some(pipe) => {
                        pipe.push(at, delay, bits / 8, &slot.bytes[from..to]);
                        slot.bytes.truncate(from);
                    }
                    None => slot.datagrams.push((from as u32, to as u32, at + delay)),
                }
                at = at.max(self.free / 1000);
            } else {
                let due = self.sender.poll_timeout().map_or(NEVER, Instant::as_micros);
                let report = heard.peek().map_or(NEVER, |report| report.at);
                at = due.min(report).clamp(at + 1, until);
            }
        }
    }

    /// Writes the rate down ten times a second.
    fn note_rate(&mut self, now: u64) {
        let Some(started) = self.started else {
            return;
        };
        while self.outcome.rates.len() as u64 * RATE_EVERY + RATE_EVERY <= now - started {
            self.outcome.rates.push(self.sender.rate_bits());
        }
    }

    /// Does what the sender asks for.
    fn listen(&mut self, now: u64) {
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::NeedBlock(block) => self.provide(block),
                SenderEvent::Started { .. } => self.started = Some(now),
                SenderEvent::Done { .. } => self.outcome.done += 1,
                SenderEvent::Lost { said_so: false, .. } => self.outcome.lost += 1,
                SenderEvent::Finished => self.over = Some(now),
                _ => {}
            }
        }
    }

    fn provide(&mut self, block: BlockId) {
        let bytes = usize::from(self.crowd.symbols) * usize::from(self.crowd.symbol_bytes);
        let provided = self.sender.provide(block, vec![0; bytes]);
        provided.expect("the sender asks for blocks of the layout");
    }

    /// Counts a datagram of the sender; the bytes it would have on the wire.
    fn account(&mut self, datagram: &[u8]) -> u64 {
        let is_data = datagram[0] == DATA;
        let stretch = if is_data {
            SYMBOL_BYTES - u64::from(self.crowd.symbol_bytes)
        } else {
            0
        };
        let bytes = datagram.len() as u64 + stretch + WIRE_OVERHEAD;
        if self.started.is_some() && self.lacking > 0 {
            self.outcome.sent_bytes += bytes;
        }
        bytes
    }

    fn judge(mut self) -> CrowdOutcome {
        let started = self.started.unwrap_or(0);
        let since = |at: u64| Duration::from_micros(at.saturating_sub(started));
        let stats = self.sender.stats();
        self.outcome.complete_after = self.completed_at.iter().map(|at| at.map(since)).collect();
        self.outcome.over_after = self.over.map(since);
        self.outcome.sent_symbols = stats.source_symbols + stats.repair_symbols;
        self.outcome.announces = stats.announces;
        self.outcome
    }
}
