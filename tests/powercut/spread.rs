//! A machine whose power goes again and again, spread over the bytes it has to write: the agent must take up its work
//! from any point, and whatever it leaves must be dead, whole, or what it was.

use std::fs;

use anyhow::{Context, Result, ensure};
use tests::lab::{Power, ServerOptions, ServerProcess, await_flash, direct_boot, wait_until};
use tests::net::differing_mebibytes;
use tests::sim::Chance;

use crate::agent::{FLASH_LIMIT, NAME, room_in};
use crate::disks;
use crate::oracle::{Oracle, Verdict};

/// Power cuts, spread over this part of what is to be written.
const CUTS: usize = 12;
const CUTS_UP_TO: f64 = 0.9;
/// Slow enough that there is something between two cuts, in bits per second.
const RATE_BITS: u64 = 16_000_000;

/// Flashes another system's disk with all these cuts on the way.
pub(crate) fn assert_every_cut_is_survived(seed: u64) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let mut chance = Chance::new(seed);
    let oracle = Oracle {
        former: disks::disk(path, "former", &mut chance),
        image: disks::disk(path, "image", &mut chance),
        unused: Vec::new(),
    };
    // Free blocks too: what is left to write can be counted then.
    disks::image(path, "image", false);
    let (room, programs, disk) = room_in(path, None)?;
    let options = ServerOptions {
        rate_bits: RATE_BITS,
        wait_seconds: 1,
        ..ServerOptions::default()
    };
    let server = ServerProcess::start(&room, &programs, &options)?;
    let machine = room.machine(NAME)?;
    server.add_machine(machine)?;
    server.add_image("image", &path.join("image.img.zst"))?;
    server.flash("image", &[NAME], "auto")?;

    let raw = path.join("image.raw");
    let all = differing_mebibytes(&raw, &disk)?;
    let mut lacking = Vec::new();
    for cut in 1..=CUTS {
        let share = CUTS_UP_TO * cut as f64 / CUTS as f64;
        let left = (all as f64 * (1.0 - share)) as usize;
        machine.set_boot(direct_boot(&room, machine)?)?;
        machine.press(Power::On)?;
        wait_until("its share of the disk", FLASH_LIMIT, || {
            ensure!(!machine.is_off()?, "it was done before cut {cut}");
            Ok(differing_mebibytes(&raw, &disk)? <= left)
        })?;
        machine.press(Power::Off)?;
        let content = fs::read(&disk).context("reading the disk")?;
        let verdict = oracle.judge(&content);
        ensure!(
            matches!(verdict, Some(Verdict::Dead | Verdict::Former)),
            "cut {cut}: {verdict:?}, a disk that may start half-written"
        );
        lacking.push(differing_mebibytes(&raw, &disk)?);
    }
    machine.set_boot(direct_boot(&room, machine)?)?;
    machine.press(Power::On)?;
    await_flash(&server, machine, FLASH_LIMIT)?;
    let content = fs::read(&disk).context("reading the disk")?;
    ensure!(oracle.is_image(&content), "the disk is not the image");
    println!("of {all} MiB there lacked at the cuts: {lacking:?}");
    lacking.dedup();
    ensure!(lacking.len() > CUTS / 2, "the cuts were not spread");
    Ok(())
}
