//! What really is on the wire: tcpdump beside the server, and a reader of its
//! file that shares no code with the protocol.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    patience::wait_until,
    room::{Room, SERVER_INTERFACE},
};

/// tcpdump says that it listens within this time.
const TCPDUMP_STARTS: Duration = Duration::from_secs(10);

/// Bytes kept of each packet: Ethernet, IPv4, UDP and the data header.
const SNAP_BYTES: usize = 96;

const ETHERNET_BYTES: usize = 14;
const UDP_BYTES: usize = 8;

/// Offset of the session number in a datagram: after kind and flags.
const SESSION_OFFSET: usize = 2;

/// A running capture of the multicast datagrams.
pub struct Capture {
    path: PathBuf,
    tcpdump: Child,
}

impl Capture {
    /// Starts tcpdump in the server's namespace.
    pub fn start(room: &Room) -> Result<Capture> {
        let path = room.directory().join("wire.pcap");
        let talk = room.directory().join("tcpdump.log");
        let log = fs::File::create(&talk).context("creating tcpdump's log")?;
        let tcpdump = room
            .server_command("tcpdump")
            .args(["-i", SERVER_INTERFACE, "-n", "-Q", "out", "-Z", "root"])
            .args(["-s", &SNAP_BYTES.to_string(), "-B", "16384", "-w"])
            .arg(&path)
            .arg("udp and dst net 239.0.0.0/8")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting tcpdump")?;
        let capture = Capture { path, tcpdump };
        wait_until("tcpdump to listen", TCPDUMP_STARTS, || {
            Ok(fs::read_to_string(&talk)?.contains("listening on"))
        })?;
        Ok(capture)
    }

    /// Ends the capture and counts the datagrams of each session.
    pub fn finish(mut self) -> Result<BTreeMap<u32, u64>> {
        // SIGINT makes tcpdump write what it still holds.
        kill(Pid::from_raw(self.tcpdump.id() as i32), Signal::SIGINT).context("ending tcpdump")?;
        self.tcpdump.wait().context("waiting for tcpdump's end")?;
        sessions_of(&self.path)
    }
}

fn sessions_of(path: &Path) -> Result<BTreeMap<u32, u64>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    sessions(&bytes)
}

/// Session number of each UDP datagram of a classic little-endian pcap file.
fn sessions(pcap: &[u8]) -> Result<BTreeMap<u32, u64>> {
    const FILE_HEADER_BYTES: usize = 24;
    const RECORD_HEADER_BYTES: usize = 16;
    ensure!(
        pcap.len() >= FILE_HEADER_BYTES && pcap[..4] == [0xd4, 0xc3, 0xb2, 0xa1],
        "not a pcap file as tcpdump writes it on this machine"
    );
    let mut found = BTreeMap::new();
    let mut rest = &pcap[FILE_HEADER_BYTES..];
    while rest.len() >= RECORD_HEADER_BYTES {
        let kept = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        rest = &rest[RECORD_HEADER_BYTES..];
        if rest.len() < kept {
            break;
        }
        if let Some(session) = session(&rest[..kept]) {
            *found.entry(session).or_default() += 1;
        }
        rest = &rest[kept..];
    }
    Ok(found)
}

fn session(packet: &[u8]) -> Option<u32> {
    let ip = packet.get(ETHERNET_BYTES..)?;
    let ip_header_bytes = usize::from(ip.first()? & 0x0f) * 4;
    let datagram = ip.get(ip_header_bytes + UDP_BYTES..)?;
    let bytes = datagram.get(SESSION_OFFSET..SESSION_OFFSET + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; ETHERNET_BYTES];
        packet.push(0x45);
        packet.extend([0; 19 + UDP_BYTES]);
        packet.extend(payload);
        let mut record = vec![0; 8];
        record.extend((packet.len() as u32).to_le_bytes());
        record.extend((packet.len() as u32).to_le_bytes());
        record.extend(packet);
        record
    }

    #[test]
    fn sessions_are_counted_and_a_torn_last_record_is_ignored() {
        let mut pcap = vec![0xd4, 0xc3, 0xb2, 0xa1];
        pcap.extend([0; 20]);
        pcap.extend(record(&[1, 0, 0, 0, 0, 7, 9, 9]));
        pcap.extend(record(&[1, 0, 0, 0, 0, 7, 9, 9]));
        pcap.extend(record(&[1, 0, 0xff, 0, 0, 7]));
        pcap.extend(&record(&[1, 0, 0, 0, 0, 7])[..20]);
        let found = sessions(&pcap).unwrap();
        assert_eq!(found, BTreeMap::from([(7, 2), (0xff00_0007, 1)]));
    }

    #[test]
    fn a_foreign_file_is_refused() {
        assert!(sessions(b"#!/bin/sh").is_err());
    }
}
