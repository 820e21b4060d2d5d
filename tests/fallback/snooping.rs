//! A switch that snoops IGMP: the bridge, which forgets a machine eight seconds after its last report.
//!
//! A bridge floods as long as it has never heard a querier, so one asks first and is then taken away, as when
//! somebody replaces a router.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    lab::{inside, sh, wait_until},
    net::{Hall, Payload, Program, netflash},
};

use super::{HATCH, LIMIT, result_of};

/// Slow enough for the bridge to forget in the middle.
const RATE: &str = "8M";

/// A server that does nothing but ask.
fn querier(hall: &Hall, directory: &Path) -> Result<Program> {
    let config = "[listen]\nhttps = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\
                  [multicast]\ninterface = \"eth0\"\nquerier_seconds = 1\n";
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("netflash.toml"), config)?;
    let words = ["--dir", directory.to_str().context("UTF-8")?, "serve"];
    Program::start("netflash serve", hall.sender(), netflash()?, words)
}

/// The bridge snoops from now on, and has heard a querier.
fn snoop(hall: &Hall, directory: &Path) -> Result<Program> {
    sh(
        "ip link set br0 type bridge mcast_snooping 1 mcast_querier 0 \
        mcast_membership_interval 800 mcast_querier_interval 60000",
    )?;
    let asking = querier(hall, directory)?;
    let heard = || Ok(!sh("bridge -d vlan show 2>/dev/null; bridge mdb show dev br0")?.is_empty());
    wait_until("an answer to the query", LIMIT, heard)?;
    Ok(asking)
}

/// Why r1 and r2 went over HTTP, given how each reminds the switch; `asked`: somebody goes on asking.
fn transfer(first: &str, second: &str, asked: bool) -> Result<[Option<String>; 2]> {
    let directory = tempfile::tempdir()?;
    let payload = Payload::random(directory.path(), 20)?;
    let hall = Hall::build(2, 0.0)?;
    let disk = |name: &str| directory.path().join(format!("{name}.raw"));
    let receive = |name: &str, igmp: &str| {
        let options = ["--http", HATCH, "--patience", "3s", "--igmp", igmp];
        payload.receive(name, &disk(name), &options)
    };
    let receivers = [receive("r1", first)?, receive("r2", second)?];
    let asking = snoop(&hall, &directory.path().join("server"))?;
    let asking = match asked {
        true => Some(asking),
        false => asking.kill().map(|()| None)?,
    };
    let options = ["--receivers", "2", "--rate", RATE, "--http", HATCH];
    let sender = payload.send(hall.sender(), &options)?;
    let mut reasons = [None, None];
    for (receiver, reason) in receivers.into_iter().zip(&mut reasons) {
        let result = result_of(&receiver.succeed(LIMIT)?)?;
        *reason = result["fallback"]["reason"].as_str().map(str::to_owned);
    }
    sender.succeed(LIMIT)?;
    drop(asking);
    payload.compare(&disk("r1"))?;
    payload.compare(&disk("r2"))?;
    println!("{reasons:?}");
    Ok(reasons)
}

#[test]
fn who_reminds_the_switch_is_not_forgotten() -> Result<()> {
    inside("snooping::who_reminds_the_switch_is_not_forgotten", || {
        let [reminding, silent] = transfer("2s", "0", false)?;
        ensure!(reminding.is_none(), "{reminding:?}");
        let silent = silent.context("a machine that the switch forgot said nothing")?;
        ensure!(silent.contains("multicast stopped after"), "{silent}");
        Ok(())
    })
}

#[test]
fn where_the_server_asks_nobody_is_forgotten() -> Result<()> {
    inside(
        "snooping::where_the_server_asks_nobody_is_forgotten",
        || {
            let reasons = transfer("0", "0", true)?;
            ensure!(reasons == [None, None], "{reasons:?}");
            Ok(())
        },
    )
}

#[test]
fn memberships_are_told_again_in_both_versions() -> Result<()> {
    inside(
        "snooping::memberships_are_told_again_in_both_versions",
        || {
            let directory = tempfile::tempdir()?;
            let hall = Hall::build(1, 0.0)?;
            let words = ["-i", "eth0", "-n", "-v", "-l", "igmp"];
            let capture = Program::start("tcpdump", "r1", "tcpdump", words)?;
            std::thread::sleep(Duration::from_secs(1));
            let disk = directory.path().join("r1.raw").display().to_string();
            let words = ["receive", &disk, "--yes", "--igmp", "1s", "--search", "6s"];
            let receiver = Program::start("netflash receive", "r1", netflash()?, words)?;
            receiver.wait(LIMIT)?;
            capture.ask_to_end()?;
            let seen = capture.wait(LIMIT)?.stdout;
            drop(hall);
            let count = |words: &str| seen.matches(words).count();
            // An outside judge: tcpdump understands them, and finds no fault with their checksums.
            ensure!(count("igmp v2 report 239.192.78.70") >= 3, "{seen}");
            ensure!(count("gaddr 239.192.78.70 is_ex { }") >= 3, "{seen}");
            ensure!(
                count("options (RA)") >= 6 && count("bad cksum") == 0,
                "{seen}"
            );
            ensure!(count("igmp leave") == 0, "{seen}");
            Ok(())
        },
    )
}
