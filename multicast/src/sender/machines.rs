//! The machines a sender has heard: what each wants, how it is doing, who is done and who is gone.
//!
//! ```text
//!            first report        all it wants is told            DONE
//!   (unknown) ---------> joining ------------------> ready --------------> done
//!                           |                          |                     |
//!                           | LEAVING, or silent       |                     | heard again with
//!                           v                          v                     v DONE: acknowledged again
//!                         gone <----------------------+      any report of a gone machine: back again
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::bits::Bits;
use crate::clock::Instant;
use crate::guard::guard;
use crate::wire::{Phase, Report, ahead};

use super::event::ReceiverInfo;
use super::roll::{Roll, Standing};
use super::room;

/// Machines known at once, at most.
const MAX_MACHINES: usize = 16_384;
/// Starts of one machine that are in the books, at most: a machine with a key may invent any number of its own.
const STARTS_MAX: usize = 4;
/// Bytes for what all machines together want, at most.
const MAX_WANTED_BYTES: usize = 256 << 20;
/// Datagrams a loss is measured over at least.
const LOSS_WINDOW: u32 = 256;
/// Datagrams a loss is measured over at most: then the older half counts half.
const LOSS_MEMORY: f32 = 8192.0;

#[derive(Debug)]
struct Machine {
    info: ReceiverInfo,
    /// What its server calls it; 0 without a server.
    machine: u32,
    number: u32,
    first_heard: Instant,
    last_heard: Instant,
    wanted: Bits,
    covered: u32,
    ready: bool,
    expected: u32,
    received: u32,
    lost: u64,
    /// Datagrams of late, older ones counting less, and the lost ones among them.
    late: (f32, f32),
}

impl Machine {
    fn is_active(&self) -> bool {
        !self.info.gone && self.info.phase != Phase::Done
    }

    fn standing(&self) -> Standing {
        Standing {
            active: self.is_active(),
            ready: self.ready && !self.info.gone,
            heard: self.last_heard,
            loss: (self.late.0 > 0.0).then_some((self.info.loss, self.late.0 as u32)),
        }
    }

    /// Loss since it was last measured, once enough datagrams have been sent.
    fn measure(&mut self, expected: u32, received: u32) {
        let sent = expected.wrapping_sub(self.expected);
        if sent < LOSS_WINDOW {
            return;
        }
        let lost = sent.saturating_sub(received.wrapping_sub(self.received));
        let keep = (LOSS_MEMORY / (self.late.0 + sent as f32)).min(1.0);
        self.late = (
            (self.late.0 * keep) + sent as f32,
            (self.late.1 * keep) + lost as f32,
        );
        self.info.loss = self.late.1 / self.late.0;
        self.lost += u64::from(lost);
        (self.expected, self.received) = (expected, received);
    }
}

/// What became of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) joined: bool,
    pub(super) ready: bool,
    pub(super) done: bool,
    pub(super) left: bool,
}

#[derive(Debug)]
pub(super) struct Machines {
    known: BTreeMap<u64, Machine>,
    roll: Roll,
    first_heard: Option<Instant>,
    blocks: u32,
    capacity: usize,
}

impl Machines {
    pub(super) fn new(blocks: u32) -> Machines {
        let each = Bits::bytes(blocks).max(1);
        let capacity = (MAX_WANTED_BYTES / each).clamp(16, MAX_MACHINES);
        Machines {
            known: BTreeMap::new(),
            roll: Roll::default(),
            first_heard: None,
            blocks,
            capacity,
        }
    }

    /// Takes a report. `want` hears of each payload block the machine begins or ceases to want.
    /// `None` for a report that is older than one already taken, or of a machine for which there is
    /// no room.
    pub(super) fn hear(
        &mut self,
        now: Instant,
        from: SocketAddr,
        report: &Report,
        mut want: impl FnMut(u32, bool),
    ) -> Option<Heard> {
        let joined = !self.known.contains_key(&report.receiver);
        if joined {
            self.forget_first_start(report.machine, &mut want);
            if !self.make_room() {
                return None;
            }
        }
        let blocks = self.blocks;
        let machine = self.known.entry(report.receiver).or_insert_with(|| {
            let mut machine = new_machine(now, from, report);
            machine.wanted = Bits::new(blocks);
            machine
        });
        if !joined && !guard!("report_order", ahead(report.number, machine.number) > 0) {
            return None;
        }
        let before = Some(machine.standing()).filter(|_| !joined);
        self.first_heard = self.first_heard.or(Some(now));
        let was_active = machine.is_active();
        let was_done = !joined && machine.info.phase == Phase::Done;
        machine.number = report.number;
        machine.last_heard = now;
        machine.measure(report.expected, report.received);
        let info = &mut machine.info;
        info.address = from;
        info.phase = report.phase;
        info.gone = report.phase == Phase::Leaving;
        info.wanted_blocks = report.wanted_blocks;
        info.done_blocks = report.done_blocks;
        info.received_bytes = report.useful_bytes;
        info.lost_symbols =
            machine.lost + u64::from(pending_loss(report, machine.expected, machine.received));
        info.overflow = report.overflow;
        info.backlog_bytes = u64::from(report.backlog_kib) << 10;
        let mut heard = Heard {
            joined,
            ..Heard::default()
        };
        if matches!(report.phase, Phase::Done | Phase::Leaving) {
            info.took = now.since(machine.first_heard);
            machine.wanted.replace((0, blocks), &[], &mut want);
            // Also of a machine that was given up and is back.
            heard.done = report.phase == Phase::Done && !was_done;
            heard.left = report.phase == Phase::Leaving && was_active;
            machine.ready |= heard.done;
        } else if !report.window.0.is_preamble() && report.phase >= Phase::Receiving {
            let runs: Vec<(u32, u32)> = report
                .runs
                .iter()
                .map(|run| (run.first.0, run.first.0 + run.count))
                .collect();
            let window = (report.window.0.0, report.window.1.0.min(blocks));
            machine.wanted.replace(window, &runs, &mut want);
            if window.0 <= machine.covered {
                machine.covered = machine.covered.max(window.1);
            }
            heard.ready = !machine.ready && machine.covered >= blocks;
            machine.ready |= heard.ready;
        }
        let after = machine.standing();
        self.roll.change(report.receiver, before, Some(after));
        Some(heard)
    }

    /// Room for one more start of `machine`, at the cost of the one heard least recently if there are many.
    fn forget_first_start(&mut self, machine: u32, want: &mut impl FnMut(u32, bool)) {
        // Number 0 is everybody who shares a key file.
        if machine == 0 {
            return;
        }
        let starts = self
            .known
            .iter()
            .filter(|(_, start)| start.machine == machine);
        if guard!("machine_starts", starts.clone().count() < STARTS_MAX) {
            return;
        }
        let oldest = starts.min_by_key(|(_, start)| start.last_heard);
        if let Some(id) = oldest.map(|(&id, _)| id)
            && let Some(mut start) = self.known.remove(&id)
        {
            self.roll.change(id, Some(start.standing()), None);
            start.wanted.replace((0, self.blocks), &[], want);
        }
    }

    /// Room for one machine more, at the cost of one that is done or gone if need be.
    fn make_room(&mut self) -> bool {
        if guard!("machine_table", self.known.len() < self.capacity) {
            return true;
        }
        let Some(oldest) = self.roll.oldest_past() else {
            return false;
        };
        let before = self.known.remove(&oldest);
        self.roll
            .change(oldest, before.map(|machine| machine.standing()), None);
        true
    }

    /// Gives up machines that were not heard for `silence`; returns their numbers.
    pub(super) fn forget(
        &mut self,
        now: Instant,
        silence: Duration,
        mut want: impl FnMut(u32, bool),
    ) -> Vec<u64> {
        let mut gone = Vec::new();
        while let Some((heard, id)) = self.roll.most_silent() {
            if !guard!("silence", now.since(heard) >= silence) {
                break;
            }
            let Some(machine) = self.known.get_mut(&id) else {
                break;
            };
            let before = machine.standing();
            machine.info.gone = true;
            machine.info.took = machine.last_heard.since(machine.first_heard);
            machine.wanted.replace((0, self.blocks), &[], &mut want);
            machine.covered = 0;
            machine.ready = false;
            let after = machine.standing();
            self.roll.change(id, Some(before), Some(after));
            gone.push(id);
        }
        gone
    }

    /// Machines ever heard, as far as is remembered.
    pub(super) fn known(&self) -> usize {
        self.known.len()
    }

    /// Machines that are here and not done.
    pub(super) fn active(&self) -> usize {
        self.roll.active()
    }

    /// Machines that know what they lack, the done ones included.
    pub(super) fn ready(&self) -> usize {
        self.roll.ready()
    }

    /// Whether every machine that is here knows what it lacks; what laggards lack is not waited for.
    pub(super) fn all_ready(&self) -> bool {
        self.roll.awaited().all(|id| self.is_laggard(id))
    }

    /// When the first machine was heard.
    pub(super) fn first_heard(&self) -> Option<Instant> {
        self.first_heard
    }

    /// Loss of the machine that stands for the room, chance taken off, once it is known.
    pub(super) fn loss(&self) -> Option<f32> {
        self.roll.loss()
    }

    /// Whether machine `id` loses so much more than its room that the others shall not wait for it.
    pub(super) fn is_laggard(&self, id: u64) -> bool {
        let loss = self.known.get(&id).map_or(0.0, |machine| machine.info.loss);
        // sabotage: laggard
        let laggard = |usual| !guard!("laggard", !room::is_laggard(loss, usual));
        loss > 0.0 && self.loss().is_some_and(laggard)
    }

    pub(super) fn infos(&self, now: Instant) -> Vec<ReceiverInfo> {
        let info = |machine: &Machine| {
            let mut info = machine.info.clone();
            if machine.is_active() {
                info.took = now.since(machine.first_heard);
            }
            info
        };
        self.known.values().map(info).collect()
    }
}

fn new_machine(now: Instant, from: SocketAddr, report: &Report) -> Machine {
    Machine {
        info: ReceiverInfo {
            id: report.receiver,
            name: report.name.clone(),
            address: from,
            phase: report.phase,
            gone: false,
            wanted_blocks: 0,
            done_blocks: 0,
            received_bytes: 0,
            lost_symbols: 0,
            overflow: 0,
            backlog_bytes: 0,
            loss: 0.0,
            took: Duration::ZERO,
        },
        machine: report.machine,
        number: report.number,
        first_heard: now,
        last_heard: now,
        wanted: Bits::default(),
        covered: 0,
        ready: false,
        expected: 0,
        received: 0,
        lost: 0,
        late: (0.0, 0.0),
    }
}

/// Loss since it was last measured, for the books rather than for the estimate.
fn pending_loss(report: &Report, expected: u32, received: u32) -> u32 {
    let sent = report.expected.wrapping_sub(expected);
    sent.saturating_sub(report.received.wrapping_sub(received))
}
