//! A machine with little memory: what a receiver may hold is bounded, and it works with less than that.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::{
    lab::inside,
    net::{Hall, Payload, Program, netflash},
};

use super::LIMIT;

/// Size of the disk, in MiB: several times what the receiver may hold.
const MEBIBYTES: usize = 256;
/// Private writable memory that the receiver may have (RLIMIT_DATA): heap, buffers and stacks of threads, touched or
/// not. An allocation beyond it fails, and ends the program.
const LITTLE: &str = "--data=134217728";
/// Memory of one that nobody limits, at most: resident, all of it, in bytes.
const RESIDENT_MAX: u64 = 256 << 20;

#[test]
fn a_receiver_works_within_128_mib_and_one_beside_it_takes_no_more_than_256() -> Result<()> {
    inside(
        "memory::a_receiver_works_within_128_mib_and_one_beside_it_takes_no_more_than_256",
        || {
            let directory = tempfile::tempdir()?;
            let payload = Payload::random(directory.path(), MEBIBYTES)?;
            let hall = Hall::build(2, 1.0)?;
            let disk = |name: &str| directory.path().join(format!("{name}.raw"));
            let (netflash, small) = (netflash()?, disk("r1"));
            let (netflash, small) = (netflash.display().to_string(), small.display().to_string());
            let words = [
                LITTLE, "--", &netflash, "receive", &small, "--yes", "--json",
            ];
            let small = Program::start("netflash receive within 128 MiB", "r1", "prlimit", words)?;
            let large = payload.receive("r2", &disk("r2"), &[])?;
            let sender = payload.send(hall.sender(), &["--receivers", "2", "--rate", "auto"])?;
            let mut peaks = [0, 0];
            while let Some(now) = large.peak_memory() {
                peaks = [small.peak_memory().unwrap_or(0).max(peaks[0]), now];
                std::thread::sleep(Duration::from_millis(20));
            }
            large.succeed(LIMIT)?;
            small.succeed(LIMIT * 4)?;
            sender.succeed(LIMIT)?;
            let [within, beside] = peaks.map(|bytes| bytes >> 20);
            println!("resident at most: {within} MiB within the limit, {beside} MiB beside it");
            ensure!(
                (1..=RESIDENT_MAX).contains(&peaks[1]),
                "the receiver without a limit held {beside} MiB"
            );
            payload.compare(&disk("r1"))?;
            payload.compare(&disk("r2"))
        },
    )
}
