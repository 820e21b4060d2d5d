//! A crowd that multicast does not reach: two hundred machines at one queue, simulated.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{Answer, Queue, QueueConfig};

const MACHINES: usize = 200;
const BLOCKS: u32 = 10;
const PIECES: u32 = 22;
const PIECE_BYTES: usize = 64 << 10;
const CONFIG: QueueConfig = QueueConfig {
    places: 4,
    turn: Duration::from_secs(30),
    rate_bits: 100_000_000,
};

#[derive(Clone, Default)]
struct Machine {
    blocks: u32,
    pieces: u32,
    done: Option<Duration>,
}

/// What happened, in seconds from the start.
struct Course {
    machines: Vec<Machine>,
    sent_in_second: Vec<usize>,
    asks_in_second: Vec<u32>,
    served_most: usize,
}

/// Every machine asks, fetches a block piece by piece, writes it for `disk(machine)`, and asks again.
fn run(disk: impl Fn(usize) -> Duration) -> Course {
    let mut queue = Queue::new(CONFIG);
    let mut course = Course {
        machines: vec![Machine::default(); MACHINES],
        sent_in_second: vec![0; 4_000],
        asks_in_second: vec![0; 4_000],
        served_most: 0,
    };
    let begin = |machine| Reverse((Duration::from_millis(machine as u64), machine));
    let mut events: BinaryHeap<_> = (0..MACHINES).map(begin).collect();
    while let Some(Reverse((now, number))) = events.pop() {
        let machine = &mut course.machines[number];
        let second = now.as_secs() as usize;
        if machine.pieces > 0 {
            course.sent_in_second[second] += PIECE_BYTES;
            machine.pieces -= 1;
            machine.blocks += u32::from(machine.pieces == 0);
        } else {
            course.asks_in_second[second] += 1;
            match queue.ask(now, number as u64) {
                Answer::Go => machine.pieces = PIECES,
                Answer::Wait { again, .. } => {
                    events.push(Reverse((now + again, number)));
                    continue;
                }
            }
        }
        course.served_most = course.served_most.max(queue.lengths(now).0);
        if machine.pieces > 0 {
            let pause = queue.pay(now, number as u64, PIECE_BYTES);
            events.push(Reverse((now + pause, number)));
        } else if machine.blocks == BLOCKS {
            machine.done = Some(now);
            queue.leave(number as u64);
        } else {
            events.push(Reverse((now + disk(number), number)));
        }
    }
    course
}

#[test]
fn two_hundred_machines_queue_and_the_session_keeps_its_share() {
    let course = run(|machine| Duration::from_millis(10 + machine as u64 % 50));
    let all = course.machines.iter();
    assert!(all.clone().all(|machine| machine.blocks == BLOCKS));
    assert_eq!(course.served_most, CONFIG.places);
    // The session's share of the link is what the rate of the queue leaves, in every second.
    let most = *course.sent_in_second.iter().max().unwrap();
    let limit = CONFIG.rate_bits as usize / 8;
    assert!(
        most <= limit * 21 / 20,
        "{most} bytes in a second, {limit} are allowed"
    );
    // And that share is used: places do not stay empty between two machines.
    let bytes = MACHINES * (BLOCKS * PIECES) as usize * PIECE_BYTES;
    let least = Duration::from_secs_f64(bytes as f64 * 8.0 / CONFIG.rate_bits as f64);
    let took = course
        .machines
        .iter()
        .filter_map(|machine| machine.done)
        .max()
        .unwrap();
    assert!(took < least * 12 / 10, "{took:?} for what takes {least:?}");
    // Waiting is cheap: a question in five seconds.
    let asks = *course.asks_in_second.iter().max().unwrap();
    assert!(asks <= 250, "{asks} questions in a second");
    println!(
        "200 machines: {took:?}, at best {least:?}; {most} bytes and {asks} questions in the worst second"
    );
}
