//! What our server really sent: tcpdump at its card, and a reader of its file.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::lab::{Room, wait_until};

use crate::stage::{Stage, text};

/// tcpdump says that it listens within this time.
const STARTS: Duration = Duration::from_secs(10);

/// Bytes kept of each packet: the fixed part of a DHCP message is in them.
const SNAP_BYTES: &str = "128";

/// A running capture of all that leaves the server's card, but for TCP.
pub(crate) struct Sent {
    path: PathBuf,
    tcpdump: Child,
}

impl Sent {
    /// Starts it.
    pub(crate) fn record(stage: &Stage, room: &Room) -> Result<Sent> {
        let (path, talk) = (stage.path("sent.pcap"), stage.path("tcpdump.log"));
        let log = fs::File::create(&talk)?;
        let tcpdump = room
            .server_command("tcpdump")
            .args([
                "-i", "eth0", "-n", "-U", "-Q", "out", "-Z", "root", "-s", SNAP_BYTES, "-w",
            ])
            .arg(&path)
            .arg("not tcp")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting tcpdump")?;
        wait_until("tcpdump to listen", STARTS, || {
            Ok(text(&talk).contains("listening on"))
        })?;
        Ok(Sent { path, tcpdump })
    }

    /// Ends it and gives the packets.
    pub(crate) fn packets(mut self) -> Result<Vec<Vec<u8>>> {
        // SIGINT makes tcpdump write what it still holds.
        kill(Pid::from_raw(self.tcpdump.id() as i32), Signal::SIGINT).context("ending tcpdump")?;
        self.tcpdump.wait().context("waiting for tcpdump's end")?;
        packets(&fs::read(&self.path)?)
    }
}

/// The packets that name a hardware address anywhere: as receiver, or in a DHCP message.
pub(crate) fn naming<'a>(packets: &'a [Vec<u8>], mac: &str) -> Result<Vec<&'a Vec<u8>>> {
    let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes = bytes
        .collect::<Result<Vec<u8>, _>>()
        .context("reading a MAC address")?;
    let named = |packet: &&Vec<u8>| packet.windows(bytes.len()).any(|window| window == bytes);
    Ok(packets.iter().filter(named).collect())
}

/// The packets of a classic little-endian pcap file.
fn packets(pcap: &[u8]) -> Result<Vec<Vec<u8>>> {
    const FILE_HEADER_BYTES: usize = 24;
    const RECORD_HEADER_BYTES: usize = 16;
    ensure!(
        pcap.len() >= FILE_HEADER_BYTES && pcap[..4] == [0xd4, 0xc3, 0xb2, 0xa1],
        "not a pcap file as tcpdump writes it on this machine"
    );
    let mut found = Vec::new();
    let mut rest = &pcap[FILE_HEADER_BYTES..];
    while let Some((header, after)) = rest.split_at_checked(RECORD_HEADER_BYTES) {
        let kept = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let (packet, after) = after
            .split_at_checked(kept)
            .context("the last packet is cut")?;
        found.push(packet.to_vec());
        rest = after;
    }
    Ok(found)
}
