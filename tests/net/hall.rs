//! The network: bridge, namespaces, loss, and counters at the sender's interface.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lab::{LossCount, LossTable, sh};

/// The sender's namespace.
const SENDER: &str = "s";
/// Bytes that a limited link may carry at once, and bytes that wait for it.
const LINK_BURST: u32 = 64 << 10;
const LINK_QUEUE: u32 = 512 << 10;
/// Where the kernel keeps the limit of receive buffers.
const BUFFER_MAX: &str = "/proc/sys/net/core/rmem_max";
/// Where it counts what each interface received, of the namespace of whoever reads.
const INTERFACES: &str = "/proc/self/net/dev";
/// The first receiver's last octet, less one.
const RECEIVERS_FROM: usize = 10;

/// A network with one sender and several receivers. It goes with the world.
#[derive(Debug)]
pub struct Hall {
    receivers: usize,
    loss: LossTable,
}

/// Makes room for large receive buffers on the whole machine, for programs that only ask politely; what it was
/// comes back when this is dropped.
#[derive(Debug)]
pub struct GenerousBuffers {
    before: String,
}

/// What an interface sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCount {
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Hall {
    /// Builds it. Each receiver loses `loss_percent` of the multicast datagrams towards it, on its own.
    ///
    /// Segmentation offloads are off: otherwise one loss takes dozens of datagrams at once, and the byte counter
    /// misses their headers.
    pub fn build(receivers: usize, loss_percent: f64) -> Result<Hall> {
        sh("ip link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0")?;
        sh("ip link set br0 up")?;
        add_host(SENDER, "10.78.0.1")?;
        for number in 1..=receivers {
            add_host(&receiver(number), &address(number))?;
        }
        let ports = (1..=receivers).map(|number| port(&receiver(number)));
        let loss = LossTable::install(ports.collect(), loss_percent)?;
        Ok(Hall { receivers, loss })
    }

    /// The same network for IPv6 alone: no machine has an address of the other kind. Addresses are there at once, none
    /// is tried first.
    pub fn build_ipv6(receivers: usize, loss_percent: f64) -> Result<Hall> {
        let hall = Hall::build(receivers, loss_percent)?;
        let names = std::iter::once(SENDER.to_owned()).chain(hall.receivers());
        for (number, name) in names.enumerate() {
            let inside = |command: &str| sh(&format!("ip netns exec {name} {command}"));
            inside("ip -4 addr flush dev eth0")?;
            inside("sysctl -qw net.ipv6.conf.eth0.accept_dad=0")?;
            inside("sysctl -qw net.ipv6.conf.eth0.router_solicitations=0")?;
            inside("sysctl -qw net.ipv6.conf.all.disable_ipv6=0")?;
            inside("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")?;
            let address = ipv6_address(number);
            inside(&format!("ip addr add {address}/64 dev eth0 nodad"))?;
        }
        Ok(hall)
    }

    /// IPv6 address of the receiver with this number, from 1; the sender has number 0.
    pub fn ipv6_address(&self, number: usize) -> String {
        ipv6_address(number)
    }

    /// Namespace of the sender.
    pub fn sender(&self) -> &'static str {
        SENDER
    }

    /// Namespaces of the receivers.
    pub fn receivers(&self) -> Vec<String> {
        (1..=self.receivers).map(receiver).collect()
    }

    /// Address of the receiver with this number, from 1.
    pub fn address(&self, number: usize) -> String {
        address(number)
    }

    /// Lets the sender hand over, and the receivers take, many datagrams as one. Only where nothing is lost: one
    /// loss would take all of them, and the byte counter misses their headers.
    pub fn allow_offload(&self) -> Result<()> {
        let hosts = std::iter::once(SENDER.to_owned()).chain(self.receivers());
        for name in hosts {
            let offloads = "tso on gso on gro on tx-udp-segmentation on";
            sh(&format!("ip netns exec {name} ethtool -K eth0 {offloads}"))?;
            sh(&format!("ethtool -K {} {offloads}", port(&name)))?;
        }
        Ok(())
    }

    /// Makes the sender's link one of `megabits` per second: a token bucket with as much queue as a small switch.
    pub fn limit_link(&self, megabits: u32) -> Result<()> {
        sh(&format!(
            "tc -n {SENDER} qdisc add dev eth0 root tbf rate {megabits}mbit burst {LINK_BURST} limit {LINK_QUEUE}"
        ))
        .map(drop)
    }

    /// What the sender's interface sent so far.
    pub fn sent(&self) -> Result<WireCount> {
        let text = sh(&format!("ip -n {SENDER} -s -j link show dev eth0"))?;
        let json: Value = serde_json::from_str(&text).context("reading ip's JSON")?;
        let counter = |name: &str| json[0]["stats64"]["tx"][name].as_u64();
        let counts = counter("bytes").zip(counter("packets"));
        let (bytes, packets) = counts.with_context(|| format!("ip counts nothing: {text}"))?;
        Ok(WireCount { bytes, packets })
    }

    /// Bytes that came from the sender's interface to the bridge so far, Ethernet headers included: what its link
    /// carried, once it is limited. Cheap, to be asked often.
    pub fn carried(&self) -> Result<u64> {
        let text = fs::read_to_string(INTERFACES).context("reading the interfaces' counters")?;
        let name = format!("{}:", port(SENDER));
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&name));
        let bytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        bytes.with_context(|| format!("the kernel counts nothing at {name} {text}"))
    }

    /// What came to the port of a receiver and what was dropped there.
    pub fn lost(&self, receiver: &str) -> Result<LossCount> {
        self.loss.count(&port(receiver))
    }

    /// Gives a namespace a second interface with an address on another network.
    pub fn add_second_interface(&self, namespace: &str) -> Result<()> {
        sh(&format!(
            "ip link add q-{namespace} type veth peer name eth1 netns {namespace}"
        ))?;
        sh(&format!("ip link set q-{namespace} up"))?;
        sh(&format!("ip -n {namespace} addr add 10.79.0.1/24 dev eth1"))?;
        sh(&format!("ip -n {namespace} link set eth1 up"))?;
        Ok(())
    }
}

impl GenerousBuffers {
    /// Receive buffers may have up to `bytes`.
    pub fn allow(bytes: u32) -> Result<GenerousBuffers> {
        let before = fs::read_to_string(BUFFER_MAX).context("reading the buffer limit")?;
        fs::write(BUFFER_MAX, bytes.to_string()).context("raising the buffer limit")?;
        Ok(GenerousBuffers { before })
    }
}

impl Drop for GenerousBuffers {
    fn drop(&mut self) {
        // It could be raised, so it can be lowered.
        let _ = fs::write(BUFFER_MAX, self.before.trim());
    }
}

impl WireCount {
    /// What was sent since an earlier count.
    #[must_use]
    pub fn since(&self, earlier: &WireCount) -> WireCount {
        WireCount {
            bytes: self.bytes - earlier.bytes,
            packets: self.packets - earlier.packets,
        }
    }
}

fn receiver(number: usize) -> String {
    format!("r{number}")
}

fn address(number: usize) -> String {
    format!("10.78.0.{}", RECEIVERS_FROM + number)
}

fn ipv6_address(number: usize) -> String {
    format!("fd78::{:x}", number + 1)
}

fn port(namespace: &str) -> String {
    format!("p-{namespace}")
}

fn add_host(name: &str, address: &str) -> Result<()> {
    let port = port(name);
    sh(&format!("ip netns add {name}"))?;
    sh(&format!(
        "ip link add {port} type veth peer name eth0 netns {name}"
    ))?;
    // Router solicitations and the like would be counted as ours.
    sh(&format!(
        "ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"
    ))?;
    sh(&format!("sysctl -qw net.ipv6.conf.{port}.disable_ipv6=1"))?;
    sh(&format!("ip link set {port} master br0 up"))?;
    sh(&format!(
        "ip -n {name} addr add {address}/24 brd + dev eth0"
    ))?;
    sh(&format!("ip -n {name} link set lo up"))?;
    sh(&format!("ip -n {name} link set eth0 up"))?;
    sh(&format!("ip -n {name} route add 224.0.0.0/4 dev eth0"))?;
    let offloads = "tso off gso off gro off tx-udp-segmentation off";
    sh(&format!("ip netns exec {name} ethtool -K eth0 {offloads}"))?;
    sh(&format!("ethtool -K {port} {offloads}"))?;
    Ok(())
}
