//! When a machine reports, and what it says.
//!
//! Data that comes as it should needs no words. A machine asks when an announce promises less of a block than it
//! lacks, and it waits before it does, because others may lack the same (see [`backoff`]). It also speaks when its
//! phase changes, when nothing has come for a while, and now and then so that it is not forgotten.

use std::time::Duration;

use crate::block::BlockId;
use crate::clock::Instant;
use crate::wire::{MAX_RUNS, Phase, Report, Run, WHOLE};

use super::config::ReceiverConfig;
use super::event::ReceiverStats;
use super::patience::backoff;
use super::session::Session;
use super::standing::Standing;
use super::table::{State, Table};

/// A machine is heard at least this often, or every so many intervals: a sender that looks for the right rate has to
/// know soon that nothing is wrong.
const KEEP_ALIVE: Duration = Duration::from_millis(150);
const KEEP_ALIVE_INTERVALS: u32 = 8;
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(100);
/// That it is ready is told so often: one report alone may be lost, and the session may wait for it.
const TELL_READY: u32 = 2;
/// DONE is repeated this often until it is acknowledged, in rooms of more than `DONE_ROOM` machines in proportion.
const REPEAT_DONE: Duration = Duration::from_millis(100);
const DONE_ROOM: u32 = 64;
/// Blocks a machine waits to ask for, at most; one report tells of all anyway.
const MAX_ASKS: usize = 64;
/// After so many intervals without a datagram, what lacks is asked for even if it was promised.
const QUIET_INTERVALS: u32 = 3;
/// Reports in a row when one cannot hold everything.
const MAX_BURST: u32 = 8;

/// What a report says beside what lacks.
pub(super) struct News<'a> {
    pub(super) config: &'a ReceiverConfig,
    pub(super) stats: &'a ReceiverStats,
    pub(super) backlog_bytes: u64,
    pub(super) overflow: u32,
}

#[derive(Debug)]
pub(super) struct Reporter {
    next: Instant,
    last: Option<Instant>,
    /// The phase told last, and how often.
    said: (Phase, u32),
    number: u32,
    /// Where the next window begins, and how many windows went out in a row.
    from: u32,
    burst: u32,
    due: bool,
    /// Blocks of which the last announce promised less than they lack, those that were asked for last, when to ask, and
    /// how often that was tried in vain.
    asks: Vec<u32>,
    asked_for: Vec<u32>,
    ask_at: Option<Instant>,
    asked: u32,
    /// When it is heard again if nothing happens, after its last report.
    keep_alive: Duration,
}

impl Reporter {
    pub(super) fn new() -> Reporter {
        let (next, last, said) = (Instant::from_micros(u64::MAX), None, (Phase::Joining, 0));
        Reporter {
            next,
            last,
            said,
            number: 0,
            from: 0,
            burst: 0,
            due: false,
            asks: Vec::new(),
            asked_for: Vec::new(),
            ask_at: None,
            asked: 0,
            keep_alive: KEEP_ALIVE,
        }
    }

    /// When to look again whether there is something to say.
    pub(super) fn next(&self) -> Instant {
        self.ask_at
            .map_or(self.next, |ask_at| ask_at.min(self.next))
    }

    /// Something changed that the sender should know: looks again at `moment`, if not before.
    pub(super) fn look_by(&mut self, moment: Instant) {
        self.next = self.next.min(moment);
    }

    /// An announce came: what it leaves open is asked for after a while, unless another one promises it before.
    pub(super) fn hear_announce(
        &mut self,
        now: Instant,
        standing: &Standing,
        chance: &mut dyn FnMut() -> u32,
    ) {
        let Some(session) = &standing.session else {
            return;
        };
        let table = standing
            .payload
            .as_ref()
            .filter(|_| standing.phase == Phase::Receiving && standing.detour.is_none());
        let open = table.into_iter().flat_map(Table::open);
        let left = open.filter(|&(index, deficit)| session.leaves(BlockId(index), deficit));
        self.asks.clear();
        self.asks
            .extend(left.map(|(index, _)| index).take(MAX_ASKS));
        if !self.asks.iter().any(|index| self.asked_for.contains(index)) {
            self.asked = 0;
        }
        if self.asks.is_empty() {
            self.ask_at = None;
        } else if self.ask_at.is_none() {
            let wait = backoff(session.room, self.asked, session.interval, chance());
            self.ask_at = Some(now.after(wait));
        }
    }

    /// Looks whether a report is due at `now`.
    pub(super) fn look(
        &mut self,
        now: Instant,
        standing: &Standing,
        chance: &mut dyn FnMut() -> u32,
    ) {
        let Some(session) = &standing.session else {
            return;
        };
        if self.ask_at.is_some_and(|ask_at| now >= ask_at) {
            self.ask_at = None;
            // What has come in the meantime need not be asked for.
            let lacks = |table: &Table| self.asks.iter().any(|&index| table.state(index).1 > 0);
            if standing.payload.as_ref().is_some_and(lacks) {
                self.asked += 1;
                self.asked_for.clone_from(&self.asks);
                self.burst = 0;
                self.due = true;
            }
        }
        if now < self.next {
            return;
        }
        let interval = match standing.phase {
            Phase::Done => session
                .interval
                .min(REPEAT_DONE * (session.room / DONE_ROOM).max(1)),
            _ => session.interval,
        };
        // Three to five quarters of the interval, so that a room does not speak with one voice.
        let spread = interval.as_micros() as u64 * u64::from(chance() % 1024) / 2048;
        self.next = now.after(interval * 3 / 4 + Duration::from_micros(spread));
        self.burst = 0;
        self.due |= self.is_due(now, standing, session);
        if self.due {
            // Any time up to the longest: so the sender hears of some machines soon, and of all in the end.
            let longest = KEEP_ALIVE.max(interval * KEEP_ALIVE_INTERVALS);
            self.keep_alive = longest.mul_f64(f64::from(chance() % 1024 + 1) / 1024.0);
        }
    }

    fn is_due(&self, now: Instant, standing: &Standing, session: &Session) -> bool {
        let Some(last) = self.last else { return true };
        let interval = session.interval;
        let silent = now.since(last);
        let told = if self.said.0 == standing.phase {
            self.said.1
        } else {
            0
        };
        let tell = match standing.phase {
            Phase::Receiving => TELL_READY,
            _ => 1,
        };
        if told < tell || silent >= self.keep_alive.max(KEEP_ALIVE_MIN) {
            return true;
        }
        let quiet = now.since(standing.data_at) >= interval * QUIET_INTERVALS;
        match standing.phase {
            // As long as it is not acknowledged, every look is a reason.
            Phase::Done => silent >= REPEAT_DONE * 3 / 4,
            Phase::Leaving => true,
            // What comes another way is not asked of the sender.
            Phase::Joining if standing.detour.is_some() => !session.welcome,
            Phase::Receiving if standing.detour.is_some() => false,
            Phase::Joining => {
                quiet || !session.welcome || asks_for_preamble(now, standing, session)
            }
            Phase::Receiving => {
                // Before the payload flows there is nothing to miss, and a full machine asks for nothing.
                let hungry = || standing.payload.as_ref().is_some_and(Table::is_hungry);
                (quiet && session.started && hungry()) || self.from > 0
            }
            Phase::Surveying | Phase::Settling => false,
        }
    }

    /// Appends the report that is due to `out`, if one is.
    pub(super) fn write(
        &mut self,
        now: Instant,
        standing: &Standing,
        news: &News<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(session) = standing.session.as_ref().filter(|_| self.due) else {
            return false;
        };
        // After the last number there is none: it would seal twice.
        let Some(number) = self.number.checked_add(1) else {
            return false;
        };
        let (window, runs) = self.lacking(standing);
        // A machine that multicast does not reach says nothing about the loss of the others.
        let (expected, received) = standing.detour.unwrap_or(session.traffic());
        self.number = number;
        let report = Report {
            session: session.id,
            phase: standing.phase,
            acknowledge: standing.phase == Phase::Done || !session.welcome,
            machine: 0,
            echo: session.echo(),
            as_of: session.as_of(),
            number: self.number,
            receiver: news.config.id,
            expected,
            received,
            overflow: news.overflow,
            backlog_kib: u32::try_from(news.backlog_bytes >> 10).unwrap_or(u32::MAX),
            useful_bytes: news.stats.useful_bytes,
            wanted_blocks: news.stats.wanted_blocks,
            done_blocks: news.stats.done_blocks,
            window,
            runs,
            name: news.config.name.clone(),
        };
        session.pack(report, out);
        self.last = Some(now);
        self.said = match self.said {
            (phase, told) if phase == standing.phase => (phase, told.saturating_add(1)),
            _ => (standing.phase, 1),
        };
        self.burst += 1;
        self.due = self.from > 0 && self.burst < MAX_BURST;
        true
    }

    /// What lacks, beginning where the last report ended.
    fn lacking(&mut self, standing: &Standing) -> ((BlockId, BlockId), Vec<Run>) {
        let (table, id): (Option<&Table>, fn(u32) -> BlockId) = match standing.phase {
            Phase::Joining => {
                let table = standing.preamble.as_ref().map(|preamble| &preamble.table);
                (table, BlockId::preamble)
            }
            Phase::Receiving | Phase::Settling => (standing.payload.as_ref(), BlockId),
            Phase::Surveying | Phase::Done | Phase::Leaving => (None, BlockId),
        };
        let Some(table) = table else {
            self.from = 0;
            return ((BlockId(0), BlockId(0)), Vec::new());
        };
        if standing.detour.is_some() {
            self.from = 0;
            return ((id(0), id(table.len())), Vec::new());
        }
        let from = self.from.min(table.len());
        let mut runs: Vec<Run> = Vec::new();
        let mut end = table.len();
        // Who has had to drop what it wanted asks for no more than it can take.
        let mut ration = table.ration();
        for (index, deficit) in (from..table.len()).filter_map(|index| lacking(table, index)) {
            let block = id(index);
            let deficit = match deficit {
                WHOLE if ration < table.memory(index) => 0,
                WHOLE => {
                    ration -= table.memory(index);
                    WHOLE
                }
                some => some,
            };
            let full = runs.len() == MAX_RUNS;
            match runs.last_mut() {
                Some(run) if run.deficit == deficit && run.first.0 + run.count == block.0 => {
                    run.count += 1;
                }
                Some(_) if full => {
                    end = index;
                    break;
                }
                _ => runs.push(Run {
                    first: block,
                    count: 1,
                    deficit,
                }),
            }
        }
        self.from = if end < table.len() { end } else { 0 };
        ((id(from), id(end)), runs)
    }
}

/// Whether a block of the preamble lacks symbols that the sender has not promised.
fn asks_for_preamble(now: Instant, standing: &Standing, session: &Session) -> bool {
    let Some(table) = standing.preamble.as_ref().map(|preamble| &preamble.table) else {
        return false;
    };
    let mut lacking = (0..table.len()).filter_map(|index| lacking(table, index));
    // Of a whole block any promise will do: its first symbols say how long it is to be.
    let least = |deficit| if deficit == WHOLE { 1 } else { deficit };
    lacking.any(|(index, deficit)| !session.promises(now, BlockId::preamble(index), least(deficit)))
}

/// What a report says of block `index`: nothing when it is not wanted.
fn lacking(table: &Table, index: u32) -> Option<(u32, u16)> {
    match table.state(index) {
        (State::Unwanted, _) => None,
        (State::Wanted, _) => Some((index, WHOLE)),
        (State::Open, deficit) => Some((index, deficit)),
        (State::Ready | State::Delivered, _) => Some((index, 0)),
    }
}
