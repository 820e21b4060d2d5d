//! A stranger on the network: hears everything, and says changed, cut and old datagrams under the names of others.

use std::{
    fs::File,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tests::sim::Chance;

use crate::wire::{Datagram, FRAME_BYTES, Mask, Tap};

/// Datagrams a second.
pub(crate) const RATE: u64 = 100;
/// Datagrams remembered; which ones is chance.
const MEMORY: usize = 4096;
/// Kind, flags and session of every datagram of the protocol: with these it is taken for one of ours.
const HEAD: usize = 6;

/// What the stranger has done so far.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) forged: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) invented: AtomicU64,
}

impl Deeds {
    /// All of them together.
    pub(crate) fn total(&self) -> u64 {
        [
            &self.forged,
            &self.truncated,
            &self.replayed,
            &self.invented,
        ]
        .map(|count| count.load(Ordering::Relaxed))
        .iter()
        .sum()
    }
}

/// Does mischief from this namespace until `stop`.
pub(crate) fn vandalize(
    namespace: &str,
    address: Ipv4Addr,
    mut chance: Chance,
    deeds: &Deeds,
    stop: &AtomicBool,
) -> Result<()> {
    let path = format!("/run/netns/{namespace}");
    let file = File::open(&path).with_context(|| format!("opening {path}"))?;
    // Only this thread moves.
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {namespace}"))?;
    let (tap, mask) = (Tap::open("eth0")?, Mask::open(address)?);
    let mut memory: Vec<Datagram> = Vec::with_capacity(MEMORY);
    let mut buffer = [0; FRAME_BYTES];
    let pause = Duration::from_secs(1) / RATE as u32;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if let Some(datagram) = tap
            .receive(&mut buffer)?
            .and_then(|count| Datagram::of(&buffer[..count]))
        {
            match memory.len() < MEMORY {
                true => memory.push(datagram),
                false => memory[chance.range(0, MEMORY as u64 - 1) as usize] = datagram,
            }
        }
        let now = Instant::now();
        if now < due || memory.is_empty() {
            continue;
        }
        // What was missed while others had the processor is made up for, but not all at once.
        due = (due + pause).max(now - Duration::from_secs(1));
        let mut datagram = memory[chance.range(0, memory.len() as u64 - 1) as usize].clone();
        spoil(&mut datagram.payload, &mut chance, deeds);
        // A full queue loses it like any other.
        let _ = mask.say(&datagram);
    }
    Ok(())
}

fn spoil(payload: &mut Vec<u8>, chance: &mut Chance, deeds: &Deeds) {
    let length = payload.len();
    let deed = match chance.range(0, 9) {
        0..=3 if length > HEAD => {
            for _ in 0..chance.range(1, 4) {
                let at = chance.range(HEAD as u64, length as u64 - 1) as usize;
                payload[at] ^= chance.range(1, 255) as u8;
            }
            &deeds.forged
        }
        4 | 5 => {
            payload.truncate(chance.range(0, length.max(1) as u64 - 1) as usize);
            &deeds.truncated
        }
        6 => {
            let tail = chance.range(0, 1450) as usize;
            payload.truncate(HEAD);
            payload.extend(chance.bytes(tail));
            &deeds.invented
        }
        _ => &deeds.replayed,
    };
    deed.fetch_add(1, Ordering::Relaxed);
}
