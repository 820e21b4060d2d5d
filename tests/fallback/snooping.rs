//! What keeps a switch that snoops IGMP from forgetting a machine, judged by tcpdump.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    lab::inside,
    net::{Hall, Program, netflash},
};

use super::LIMIT;

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
