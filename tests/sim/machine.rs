//! One simulated machine: a real receiver, and a disk that survives power cuts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, ObjectId, Receiver, ReceiverConfig, ReceiverEvent, ReedSolomon, Start,
    Verdict, VerifyKey,
};

use super::chance::Chance;
use super::check::Check;
use super::scenario::MachinePlan;
use super::world::Truth;

/// Blocks a sink takes before it says that it has no room.
const QUEUE_MAX: usize = 2;

/// Turns of the event loop at one moment before it counts as spinning.
const TURNS_MAX: usize = 10_000;

/// What a machine wants the world to do.
pub(super) enum Wish {
    /// Send a datagram.
    Send(SocketAddr, Vec<u8>),
    /// Call [`Machine::handle`] again later.
    Later(Duration, Stage),
    /// Pull its plug; it comes back after a while, or never.
    PowerOff(Option<Duration>),
    /// A promise was broken.
    Broken(Check, String),
}

/// What a machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A timer of the receiver.
    Wake,
    /// The survey of the disk.
    Survey,
    /// The disk, with the block at the head of the queue.
    Write,
    /// Reading everything back.
    ReadBack,
}

/// A machine, on or off.
pub(super) struct Machine {
    pub(super) plan: MachinePlan,
    pub(super) address: SocketAddr,
    /// Counts power-ons: what was begun before a power cut never ends.
    pub(super) generation: u64,
    starts: u32,
    /// Since when it has been on.
    pub(super) on_since: Option<Instant>,
    pub(super) complete: bool,
    pub(super) finished: bool,
    /// Number that its receiver drew last.
    pub(super) id: u64,
    pub(super) failed: Option<String>,
    /// What each block of the disk holds.
    disk: Vec<Option<Vec<u8>>>,
    read_back_wrong: Vec<bool>,
    power_cuts_left: u32,
    running: Option<Running>,
    chance: Chance,
}

struct Running {
    receiver: Receiver<ReedSolomon>,
    queue: VecDeque<(BlockId, Vec<u8>)>,
    wake_at: Option<Instant>,
}

impl Machine {
    pub(super) fn new(
        plan: MachinePlan,
        address: SocketAddr,
        truth: &Truth,
        mut chance: Chance,
    ) -> Machine {
        let disk = truth
            .blocks
            .iter()
            .map(|block| chance.hit(plan.half_done).then(|| block.clone()))
            .collect();
        Machine {
            address,
            generation: 0,
            starts: 0,
            on_since: None,
            complete: false,
            finished: false,
            id: 0,
            failed: None,
            disk,
            read_back_wrong: vec![false; truth.blocks.len()],
            power_cuts_left: u32::from(plan.off_at.is_some()),
            running: None,
            plan,
            chance,
        }
    }

    pub(super) fn power_on(&mut self, now: Instant, truth: &Truth) -> Vec<Wish> {
        self.generation += 1;
        self.starts += 1;
        self.on_since = Some(now);
        let mut dice = self.chance.fork(self.generation);
        self.id = dice.draw();
        let config = ReceiverConfig {
            id: self.id,
            name: self.name(),
            session: None,
            verify_key: Some(VerifyKey(truth.verify_key.0)),
            membership: truth
                .secrets
                .as_ref()
                .map(|secrets| secrets.membership(u32::from(self.address.port()))),
            object_id: Some(ObjectId(truth.object_id.0)),
            silence: Duration::from_secs(20),
            chance: Box::new(move || dice.draw() as u32),
        };
        let receiver = Receiver::new(now, config, ReedSolomon::new());
        self.running = Some(Running {
            receiver,
            queue: VecDeque::new(),
            wake_at: None,
        });
        self.turn(now, truth)
    }

    /// What its present or last start calls itself.
    pub(super) fn name(&self) -> String {
        format!("sim-{}-{}", self.address.port(), self.starts)
    }

    pub(super) fn power_off(&mut self) {
        self.generation += 1;
        self.on_since = None;
        self.running = None;
    }

    pub(super) fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// Blocks it holds, and holds rightly.
    pub(super) fn held(&self, truth: &Truth) -> usize {
        self.disk
            .iter()
            .zip(&truth.blocks)
            .filter(|(have, block)| have.as_ref() == Some(block))
            .count()
    }

    /// Payload bytes of the blocks it lacks.
    pub(super) fn lacks(&self, truth: &Truth) -> Vec<usize> {
        let right = |i: &usize| self.disk[*i].as_ref() != Some(&truth.blocks[*i]);
        (0..truth.blocks.len())
            .filter(right)
            .map(|i| truth.blocks[i].len())
            .collect()
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        truth: &Truth,
    ) -> Vec<Wish> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        running.receiver.handle_datagram(now, from, datagram);
        self.turn(now, truth)
    }

    pub(super) fn handle(&mut self, now: Instant, stage: Stage, truth: &Truth) -> Vec<Wish> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        let mut wishes = Vec::new();
        match stage {
            Stage::Wake => running.wake_at = None,
            Stage::Survey => {
                let wanted = self
                    .disk
                    .iter()
                    .zip(&truth.blocks)
                    .map(|(have, block)| have.as_ref() != Some(block));
                let start = Start {
                    layout: truth.layout.clone(),
                    wanted: wanted.collect(),
                };
                running.receiver.begin(now, start);
            }
            Stage::Write => {
                let Some((block, payload)) = running.queue.pop_front() else {
                    return wishes;
                };
                let index = block.index() as usize;
                let verdict = if truth.blocks.get(index) == Some(&payload) {
                    self.disk[index] = Some(payload);
                    Verdict::Accepted(block)
                } else {
                    Verdict::Rejected(block)
                };
                running.receiver.handle_verdict(now, verdict);
                if let Some((next, _)) = running.queue.front() {
                    wishes.push(Wish::Later(
                        write_time(&self.plan, truth, *next),
                        Stage::Write,
                    ));
                }
            }
            Stage::ReadBack => {
                for index in 0..self.disk.len() {
                    let wrong =
                        !self.read_back_wrong[index] && self.chance.hit(self.plan.bad_read_back);
                    if wrong && self.disk[index].is_some() {
                        self.read_back_wrong[index] = true;
                        self.disk[index] = None;
                        let block = BlockId(index as u32);
                        running
                            .receiver
                            .handle_verdict(now, Verdict::Rejected(block));
                    }
                }
                running.receiver.handle_verdict(now, Verdict::Settled);
            }
        }
        wishes.extend(self.plug(truth));
        if !matches!(wishes.last(), Some(Wish::PowerOff(_))) {
            wishes.extend(self.turn(now, truth));
        }
        wishes
    }

    /// Whether it is time for the power cut of the plan.
    fn plug(&mut self, truth: &Truth) -> Option<Wish> {
        let (part, back_in) = self.plan.off_at?;
        let due = self.held(truth) as f64 >= part * truth.blocks.len() as f64;
        if self.power_cuts_left == 0 || !due {
            return None;
        }
        self.power_cuts_left -= 1;
        Some(Wish::PowerOff(back_in))
    }

    /// Lets the receiver do everything it can do at this moment.
    fn turn(&mut self, now: Instant, truth: &Truth) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for turns in 0.. {
            let Some(running) = &mut self.running else {
                break;
            };
            if turns > TURNS_MAX {
                wishes.push(Wish::Broken(
                    Check::NothingSpins,
                    format!("a receiver, at {now:?}"),
                ));
                break;
            }
            let backlog = running
                .queue
                .iter()
                .map(|(_, payload)| payload.len() as u64)
                .sum();
            running
                .receiver
                .set_pressure(backlog, running.queue.len() < QUEUE_MAX, 0);
            if running
                .receiver
                .poll_timeout()
                .is_some_and(|due| due <= now)
            {
                running.receiver.handle_timeout(now);
                continue;
            }
            if let Some(event) = running.receiver.poll_event() {
                self.obey(event, truth, &mut wishes);
                continue;
            }
            let mut datagram = Vec::new();
            match running.receiver.poll_transmit(now, &mut datagram) {
                Some(to) => wishes.push(Wish::Send(to, datagram)),
                None => break,
            }
        }
        if let Some(running) = &mut self.running {
            let due = running.receiver.poll_timeout();
            if due.is_some() && due != running.wake_at {
                running.wake_at = due;
                let wait = due.map_or(Duration::ZERO, |due| due.since(now));
                wishes.push(Wish::Later(wait, Stage::Wake));
            }
        }
        wishes
    }

    fn obey(&mut self, event: ReceiverEvent, truth: &Truth, wishes: &mut Vec<Wish>) {
        let Some(running) = &mut self.running else {
            return;
        };
        match event {
            ReceiverEvent::Joined {
                session,
                verify_key,
                object_id,
                ..
            } => {
                let right = session == truth.session
                    && verify_key == truth.verify_key
                    && object_id == truth.object_id;
                if !right {
                    let how = format!("session {session:08x} of another sender");
                    wishes.push(Wish::Broken(Check::OnlyTheRightSessionIsJoined, how));
                }
            }
            ReceiverEvent::Preamble(preamble) => {
                // The sink compares its hash with the object, as the real one does.
                if *blake3::hash(&preamble).as_bytes() == truth.object_id.0 {
                    wishes.push(Wish::Later(self.plan.survey, Stage::Survey));
                } else {
                    let how = "a preamble that was not sent".to_owned();
                    wishes.push(Wish::Broken(Check::SinksGetOnlyTruth, how));
                }
            }
            ReceiverEvent::Block { block, payload } => self.deliver(block, payload, truth, wishes),
            ReceiverEvent::Settle => {
                wishes.push(Wish::Later(Duration::from_millis(20), Stage::ReadBack));
            }
            ReceiverEvent::Complete => {
                if self.held(truth) != truth.blocks.len() {
                    let how = format!("{} says complete and is not", self.address);
                    wishes.push(Wish::Broken(Check::ContentIsRight, how));
                }
                self.complete = true;
            }
            ReceiverEvent::Finished => {
                self.finished = true;
                self.running = None;
            }
            ReceiverEvent::Failed(error) => {
                self.failed = Some(error.to_string());
                running.queue.clear();
                self.running = None;
            }
        }
    }

    fn deliver(&mut self, block: BlockId, payload: Vec<u8>, truth: &Truth, wishes: &mut Vec<Wish>) {
        let Some(running) = &mut self.running else {
            return;
        };
        let index = block.index() as usize;
        let right = truth.blocks.get(index);
        if right != Some(&payload) && !truth.insider {
            let how = format!("{}: wrong bytes in block {index}", self.address);
            wishes.push(Wish::Broken(Check::SinksGetOnlyTruth, how));
        }
        let held = self
            .disk
            .get(index)
            .is_none_or(|have| have.as_ref() == right);
        if held || running.queue.iter().any(|(queued, _)| *queued == block) {
            let how = format!("{}: block {index} is not wanted", self.address);
            wishes.push(Wish::Broken(Check::SinksGetOnlyWhatTheyWant, how));
        }
        if running.queue.len() >= QUEUE_MAX {
            let how = format!("{}: block {index} has no room", self.address);
            wishes.push(Wish::Broken(Check::FullSinksAreLeftAlone, how));
        }
        if running.queue.is_empty() {
            wishes.push(Wish::Later(
                write_time(&self.plan, truth, block),
                Stage::Write,
            ));
        }
        running.queue.push_back((block, payload));
    }
}

fn write_time(plan: &MachinePlan, truth: &Truth, block: BlockId) -> Duration {
    let bytes = truth.blocks.get(block.index() as usize).map_or(0, Vec::len);
    Duration::from_secs_f64(bytes as f64 / plan.disk_bytes_per_second as f64)
}
