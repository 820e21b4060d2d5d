//! A machine that no datagram reaches and whose datagrams reach nobody, and one with little memory beside it.

use anyhow::{Context, Result, ensure};
use tests::{
    lab::{Bus, Firmware, ServerProcess, inside},
    net::{Blocked, Wall},
};

use super::{Desk, MIB, scratch};

/// RAM of the machine beside, in MiB.
const LITTLE_MEMORY: u32 = 256;

#[test]
fn a_machine_behind_a_wall_is_flashed_over_http_and_the_one_beside_it_does_not_notice() -> Result<()>
{
    inside(
        "walled::a_machine_behind_a_wall_is_flashed_over_http_and_the_one_beside_it_does_not_notice",
        || {
            let directory = scratch("machines")?;
            let desk = Desk::set(directory.path())?;
            let mut beside =
                desk.machine(2, Firmware::Bios)
                    .disk(directory.path(), Bus::Ahci, 80 * MIB);
            beside.memory_mib = LITTLE_MEMORY;
            let walled =
                desk.machine(1, Firmware::Bios)
                    .disk(directory.path(), Bus::Virtio, 80 * MIB);
            let port = walled.tap();
            let room = desk.room(vec![walled, beside], 0.0)?;
            // Not even its reports pass: a sealed session never hears of it.
            let _wall = Wall::before(&[port], Blocked::Datagrams)?;
            let names = ["lab-1", "lab-2"];
            let server = desk.serve(&room, &names)?;
            server.flash("small", &names, "auto")?;
            for name in names {
                desk.start_directly(&room, name)?;
            }
            for name in names {
                desk.await_flash(&server, room.machine(name)?)?;
            }
            let over_http = fallback_of(&server, "lab-1")?.context("nothing came over HTTP")?;
            println!("lab-1: {over_http:?}");
            ensure!(
                over_http.reason.contains("no announce heard") && over_http.bytes > 0,
                "{over_http:?}"
            );
            let beside = fallback_of(&server, "lab-2")?;
            ensure!(beside.is_none(), "the machine beside: {beside:?}");
            // The session sent for one machine, and not again for one that cannot hear it.
            let came = room.loss().count(&room.machine("lab-2")?.spec().tap())?;
            let image = std::fs::metadata(directory.path().join("small.img.zst"))?.len();
            println!("{came:?} at the port of lab-2, an image of {image} bytes");
            ensure!(came.dropped == 0, "{came:?}");
            Ok(())
        },
    )
}

fn fallback_of(server: &ServerProcess<'_>, name: &str) -> Result<Option<tests::lab::FallbackView>> {
    let report = server.job_of(name)?.report;
    Ok(report
        .with_context(|| format!("{name} reports nothing"))?
        .fallback)
}
