//! A cable on which some datagrams overtake others: they are held for a while and sent on later.
//!
//! ```text
//!   br0 -- y0 === y1 --(downstream: some are held)--> p-NAME === eth0 of NAME
//!                 y1 <--(upstream)------------------- p-NAME
//! ```

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use tests::{lab::sh, sim::Chance};

use crate::wire::{FRAME_BYTES, Tap};

/// The share of frames that are held.
const HELD: f64 = 0.05;
/// How long, at most, in milliseconds.
const HELD_MILLIS_MAX: u64 = 60;
/// Frames held at once; more are sent on at once.
const HELD_MAX: usize = 1024;

/// Puts a relay into the cable of this namespace.
pub(crate) fn cut(namespace: &str) -> Result<()> {
    sh("ip link add y0 type veth peer name y1")?;
    for end in ["y0", "y1"] {
        sh(&format!("sysctl -qw net.ipv6.conf.{end}.disable_ipv6=1"))?;
        sh(&format!("ethtool -K {end} tx off tso off gso off gro off"))?;
        sh(&format!("ip link set {end} up"))?;
    }
    sh("ip link set y0 master br0")?;
    sh(&format!("ip link set p-{namespace} nomaster"))?;
    // A tap of IPv4 does not carry questions about addresses: the answers are written down.
    let address = |of: &str| -> Result<String> {
        Ok(sh(&format!(
            "ip netns exec {of} cat /sys/class/net/eth0/address"
        ))?
        .trim()
        .to_owned())
    };
    for (at, of, ip) in [
        (namespace, "s", "10.78.0.1"),
        ("s", namespace, &ip_of(namespace)?),
    ] {
        let mac = address(of)?;
        sh(&format!(
            "ip -n {at} neigh replace {ip} lladdr {mac} dev eth0 nud permanent"
        ))?;
    }
    Ok(())
}

fn ip_of(namespace: &str) -> Result<String> {
    let text = sh(&format!("ip -n {namespace} -4 -o addr show dev eth0"))?;
    let word = text.split_whitespace().nth(3).unwrap_or_default();
    Ok(word.split('/').next().unwrap_or_default().to_owned())
}

/// Carries frames towards the machine until `stop`; counts those that were overtaken.
pub(crate) fn downstream(
    namespace: &str,
    mut chance: Chance,
    held: &AtomicU64,
    stop: &AtomicBool,
) -> Result<()> {
    let (from, to) = (Tap::open("y1")?, Tap::open(&format!("p-{namespace}"))?);
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        if let Some(count) = from.receive(&mut buffer)? {
            let frame = &buffer[..count];
            if waiting.len() < HELD_MAX && chance.hit(HELD) {
                let due = Instant::now() + Duration::from_millis(chance.range(1, HELD_MILLIS_MAX));
                waiting.push_back((due, frame.to_vec()));
                held.fetch_add(1, Ordering::Relaxed);
            } else {
                to.send(frame);
            }
        }
        let now = Instant::now();
        waiting.retain(|(due, frame)| {
            let stays = *due > now;
            if !stays {
                to.send(frame);
            }
            stays
        });
    }
    Ok(())
}

/// Carries frames from the machine until `stop`.
pub(crate) fn upstream(namespace: &str, stop: &AtomicBool) -> Result<()> {
    let (from, to) = (Tap::open(&format!("p-{namespace}"))?, Tap::open("y1")?);
    let mut buffer = [0; FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        if let Some(count) = from.receive(&mut buffer)? {
            to.send(&buffer[..count]);
        }
    }
    Ok(())
}
