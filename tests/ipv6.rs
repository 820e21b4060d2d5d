//! Whole transfers over IPv6 by the real program, in a network whose machines have no IPv4 address.
//!
//! What arrived is compared with `cmp`, what was sent is counted by the kernel at the sender's interface, and tcpdump
//! says by which protocol.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    lab::{inside, sh, wait_until},
    net::{Ended, Hall, Payload, Program},
};

/// Size of the random disk, in MiB.
const MEBIBYTES: usize = 48;
/// How long a transfer of it may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How long tcpdump may take to begin and to end.
const TCPDUMP: Duration = Duration::from_secs(20);
/// Bytes before the first packet of a capture.
const CAPTURE_HEAD: u64 = 24;
/// The group of these tests.
const GROUP: &str = "ff15::efc0:4e46";
/// A full Ethernet frame: header and MTU.
const FRAME_BYTES: u64 = 14 + 1500;

/// Starts tcpdump at the sender's interface, for everything.
fn watch(hall: &Hall, directory: &Path) -> Result<(Program, PathBuf)> {
    let file = directory.join("wire.pcap");
    let words = "-i eth0 -n -s 128 -B 65536 -Z root -U -w";
    let words = words.split(' ').map(str::to_owned);
    let words = words.chain([file.display().to_string()]);
    let tcpdump = Program::start("tcpdump", hall.sender(), "tcpdump", words)?;
    wait_until("tcpdump to listen", TCPDUMP, || {
        Ok(fs::metadata(&file).is_ok_and(|file| file.len() >= CAPTURE_HEAD))
    })?;
    Ok((tcpdump, file))
}

/// Packets of a capture that a filter lets through.
fn count(capture: &Path, filter: &str) -> Result<usize> {
    let file = capture.display();
    let lines = sh(&format!("tcpdump -n -r {file} {filter}"))?;
    Ok(lines.lines().count())
}

/// A transfer to every receiver of the hall by `GROUP`; what the sender said, and the disks.
fn transfer(
    hall: &Hall,
    payload: &Payload,
    directory: &Path,
    also: &[&str],
    at_receivers: &[&str],
) -> Result<(Ended, Vec<PathBuf>)> {
    let (mut receivers, mut disks) = (Vec::new(), Vec::new());
    for name in hall.receivers() {
        let disk = directory.join(format!("{name}.raw"));
        let words = [&["--group", GROUP], also, at_receivers].concat();
        receivers.push(payload.receive(&name, &disk, &words)?);
        disks.push(disk);
    }
    let machines = receivers.len().to_string();
    let own = ["--group", GROUP, "--receivers", &machines, "--rate", "200M"];
    let sender = payload.send(hall.sender(), &[&own, also].concat())?;
    let last = hall.receivers().len();
    wait_until("the group to be joined", TCPDUMP, || {
        let groups = sh(&format!("ip -n r{last} -6 maddr show dev eth0"))?;
        Ok(groups.contains(GROUP))
    })?;
    let sender = sender.succeed(LIMIT)?;
    for receiver in receivers {
        receiver.succeed(LIMIT)?;
    }
    Ok((sender, disks))
}

#[test]
fn eight_receivers_are_served_by_ipv6_alone_at_five_per_cent_loss() -> Result<()> {
    let name = "eight_receivers_are_served_by_ipv6_alone_at_five_per_cent_loss";
    inside(name, || {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), MEBIBYTES)?;
        let hall = Hall::build_ipv6(8, 5.0)?;
        let (tcpdump, capture) = watch(&hall, directory.path())?;
        let before = hall.sent()?;
        let (sender, disks) = transfer(&hall, &payload, directory.path(), &[], &[])?;
        let sent = hall.sent()?.since(&before);
        tcpdump.ask_to_end()?;
        tcpdump.wait(TCPDUMP)?;
        for disk in &disks {
            payload.compare(disk)?;
        }
        let ratio = sent.bytes as f64 / payload.bytes as f64;
        println!(
            "eight receivers at 5 %: wire {ratio:.4} x payload, {:.1} s, sender {:.2} CPU s",
            sender.took.as_secs_f64(),
            sender.cpu.as_secs_f64()
        );
        // 20 bytes of each 1500 more than IPv4 takes.
        ensure!(ratio <= 1.16, "the wire carried {ratio:.4} x the payload");
        let lost = hall.lost("r8")?.percent();
        ensure!((4.0..=6.0).contains(&lost), "{lost} % were lost");

        let result: Value = serde_json::from_str(&sender.stdout)?;
        let told = result["wire_bytes"].as_u64().context("wire_bytes")?;
        let real = sent.bytes as f64;
        ensure!(
            (told as f64 / real - 1.0).abs() < 0.01,
            "the sender counts {told} bytes, the kernel {real}"
        );

        let group = format!("udp and dst host {GROUP}");
        let data = count(&capture, &format!("{group} and greater {FRAME_BYTES}"))?;
        let reports = count(&capture, "udp and dst net fe80::/10")?;
        let stray = count(&capture, "ip or (udp and not ip6) or (ip6[6] == 44)")?;
        let too_long = count(&capture, &format!("greater {}", FRAME_BYTES + 1))?;
        println!("tcpdump: {data} full frames to {GROUP}, {reports} reports, {stray} by IPv4");
        ensure!(data as u64 * 1400 >= payload.bytes && reports >= 8);
        ensure!(stray == 0, "{stray} packets by IPv4 or in fragments");
        ensure!(too_long == 0, "{too_long} frames are longer than the MTU");
        Ok(())
    })
}

/// No router, no address but those every interface gives itself.
#[test]
fn a_sealed_session_needs_only_link_local_addresses() -> Result<()> {
    inside("a_sealed_session_needs_only_link_local_addresses", || {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), MEBIBYTES)?;
        let hall = Hall::build_ipv6(2, 2.0)?;
        for name in hall
            .receivers()
            .iter()
            .map(String::as_str)
            .chain([hall.sender()])
        {
            sh(&format!("ip -n {name} -6 addr flush dev eth0 scope global"))?;
        }
        let key = directory.path().join("room.key").display().to_string();
        sh(&format!("openssl rand -hex -out {key} 32"))?;
        let (_, disks) = transfer(
            &hall,
            &payload,
            directory.path(),
            &["--key-file", &key],
            &[],
        )?;
        disks.iter().try_for_each(|disk| payload.compare(disk))
    })
}

#[test]
fn who_multicast_does_not_reach_fetches_over_http_by_ipv6() -> Result<()> {
    let name = "who_multicast_does_not_reach_fetches_over_http_by_ipv6";
    inside(name, || {
        let directory = tempfile::tempdir()?;
        let payload = Payload::random(directory.path(), 8)?;
        let hall = Hall::build_ipv6(2, 0.0)?;
        // A switch that lost the membership: what comes to the group does not come here.
        sh("nft add table bridge deaf")?;
        sh("nft add chain bridge deaf forward { type filter hook forward priority 1 ; }")?;
        sh(&format!(
            "nft add rule bridge deaf forward oifname p-r2 ip6 daddr {GROUP} drop"
        ))?;
        let hatch = format!("[{}]:9079", hall.ipv6_address(0));
        let also = ["--http", &hatch];
        let (sender, disks) = transfer(
            &hall,
            &payload,
            directory.path(),
            &also,
            &["--patience", "3s"],
        )?;
        disks.iter().try_for_each(|disk| payload.compare(disk))?;
        let result: Value = serde_json::from_str(&sender.stdout)?;
        let fetched = result["fallback"]["bytes"].as_u64().unwrap_or(0);
        ensure!(fetched >= 8 << 20, "{fetched} bytes went over HTTP");
        Ok(())
    })
}

#[test]
fn an_interface_without_an_ipv6_address_is_said_to_lack_it() -> Result<()> {
    inside(
        "an_interface_without_an_ipv6_address_is_said_to_lack_it",
        || {
            let directory = tempfile::tempdir()?;
            let payload = Payload::random(directory.path(), 1)?;
            let hall = Hall::build(1, 0.0)?;
            let words = ["--group", GROUP, "--iface", "eth0"];
            let ended = payload.send(hall.sender(), &words)?.wait(LIMIT)?;
            ensure!(ended.code == Some(1), "{:?}", ended.code);
            let expected = "no interface eth0 that is up with an IPv6 address";
            ensure!(ended.stderr.contains(expected), "{}", ended.stderr);
            Ok(())
        },
    )
}
