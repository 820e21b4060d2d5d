//! Machines that cannot boot over the network: they start from a CD or a stick, and ask.

use anyhow::{Context, Result, ensure};
use tests::lab::{
    Boot, Bus, Firmware, MachineSpec, Nic, Power, inside, last_words, scratch, wait_until,
};

use super::{Desk, FLASH_LIMIT, disk::DISK_BYTES};

#[test]
#[ignore = "two minutes; run with --ignored"]
fn a_cd_and_a_stick_start_the_agent_which_waits_for_its_job() -> Result<()> {
    inside(
        "media::a_cd_and_a_stick_start_the_agent_which_waits_for_its_job",
        || {
            let directory = scratch("secure")?;
            let path = directory.path();
            let desk = Desk::set(path)?;
            let machine = |number, firmware, bus| {
                MachineSpec::new(number, firmware, Nic::Virtio).disk(path, bus, DISK_BYTES)
            };
            let room = desk.room(vec![
                machine(1, Firmware::Bios, Bus::Virtio),
                machine(2, Firmware::SecureBoot, Bus::Nvme),
            ])?;
            // The first one is known and has nothing to do, the second one is a stranger.
            let server = desk.serve(&room, &["lab-1"], "shimx64.efi")?;
            let image = path.join("netflash.iso");
            let out = image.to_str().context("a path that is no text")?;
            server.ask(&["appliance", "iso", "--out", out])?;
            let (cd, stick) = (room.machine("lab-1")?, room.machine("lab-2")?);
            cd.set_boot(Boot::Cd {
                image: image.clone(),
            })?;
            stick.set_boot(Boot::Stick { image })?;
            cd.press(Power::On)?;
            stick.press(Power::On)?;
            for (machine, words) in [
                (cd, "waiting: no active job"),
                (stick, "waiting: unknown machine"),
            ] {
                let name = &machine.spec().name;
                wait_until(format!("{name} to wait"), FLASH_LIMIT, || {
                    Ok(machine.said(1, words))
                })
                .with_context(|| last_words(machine, 1))?;
                ensure!(!machine.is_off()?, "{name} does not wait");
            }
            let list = server.ask(&["machine", "list"])?;
            ensure!(
                list["seen"].to_string().contains(&stick.spec().mac()),
                "the server does not list the stranger: {list}"
            );

            server.add_machine(stick)?;
            server.flash("signed", &["lab-1", "lab-2"], "auto")?;
            for machine in [cd, stick] {
                desk.await_flash(&server, machine)?;
            }
            println!("{:.0} CPU seconds of QEMU", room.cpu_seconds()?);
            Ok(())
        },
    )
}
