//! The event loop: one sender, a room of machines, and the network between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use netflash_multicast::{
    BlockId, Instant, Layout, Membership, ObjectId, Rate, ReedSolomon, ReportSecret, Sender,
    SenderConfig, SenderEvent, SenderSeal, SessionKey, SigningKey, StartRule, Suite, VerifyKey,
};

use super::chance::Chance;
use super::check::{Check, Outcome};
use super::forger::Forger;
use super::link::Link;
use super::machine::{Machine, Stage, Wish};
use super::scenario::{Fault, MachinePlan, Scenario};

/// Longest run, in time of the room.
const TIME_MAX: Duration = Duration::from_secs(400);
/// A machine that has been on for so long has been heard by a sender that listens.
const HEARD_AFTER: Duration = Duration::from_millis(2500);
/// How long the sender stays after the last word of anybody.
const LINGER: Duration = Duration::from_secs(3);
/// Time a block takes from the sender's disk.
const READ_TIME: Duration = Duration::from_millis(2);
/// A sender with nothing to send is asked again after so long.
const IDLE: Duration = Duration::from_millis(2);
/// Time the room goes on after the session, for what is under way.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What is sent, known to nobody but the judge.
pub(super) struct Truth {
    pub(super) preamble: Vec<u8>,
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) layout: Layout,
    pub(super) session: u32,
    pub(super) object_id: ObjectId,
    pub(super) verify_key: VerifyKey,
    /// Somebody who knows our formats may send wrong content.
    pub(super) insider: bool,
    /// What a sealed session is sealed with.
    pub(super) secrets: Option<Secrets>,
}

/// The secrets of a sealed session.
pub(super) struct Secrets {
    pub(super) key: SessionKey,
    pub(super) reports: ReportSecret,
    pub(super) salt: [u8; 16],
}

impl Secrets {
    pub(super) fn new(chance: &mut Chance) -> Secrets {
        let mut salt = [0; 16];
        salt.copy_from_slice(&chance.bytes(16));
        let mut reports = [0; 32];
        reports.copy_from_slice(&chance.bytes(32));
        Secrets {
            key: SessionKey::of_secret(&chance.bytes(32)),
            reports: ReportSecret::from_bytes(reports),
            salt,
        }
    }

    /// What the sender is told.
    pub(super) fn seal(&self) -> SenderSeal {
        let (key, reports) = (self.key.clone(), self.reports.clone());
        SenderSeal::with_salt(key, reports, Suite::Aes256Gcm, self.salt)
    }

    /// What the server tells machine `number`.
    pub(super) fn membership(&self, number: u32) -> Membership {
        Membership {
            machine: number,
            session_key: self.key.clone(),
            report_key: self.reports.key_of(number),
        }
    }
}

enum Happening {
    Tick,
    Provide(BlockId),
    ToSender(SocketAddr, Vec<u8>),
    ToMachine(usize, SocketAddr, Vec<u8>),
    PowerOn(usize),
    Machine(usize, u64, Stage),
    Attack,
}

struct World<'a> {
    scenario: &'a Scenario,
    truth: Truth,
    now: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    happenings: Vec<Option<Happening>>,
    machines: Vec<Machine>,
    down: Vec<Link>,
    up: Vec<Link>,
    sender: Sender<ReedSolomon>,
    sender_address: SocketAddr,
    /// What the sender calls each start of a machine, by what that start calls itself.
    names: BTreeMap<String, u64>,
    finished_at: Option<Instant>,
    forger: Forger,
    chance: Chance,
    outcome: Outcome,
}

/// Plays a scenario to its end. A panic is a broken promise like any other.
pub fn run(scenario: &Scenario) -> Outcome {
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(scenario);
        world.play();
        world.judge();
        world.outcome
    }));
    played.unwrap_or_else(|_| {
        let mut outcome = Outcome::default();
        outcome.broken(Check::NothingPanics, "a panic, see above");
        outcome
    })
}

fn address(host: u16) -> SocketAddr {
    SocketAddr::from((
        Ipv4Addr::new(10, 77, (host >> 8) as u8, host as u8),
        4000 + host,
    ))
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> World<'a> {
        let chance = Chance::new(scenario.seed).fork(3);
        let mut dice = chance.fork(4);
        let preamble = dice.bytes(scenario.preamble_bytes);
        let object_id = ObjectId(*blake3::hash(&preamble).as_bytes());
        let mut seed = [0; 32];
        seed.copy_from_slice(&dice.bytes(32));
        let signing_key = SigningKey::from_seed(&seed);
        let truth = Truth {
            preamble,
            blocks: scenario
                .blocks
                .iter()
                .map(|&bytes| dice.bytes(bytes as usize))
                .collect(),
            layout: Layout::new(scenario.blocks.clone()).expect("a scenario has sane blocks"),
            session: dice.draw() as u32,
            object_id,
            verify_key: signing_key.verify_key(),
            insider: scenario.faults.contains(&Fault::Hostile),
            secrets: scenario.sealed.then(|| Secrets::new(&mut chance.fork(8))),
        };
        let config = SenderConfig {
            session: truth.session,
            object_id: ObjectId(object_id.0),
            signing_key,
            seal: truth.secrets.as_ref().map(Secrets::seal),
            reply_to: None,
            symbol_bytes: scenario.symbol_bytes,
            rate: Rate::Fixed(scenario.rate_bits),
            start: StartRule {
                receivers: scenario.wait_for,
                wait: Duration::from_secs(2),
            },
            linger: LINGER,
        };
        let layout = truth.layout.clone();
        let sender = Sender::new(
            Instant::ZERO,
            config,
            &truth.preamble,
            layout,
            ReedSolomon::new(),
        )
        .expect("a scenario has a sane configuration");
        let machine = |(i, plan): (usize, &MachinePlan)| {
            Machine::new(
                plan.clone(),
                address(i as u16 + 10),
                &truth,
                chance.fork(1000 + i as u64),
            )
        };
        let link = |kind: u64, loss: fn(&Scenario, &MachinePlan) -> f64| {
            let chance = chance.clone();
            move |(i, plan): (usize, &MachinePlan)| {
                Link::new(
                    scenario,
                    loss(scenario, plan),
                    plan,
                    chance.fork(kind + i as u64),
                )
            }
        };
        let plans = || scenario.machines.iter().enumerate();
        World {
            scenario,
            machines: plans().map(machine).collect(),
            down: plans().map(link(2000, |_, plan| plan.loss)).collect(),
            up: plans()
                .map(link(3000, |scenario, _| scenario.report_loss))
                .collect(),
            forger: Forger::new(scenario, &truth, chance.fork(5)),
            truth,
            now: Instant::ZERO,
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            sender,
            sender_address: address(1),
            names: BTreeMap::new(),
            finished_at: None,
            chance: chance.fork(6),
            outcome: Outcome {
                source_symbols: scenario.source_symbols(),
                ..Outcome::default()
            },
        }
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        let number = self.happenings.len();
        self.happenings.push(Some(happening));
        self.queue
            .push(Reverse((self.now.after(wait), number as u64, number)));
    }

    fn play(&mut self) {
        let symbol = usize::from(self.scenario.symbol_bytes);
        let lacking = self.machines[0].lacks(&self.truth);
        self.outcome.lacking_symbols = lacking
            .iter()
            .map(|bytes| bytes.div_ceil(symbol) as u64)
            .sum();
        for (i, plan) in self.scenario.machines.iter().enumerate() {
            self.later(plan.on_at, Happening::PowerOn(i));
        }
        for _ in 0..self.scenario.attacks {
            let when = Duration::from_micros(self.chance.range(0, 3_000_000));
            self.later(when, Happening::Attack);
        }
        self.later(Duration::ZERO, Happening::Tick);
        while let Some(Reverse((when, _, number))) = self.queue.pop() {
            self.now = when;
            let end = self.finished_at.map(|at| at.after(AFTERMATH));
            if when.since(Instant::ZERO) > TIME_MAX || end.is_some_and(|end| when > end) {
                break;
            }
            if let Some(happening) = self.happenings[number].take() {
                self.happen(happening);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Tick => self.tick(),
            Happening::Provide(block) => {
                let payload = self.truth.blocks.get(block.index() as usize).cloned();
                match payload.map(|payload| self.sender.provide(block, payload)) {
                    Some(Ok(())) => {}
                    wrong => panic!("the sender asked for {block:?}: {wrong:?}"),
                }
            }
            Happening::ToSender(from, bytes) => {
                self.sender.handle_datagram(self.now, from, &bytes);
            }
            Happening::ToMachine(i, from, bytes) => {
                let wishes = self.machines[i].receive(self.now, from, &bytes, &self.truth);
                self.grant(i, wishes);
            }
            Happening::PowerOn(i) => {
                let wishes = self.machines[i].power_on(self.now, &self.truth);
                self.grant(i, wishes);
            }
            Happening::Machine(i, generation, stage) => {
                if self.machines[i].generation == generation {
                    let wishes = self.machines[i].handle(self.now, stage, &self.truth);
                    self.grant(i, wishes);
                }
            }
            Happening::Attack => {
                let (to_sender, bytes) = self.forger.forge(&mut self.chance);
                // The sender of a forged datagram may lie about its address too.
                let from = if self.chance.hit(0.5) {
                    self.sender_address
                } else {
                    address(250)
                };
                if to_sender {
                    self.later(Duration::ZERO, Happening::ToSender(address(250), bytes));
                } else {
                    for i in 0..self.machines.len() {
                        let happening = Happening::ToMachine(i, from, bytes.clone());
                        self.later(Duration::ZERO, happening);
                    }
                }
            }
        }
    }

    fn grant(&mut self, i: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Send(to, datagram) => {
                    self.outcome.feedback_bytes += datagram.len() as u64;
                    self.forger.overhear(&datagram, true);
                    // What goes to a forger's address goes nowhere.
                    if to != self.sender_address || self.finished_at.is_some() {
                        continue;
                    }
                    let from = self.machines[i].address;
                    for (delay, bytes) in self.up[i].carry(&datagram) {
                        self.later(delay, Happening::ToSender(from, bytes));
                    }
                }
                Wish::Later(wait, stage) => {
                    let generation = self.machines[i].generation;
                    self.later(wait, Happening::Machine(i, generation, stage));
                }
                Wish::PowerOff(back_in) => {
                    self.machines[i].power_off();
                    if let Some(wait) = back_in {
                        self.later(wait, Happening::PowerOn(i));
                    }
                }
                Wish::Broken(check, how) => self.outcome.broken(check, how),
            }
        }
    }

    /// One place on the wire: a datagram of the sender, if it has one.
    fn tick(&mut self) {
        if self.finished_at.is_some() {
            return;
        }
        if self
            .sender
            .poll_timeout()
            .is_some_and(|due| due <= self.now)
        {
            self.sender.handle_timeout(self.now);
        }
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::NeedBlock(block) => self.later(READ_TIME, Happening::Provide(block)),
                SenderEvent::Finished => self.finish(),
                SenderEvent::Joined { id, name } if self.scenario.sealed => {
                    self.names.insert(name, id);
                }
                SenderEvent::Done { id } => {
                    self.outcome.done.insert(id);
                }
                SenderEvent::Lost { id, said_so: false } => self.lost(id),
                _ => {}
            }
        }
        let mut datagram = Vec::new();
        let mut wait = IDLE;
        if self.sender.poll_transmit(self.now, &mut datagram).is_some() {
            let wire_bits = 8.0 * (datagram.len() + 42) as f64;
            wait = Duration::from_secs_f64(wire_bits / self.sender.rate_bits() as f64);
            self.outcome.sent_bytes += datagram.len() as u64;
            self.outcome.data_datagrams += u64::from(super::forger::is_payload(&datagram));
            self.forger.overhear(&datagram, false);
            self.broadcast(&datagram);
        }
        self.later(wait, Happening::Tick);
    }

    /// What the sender calls the present start of a machine.
    fn known_as(&self, machine: &Machine) -> Option<u64> {
        match self.scenario.sealed {
            true => self.names.get(&machine.name()).copied(),
            false => Some(machine.id),
        }
    }

    /// The sender has given a machine up. Whoever may claim deficits can bring that about, because they keep
    /// the others silent; they are welcome back. In a sealed session he has no more than a name of his own.
    fn lost(&mut self, id: u64) {
        if self.truth.insider && !self.scenario.sealed {
            return;
        }
        let now = self.now;
        let alive = |m: &&Machine| {
            self.known_as(m) == Some(id) && m.on_since.is_some_and(|on| now.since(on) > HEARD_AFTER)
        };
        if let Some(machine) = self.machines.iter().filter(|m| m.is_on()).find(alive) {
            let how = format!("{} at {now:?}", machine.address);
            self.outcome.broken(Check::NobodyAliveIsGivenUp, how);
        }
    }

    fn broadcast(&mut self, datagram: &[u8]) {
        if self.chance.hit(self.scenario.shared_loss) {
            return;
        }
        let from = self.sender_address;
        for i in 0..self.machines.len() {
            if !self.machines[i].is_on() {
                continue;
            }
            for (delay, bytes) in self.down[i].carry(datagram) {
                self.later(delay, Happening::ToMachine(i, from, bytes));
            }
        }
    }

    fn finish(&mut self) {
        self.finished_at = Some(self.now);
        self.outcome.took = self.now.since(Instant::ZERO);
        for machine in &self.machines {
            let on_for = machine
                .on_since
                .map_or(Duration::ZERO, |since| self.now.since(since));
            if machine.is_on() && !machine.complete && on_for > HEARD_AFTER {
                let how = format!("{} lacks blocks", machine.address);
                self.outcome.broken(Check::SessionWaitsForItsMachines, how);
            }
        }
    }

    fn judge(&mut self) {
        let Some(finished_at) = self.finished_at else {
            let waiting: Vec<String> = self
                .machines
                .iter()
                .filter(|machine| !machine.complete)
                .map(|m| {
                    format!(
                        "{} on={} held={}",
                        m.address,
                        m.is_on(),
                        m.held(&self.truth)
                    )
                })
                .collect();
            self.outcome
                .broken(Check::SessionEnds, format!("not done: {waiting:?}"));
            return;
        };
        for machine in &self.machines {
            // Who came when the session was over, or went for good, is not its matter.
            let stays = machine
                .plan
                .off_at
                .is_none_or(|(_, back_in)| back_in.is_some());
            let came = machine.on_since.is_some_and(|since| since < finished_at);
            if stays && came && !machine.complete && machine.failed.is_some() {
                let how = format!("{}: {:?}", machine.address, machine.failed);
                self.outcome.broken(Check::EveryoneCompletes, how);
            }
            if machine.complete && machine.held(&self.truth) != self.truth.blocks.len() {
                let how = format!("{} holds something else", machine.address);
                self.outcome.broken(Check::ContentIsRight, how);
            }
            let known = self.known_as(machine);
            if machine.finished && known.is_none_or(|id| !self.outcome.done.contains(&id)) {
                let how = format!("{} stopped before the sender knew", machine.address);
                self.outcome.broken(Check::DoneIsAcknowledged, how);
            }
            if machine.complete && !machine.finished && stays {
                let how = format!("{}: {:?}", machine.address, machine.failed);
                self.outcome.broken(Check::DoneIsAcknowledged, how);
            }
        }
        self.outcome.complete = self
            .machines
            .iter()
            .filter(|machine| machine.complete)
            .count();
        self.outcome.weigh(self.scenario);
    }
}
