//! When a machine reports, and what it says.
//!
//! Data that comes as it should needs no words. A machine speaks when a block has passed and lacks
//! symbols that nobody has asked for yet, when its phase changes, when nothing has come for a while,
//! and now and then so that it is not forgotten.

use std::time::Duration;

use crate::block::BlockId;
use crate::clock::Instant;
use crate::wire::{MAX_RUNS, Phase, Report, Run, WHOLE};

use super::config::ReceiverConfig;
use super::event::ReceiverStats;
use super::session::Session;
use super::standing::Standing;
use super::table::{State, Table};

/// A machine is heard at least this often, or every so many intervals: a sender that looks for the right rate has to
/// know soon that nothing is wrong.
const KEEP_ALIVE: Duration = Duration::from_millis(150);
const KEEP_ALIVE_INTERVALS: u32 = 8;
/// A new phase is told so often: one report alone may be lost.
const TELL_PHASE: u32 = 2;
/// DONE is repeated this often until it is acknowledged.
const REPEAT_DONE: Duration = Duration::from_millis(100);
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
        }
    }

    /// When to look again whether there is something to say.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Something changed that the sender should know: looks again at `moment`, if not before.
    pub(super) fn look_by(&mut self, moment: Instant) {
        self.next = self.next.min(moment);
    }

    /// Looks whether a report is due at `now`; `spread` is a number drawn at random.
    pub(super) fn look(&mut self, now: Instant, standing: &Standing, spread: u32) {
        let Some(session) = standing.session.as_ref().filter(|_| now >= self.next) else {
            return;
        };
        let interval = match standing.phase {
            Phase::Done => session.interval.min(REPEAT_DONE),
            _ => session.interval,
        };
        // Three to five quarters of the interval, so that a room does not speak with one voice.
        let spread = interval.as_micros() as u64 * u64::from(spread % 1024) / 2048;
        self.next = now.after(interval * 3 / 4 + Duration::from_micros(spread));
        self.burst = 0;
        self.due |= self.is_due(now, standing, session);
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
        if told < TELL_PHASE || silent >= KEEP_ALIVE.max(interval * KEEP_ALIVE_INTERVALS) {
            return true;
        }
        let quiet = now.since(standing.data_at) >= interval * QUIET_INTERVALS;
        match standing.phase {
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
                (quiet && session.started && hungry())
                    || self.from > 0
                    || asks_for_repair(now, standing, session)
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

/// Whether a block that has passed lacks symbols that the sender has not promised.
fn asks_for_repair(now: Instant, standing: &Standing, session: &Session) -> bool {
    let Some(table) = &standing.payload else {
        return false;
    };
    table.open().any(|(index, deficit)| {
        let block = BlockId(index);
        standing.current != Some(block) && !session.promises(now, block, deficit)
    })
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
