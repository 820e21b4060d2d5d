//! Facts about whole sessions in memory: one sender, some receivers, a lossy network between them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::block::{BlockId, Layout, ObjectId, Start, Verdict};
use crate::clock::Instant;
use crate::fec::ReedSolomon;
use crate::keys::SigningKey;
use crate::receiver::{Receiver, ReceiverConfig, ReceiverEvent};
use crate::sender::{Rate, Sender, SenderConfig, SenderEvent, StartRule};

const STEP: Duration = Duration::from_micros(200);
const PER_STEP: usize = 10;

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

struct Node {
    receiver: Receiver,
    wanted: Vec<bool>,
    blocks: Vec<Option<Vec<u8>>>,
    finished: bool,
}

struct Room {
    now: Instant,
    sender: Sender,
    preamble: Vec<u8>,
    blocks: Vec<Vec<u8>>,
    nodes: Vec<Node>,
    loss: f64,
    chance: u64,
    over: bool,
}

impl Room {
    fn new(block_bytes: &[u32], receivers: u32, loss: f64) -> Room {
        let mut chance = 0x5eed;
        let mut bytes = |count: u32| (0..count).map(|_| random(&mut chance) as u8).collect();
        let blocks: Vec<Vec<u8>> = block_bytes.iter().map(|&count| bytes(count)).collect();
        let preamble: Vec<u8> = bytes(5000);
        let config = SenderConfig {
            session: 77,
            object_id: ObjectId(*blake3::hash(&preamble).as_bytes()),
            signing_key: SigningKey::from_seed(&[5; 32]),
            seal: None,
            reply_to: None,
            symbol_bytes: 1452,
            rate: Rate::Fixed(500_000_000),
            start: StartRule {
                receivers,
                wait: Duration::from_secs(60),
            },
            linger: Duration::from_millis(300),
        };
        let layout = Layout::new(block_bytes.to_vec()).unwrap();
        let sender =
            Sender::new(Instant::ZERO, config, &preamble, layout, ReedSolomon::new()).unwrap();
        let (nodes, now, over) = (Vec::new(), Instant::ZERO, false);
        Room {
            now,
            sender,
            preamble,
            blocks,
            nodes,
            loss,
            chance,
            over,
        }
    }

    fn join(&mut self, wanted: Vec<bool>) {
        let mut state = 99 + self.nodes.len() as u64;
        let config = ReceiverConfig {
            id: 1 + self.nodes.len() as u64,
            name: format!("node{}", self.nodes.len()),
            session: None,
            verify_key: None,
            membership: None,
            object_id: None,
            silence: Duration::from_secs(5),
            chance: Box::new(move || random(&mut state) as u32),
        };
        let receiver = Receiver::new(self.now, config, ReedSolomon::new());
        let blocks = vec![None; self.blocks.len()];
        self.nodes.push(Node {
            receiver,
            wanted,
            blocks,
            finished: false,
        });
    }

    fn lost(&mut self) -> bool {
        (random(&mut self.chance) % 100_000) as f64 / 100_000.0 < self.loss
    }

    fn step(&mut self) {
        self.now = self.now.after(STEP);
        self.sender.handle_timeout(self.now);
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::NeedBlock(block) => {
                    let payload = self.blocks[block.0 as usize].clone();
                    self.sender.provide(block, payload).unwrap();
                }
                SenderEvent::Finished => self.over = true,
                _ => {}
            }
        }
        let mut datagrams = VecDeque::new();
        for _ in 0..PER_STEP {
            let mut out = Vec::new();
            if self.sender.poll_transmit(self.now, &mut out).is_none() {
                break;
            }
            datagrams.push_back(out);
        }
        for at in 0..self.nodes.len() {
            for datagram in &datagrams {
                if !self.lost() {
                    self.nodes[at]
                        .receiver
                        .handle_datagram(self.now, address(1), datagram);
                }
            }
            self.serve(at);
        }
    }

    fn serve(&mut self, at: usize) {
        let now = self.now;
        let mut out = Vec::new();
        let node = &mut self.nodes[at];
        node.receiver.handle_timeout(now);
        node.receiver.set_pressure(0, true, 0);
        while let Some(event) = node.receiver.poll_event() {
            match event {
                ReceiverEvent::Preamble(preamble) => {
                    assert_eq!(preamble, self.preamble);
                    let sizes = self.blocks.iter().map(|block| block.len() as u32).collect();
                    let layout = Layout::new(sizes).unwrap();
                    node.receiver.begin(
                        now,
                        Start {
                            layout,
                            wanted: node.wanted.clone(),
                        },
                    );
                }
                ReceiverEvent::Block { block, payload } => {
                    assert!(
                        node.wanted[block.0 as usize],
                        "only wanted blocks are delivered"
                    );
                    assert_eq!(payload, self.blocks[block.0 as usize], "payload is right");
                    node.blocks[block.0 as usize] = Some(payload);
                    node.receiver.handle_verdict(now, Verdict::Accepted(block));
                    node.receiver.set_pressure(0, true, 0);
                }
                ReceiverEvent::Settle => node.receiver.handle_verdict(now, Verdict::Settled),
                ReceiverEvent::Finished => node.finished = true,
                ReceiverEvent::Failed(error) => panic!("node {at}: {error}"),
                ReceiverEvent::Joined { .. } | ReceiverEvent::Complete => {}
            }
        }
        let mut reports = Vec::new();
        while node.receiver.poll_transmit(now, &mut out).is_some() {
            reports.push(std::mem::take(&mut out));
        }
        for report in reports {
            if !self.lost() {
                self.sender
                    .handle_datagram(now, address(100 + at as u16), &report);
            }
        }
    }

    /// Runs to the end of the session; returns datagram bytes per payload byte.
    fn run(&mut self, seconds: u64) -> f64 {
        let end = self.now.after(Duration::from_secs(seconds));
        while !self.over {
            assert!(self.now < end, "the session ends: {:?}", self.sender);
            self.step();
        }
        for (at, node) in self.nodes.iter().enumerate() {
            assert!(node.finished, "node {at} knows that the sender knows");
            for (block, payload) in node.blocks.iter().enumerate() {
                assert_eq!(
                    payload.is_some(),
                    node.wanted[block],
                    "node {at} block {block}"
                );
            }
        }
        let infos = self.sender.receivers(self.now);
        assert!(
            infos
                .iter()
                .all(|info| info.phase == crate::wire::Phase::Done),
            "{infos:?}"
        );
        let total: usize = self.blocks.iter().map(Vec::len).sum();
        let stats = self.sender.stats();
        // Ethernet, IPv4 and UDP headers come on top of every datagram.
        (stats.datagram_bytes + 42 * stats.datagrams) as f64 / (total + self.preamble.len()) as f64
    }
}

fn full_room(blocks: usize, receivers: u32, loss: f64) -> Room {
    let mut room = Room::new(&vec![1_400_000; blocks], receivers, loss);
    (0..receivers).for_each(|_| room.join(vec![true; blocks]));
    room
}

#[test]
fn without_loss_nothing_is_repaired() {
    let mut room = full_room(20, 8, 0.0);
    let cost = room.run(30);
    assert_eq!(room.sender.stats().repair_symbols, 0);
    assert!(cost <= 1.06, "{cost}");
}

#[test]
fn loss_costs_a_few_per_cent_more_than_it_must() {
    for (loss, most) in [(0.01, 1.08), (0.05, 1.14), (0.2, 1.40)] {
        let cost = full_room(20, 8, loss).run(60);
        println!("loss {loss}: {cost:.4}");
        assert!(cost <= most, "loss {loss}: {cost}");
    }
}

#[test]
fn blocks_of_any_size_arrive() {
    let sizes = [1, 2, 1451, 1452, 1453, 100_000, 4 << 20, 5];
    let mut room = Room::new(&sizes, 2, 0.1);
    (0..2).for_each(|_| room.join(vec![true; sizes.len()]));
    room.run(60);
}

#[test]
fn a_machine_that_lacks_nothing_is_done_at_once() {
    let mut room = Room::new(&[1_000_000; 4], 1, 0.0);
    room.join(vec![false; 4]);
    room.run(10);
    assert!(room.sender.stats().source_symbols < 10);
}

#[test]
fn only_what_somebody_lacks_is_sent() {
    let mut room = Room::new(&[1_000_000; 10], 2, 0.02);
    room.join((0..10).map(|at| at == 3).collect());
    room.join((0..10).map(|at| at == 3 || at == 7).collect());
    let cost = room.run(20);
    assert!(cost < 0.25, "{cost}");
}

#[test]
fn a_late_joiner_gets_every_block() {
    let mut room = full_room(20, 3, 0.02);
    while room.sender.blocks_left() > 10 || room.sender.stats().source_symbols == 0 {
        room.step();
    }
    room.join(vec![true; 20]);
    let cost = room.run(60);
    // It lacks ten blocks of twenty, and three more pass while it joins.
    assert!(cost < 1.65 * 1.12, "{cost}");
}

#[test]
fn a_machine_that_vanishes_does_not_keep_the_session() {
    let mut room = full_room(10, 3, 0.05);
    (0..500).for_each(|_| room.step());
    room.nodes.remove(1);
    let end = room.now.after(Duration::from_secs(60));
    while !room.over {
        assert!(room.now < end, "the session ends without the lost machine");
        room.step();
    }
    assert!(room.nodes.iter().all(|node| node.finished));
    let infos = room.sender.receivers(room.now);
    assert_eq!(infos.iter().filter(|info| info.gone).count(), 1);
}

#[test]
fn a_block_refused_by_the_sink_comes_again() {
    let mut room = full_room(3, 1, 0.0);
    while room.nodes[0].blocks[1].is_none() {
        room.step();
    }
    let now = room.now;
    room.nodes[0].blocks[1] = None;
    room.nodes[0]
        .receiver
        .handle_verdict(now, Verdict::Rejected(BlockId(1)));
    room.run(20);
}

#[test]
fn a_session_for_named_machines_waits_for_them_and_for_nobody_else() {
    let mut room = full_room(3, 2, 0.0);
    room.sender.name(["node0", "node2"].map(String::from));
    (0..500).for_each(|_| room.step());
    assert!(room.sender.stats().source_symbols < 10, "node2 is awaited");
    room.join(vec![true; 3]);
    while room.sender.stats().source_symbols < 100 {
        room.step();
    }
    // The stranger hangs: it neither goes on nor says that it leaves.
    room.nodes.remove(1);
    let end = room.now.after(Duration::from_secs(5));
    while !room.over {
        assert!(room.now < end, "the session ends with those it is for");
        room.step();
    }
    assert!(room.nodes.iter().all(|node| node.finished));
}

#[test]
fn a_session_begins_when_those_who_are_missing_will_not_come() {
    let mut room = full_room(3, 2, 0.0);
    room.sender.expect(room.now, 3);
    (0..500).for_each(|_| room.step());
    assert!(room.sender.stats().source_symbols < 10);
    room.sender.expect(room.now, 2);
    room.run(10);
}
