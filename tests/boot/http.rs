//! UEFI firmware that boots by its own HTTP, where our server gives out the addresses.

use anyhow::{Result, ensure};
use tests::lab::{Firmware, Netboot, inside};

use crate::stage::{Stage, arm_and_start, await_agent};

#[test]
fn uefi_firmware_boots_by_http_without_pxe() -> Result<()> {
    inside("http::uefi_firmware_boots_by_http_without_pxe", || {
        let stage = Stage::set()?;
        let mut machine = stage.machine(1, Firmware::Uefi);
        machine.netboot = Netboot::Http;
        let room = stage.room(vec![machine])?;
        let range = "range = [\"10.77.0.50\", \"10.77.0.60\"]\nhttp_boot = true";
        let server = stage.serve(&room, range)?;
        arm_and_start(&server, &room, &["lab-1"])?;
        let machine = room.machine("lab-1")?;
        await_agent(&server, machine)?;
        ensure!(
            machine.said(1, "HTTP Boot over IPv4"),
            "it came by another way"
        );
        Ok(())
    })
}
