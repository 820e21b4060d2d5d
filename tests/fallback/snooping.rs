//! What keeps a switch that snoops IGMP from forgetting a machine, judged by tcpdump and by a bridge that snoops.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use netflash_multicast::{Family, Interface, InterfaceChoice, QuerierConfig, ask_who_listens};
use nix::sched::{CloneFlags, setns};
use tests::{
    lab::{inside, sh, wait_until},
    net::{Hall, Payload, Program, differing_mebibytes, netflash},
};

use super::{HATCH, LIMIT, MEBIBYTES, PATIENCE, result_of, says};

#[test]
fn memberships_are_told_again_in_both_versions() -> Result<()> {
    inside(
        "snooping::memberships_are_told_again_in_both_versions",
        || {
            let directory = tempfile::tempdir()?;
            let _hall = Hall::build(1, 0.0)?;
            let words = ["-i", "eth0", "-n", "-v", "-l", "igmp"];
            let capture = Program::start("tcpdump", "r1", "tcpdump", words)?;
            // It says nothing on standard output before the first packet.
            std::thread::sleep(Duration::from_secs(1));
            let disk = directory.path().join("r1.raw").display().to_string();
            let words = ["receive", &disk, "--yes", "--igmp", "1s", "--search", "6s"];
            let receiver = Program::start("netflash receive", "r1", netflash()?, words)?;
            receiver.wait(LIMIT)?;
            capture.ask_to_end()?;
            let seen = capture.wait(LIMIT)?.stdout;
            let count = |words: &str| seen.matches(words).count();
            ensure!(count("igmp v2 report 239.192.78.70") >= 3, "{seen}");
            let again = "gaddr 239.192.78.70 is_ex, 0 source(s)";
            ensure!(count(again) >= 3, "{seen}");
            ensure!(
                count("options (RA)") >= 6 && count("bad cksum") == 0,
                "{seen}"
            );
            ensure!(count("igmp leave") == 0, "{seen}");
            Ok(())
        },
    )
}

/// A router in a namespace that asks who listens, until it falls silent.
struct Router {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Router {
    fn start(namespace: &str) -> Router {
        let (path, stop) = (format!("/run/netns/{namespace}"), Arc::default());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let file = File::open(&path).with_context(|| format!("opening {path}"))?;
            // Only this thread moves.
            setns(file, CloneFlags::CLONE_NEWNET).context("entering the router's namespace")?;
            let interface =
                Interface::choose(&InterfaceChoice::Named("eth0".to_owned()), Family::V4)?;
            let config = QuerierConfig {
                version: 3,
                interval: Duration::from_secs(1),
            };
            ask_who_listens(&interface, config, |_| {}, &stopped).context("asking who listens")
        });
        Router { stop, thread }
    }

    fn falls_silent(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the router panicked"))?
    }
}

/// Whether the bridge knows that somebody at this port listens to the session.
fn is_member(port: &str) -> Result<bool> {
    let table = sh("bridge mdb show dev br0")?;
    let here =
        |line: &str| line.contains(&format!("port {port} ")) && line.contains("239.192.78.70");
    Ok(table.lines().any(here))
}

#[test]
fn who_repeats_its_membership_survives_a_querier_that_dies_and_who_does_not_goes_over_http()
-> Result<()> {
    inside(
        "snooping::who_repeats_its_membership_survives_a_querier_that_dies_and_who_does_not_goes_over_http",
        || {
            let directory = tempfile::tempdir()?;
            let payload = Payload::random(directory.path(), MEBIBYTES)?;
            let hall = Hall::build(3, 0.0)?;
            // A switch forgets after minutes; this one after eight seconds (in hundredths). It floods groups as long as
            // it has never heard a querier, and believes one it has heard to be there for ten minutes.
            sh(
                "ip link set br0 type bridge mcast_snooping 1 mcast_membership_interval 800 \
                mcast_querier_interval 60000",
            )?;
            let router = Router::start("r3");
            let (faithful, forgetful) = (directory.path().join("r1"), directory.path().join("r2"));
            let with = |more: [&'static str; 2]| {
                ["--http", HATCH, "--patience", PATIENCE, more[0], more[1]]
            };
            let survivor = payload.receive("r1", &faithful, &with(["--igmp", "1s"]))?;
            let forgotten = payload.receive("r2", &forgetful, &with(["--igmp", "0s"]))?;
            wait_until("both to be members by the querier's word", LIMIT, || {
                Ok(is_member("p-r1")? && is_member("p-r2")?)
            })?;
            let options = ["--receivers", "2", "--rate", "6M", "--http", HATCH];
            let sender = payload.send(hall.sender(), &options)?;
            wait_until("both to receive", LIMIT, || {
                let lacking = |disk| differing_mebibytes(&payload.raw, disk).unwrap_or(MEBIBYTES);
                Ok(lacking(&faithful) < MEBIBYTES && lacking(&forgetful) < MEBIBYTES)
            })?;
            router.falls_silent()?;
            let reason = |program: Program| -> Result<Option<String>> {
                let result = result_of(&program.succeed(LIMIT)?)?;
                Ok(result["fallback"]["reason"].as_str().map(str::to_owned))
            };
            let (survived, died) = (reason(survivor)?, reason(forgotten)?);
            sender.succeed(LIMIT)?;
            println!("with reports: {survived:?}; without: {died:?}");
            ensure!(survived.is_none(), "it left multicast: {survived:?}");
            says(died.as_ref(), "multicast stopped after")?;
            payload.compare(&faithful)?;
            payload.compare(&forgetful)
        },
    )
}
