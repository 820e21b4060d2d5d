//! Wake-on-LAN, by what is on the wire: the bytes are those of two programs that are not ours.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::{inside, sh, wait_until};

use crate::desk::Desk;

const MAC: &str = "52:54:00:99:00:01";
const SECRET: &str = "00:11:22:33:44:55";
/// How long tcpdump may take until it listens, and until it has written what it saw.
const TCPDUMP: Duration = Duration::from_secs(20);

#[test]
fn a_magic_packet_is_that_of_wakeonlan_and_of_etherwake() -> Result<()> {
    inside(
        "wake::a_magic_packet_is_that_of_wakeonlan_and_of_etherwake",
        || {
            for line in [
                "ip link add w0 type veth peer name w1",
                "ip addr add 10.9.0.1/24 brd + dev w0",
                "ip link set w0 up",
                "ip link set w1 up",
            ] {
                sh(line)?;
            }
            let desk = Desk::open(
                "[power.wake]\ndriver = \"wol\"\nbroadcast = [\"10.9.0.255\"]\ndeadline_seconds = 1\n\
             [power.raw]\ndriver = \"wol\"\nbroadcast = []\ninterface = \"w0\"\nsecure_on = true\ndeadline_seconds = 1\n",
            )?;
            desk.add("a", 1, &["wake:"])?;
            desk.add("b", 2, &[&format!("raw:{MAC}")])?;
            desk.login("raw", "", SECRET)?;

            let ours = watch(desk.scratch.path(), "ours", || {
                for name in ["a", "b"] {
                    let outcome = desk.power(&["on", name])?;
                    assert_eq!(
                        outcome["failure"], "not-confirmed",
                        "nobody was seen: {outcome}"
                    );
                }
                assert_eq!(desk.power(&["off", "a"])?["failure"], "unsupported");
                Ok(())
            })?;
            let theirs = watch(desk.scratch.path(), "theirs", || {
                for port in ["9", "7"] {
                    sh(&format!("wakeonlan -i 10.9.0.255 -p {port} {MAC}"))?;
                }
                sh(&format!("etherwake -b -i w0 -p {SECRET} {MAC}"))?;
                Ok(())
            })?;
            let mut expected = Vec::new();
            for _ in 0..3 {
                expected.extend(theirs.clone());
            }
            expected.sort();
            assert_eq!(theirs.len(), 3, "{theirs:?}");
            assert_eq!(ours, expected, "each three times");
            Ok(())
        },
    )
}

/// What a magic packet is sent in: the UDP port, or none for a bare frame; and its bytes.
type Packet = (Option<u16>, Vec<u8>);

/// The magic packets that leave `w0` while `work` is done, sorted.
fn watch(directory: &Path, name: &str, work: impl FnOnce() -> Result<()>) -> Result<Vec<Packet>> {
    let file = directory.join(format!("{name}.pcap"));
    let mut tcpdump = Capture(
        Command::new("tcpdump")
            .args(["-i", "w1", "-U", "-Z", "root", "-w"])
            .arg(&file)
            .args(["ether proto 0x0842 or udp port 7 or udp port 9 or udp port 1"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting tcpdump: run ./scripts/setup")?,
    );
    wait_until("tcpdump to listen", TCPDUMP, || {
        ensure!(tcpdump.0.try_wait()?.is_none(), "tcpdump ended");
        Ok(fs::metadata(&file).is_ok_and(|file| file.len() >= 24))
    })?;
    work()?;
    // A last datagram that cannot be missed says that everything before it was written.
    let socket = std::net::UdpSocket::bind("10.9.0.1:0")?;
    socket.set_broadcast(true)?;
    wait_until("tcpdump to write", TCPDUMP, || {
        socket.send_to(b"end", "10.9.0.255:1")?;
        Ok(frames(&fs::read(&file)?)
            .iter()
            .any(|frame| frame.ends_with(b"end")))
    })?;
    let mut packets: Vec<Packet> = frames(&fs::read(&file)?)
        .iter()
        .filter_map(|frame| magic(frame))
        .collect();
    packets.sort();
    Ok(packets)
}

struct Capture(Child);

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The frames of a capture file that are there as a whole.
fn frames(pcap: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let mut rest = pcap.get(24..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(16) {
        let length = u32::from_ne_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some((frame, next)) = after.split_at_checked(length) else {
            break;
        };
        frames.push(frame);
        rest = next;
    }
    frames
}

fn magic(frame: &[u8]) -> Option<Packet> {
    match frame.get(12..14)? {
        [0x08, 0x42] => Some((None, frame[14..].to_vec())),
        [0x08, 0x00] => {
            let port = u16::from_be_bytes([frame[36], frame[37]]);
            (port != 1).then(|| (Some(port), frame[42..].to_vec()))
        }
        _ => None,
    }
}
