//! A disk that was used is made the image again, for a part of the bytes.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    lab::{GuestDisk, boot_once, inside},
    net::{Hall, Payload},
};

use super::{FLASH_LIMIT, given, scratch};

/// What a flash after one boot may receive, in per cent of a whole one.
const RECEIVED_MAX_PERCENT: u64 = 15;

#[test]
fn after_one_boot_a_guest_is_itself_again_for_a_part_of_the_bytes() -> Result<()> {
    inside(
        "booted::after_one_boot_a_guest_is_itself_again_for_a_part_of_the_bytes",
        || {
            let directory = scratch("machines")?;
            let path = directory.path();
            let raw = given("NETFLASH_GUEST")?;
            let guest = GuestDisk::open(&raw)?;
            let payload = Payload::of_used(&raw, path)?;
            let disk = path.join("disk.raw");
            let written = Command::new(given("NETFLASH_BIN")?)
                .args(["image", "extract", "--yes"])
                .args([&payload.image, &disk])
                .status()?;
            ensure!(written.success(), "netflash image extract: {written}");
            guest.compare(&disk)?;
            boot_once(&disk, path)?;
            ensure!(
                guest.compare(&disk).is_err(),
                "a boot has changed nothing: was it one?"
            );

            let hall = Hall::build(1, 0.0)?;
            let receiver = payload.receive("r1", &disk, &[])?;
            let sender = payload.send(hall.sender(), &["--receivers", "1"])?;
            sender.succeed(FLASH_LIMIT)?;
            let ended = receiver.succeed(FLASH_LIMIT)?;
            guest.compare(&disk)?;
            let report: Value = serde_json::from_str(&ended.stdout)?;
            let received = report["receivers"][0]["received_bytes"]
                .as_u64()
                .with_context(|| format!("no bytes in {report}"))?;
            let whole = fs::metadata(&payload.image)?.len();
            println!("{received} bytes received of {whole}");
            ensure!(
                received * 100 <= whole * RECEIVED_MAX_PERCENT,
                "{received} bytes of {whole} were received again"
            );
            Ok(())
        },
    )
}
