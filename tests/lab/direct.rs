//! Network boot without the firmware's minutes: the lab asks the server what the
//! machine's iPXE would ask, fetches the same files, and lets QEMU load them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    room::{Machine, Room, SERVER_ADDRESS},
    shell,
    spec::Boot,
};

/// The server's port for firmware, as configured by default.
const SERVER_PORT: u16 = 8080;

/// What the server tells a machine, taken out of its iPXE script.
#[derive(Debug, Default, PartialEq, Eq)]
struct Script {
    kernel: String,
    command_line: String,
    initrds: Vec<String>,
}

/// The server's present answer for this machine, as files in its directory.
///
/// Fails when the server would not start the agent. Counts as a boot there, so
/// ask once for each power-on.
pub fn direct_boot(room: &Room, machine: &Machine) -> Result<Boot> {
    let spec = machine.spec();
    let platform = spec.firmware.platform();
    let script = fetch(
        room,
        &format!(
            "http://{SERVER_ADDRESS}:{SERVER_PORT}/boot/ipxe?mac={}&uuid={}&serial={}&platform={platform}",
            spec.mac().replace(':', "-"),
            spec.uuid(),
            spec.serial()
        ),
        &machine.directory().join("boot.ipxe"),
    )?;
    let text = fs::read_to_string(&script).context("reading the boot script")?;
    let script = parse(&text)?;
    let kernel = fetch(room, &script.kernel, &machine.directory().join("vmlinuz"))?;
    // Each archive is padded to four bytes by its maker, so they simply follow each other.
    let mut initrd = Vec::new();
    for url in &script.initrds {
        let part = fetch(room, url, &machine.directory().join("initrd.part"))?;
        initrd.extend(fs::read(part).context("reading an initrd")?);
    }
    let path = machine.directory().join("initrd.img");
    fs::write(&path, initrd).context("writing the joined initrd")?;
    Ok(Boot::Kernel {
        kernel,
        initrd: path,
        append: script.command_line,
    })
}

fn fetch(room: &Room, url: &str, to: &Path) -> Result<PathBuf> {
    shell::text(
        room.server_command("curl")
            .args(["--silent", "--show-error", "--fail", "--output"])
            .arg(to)
            .arg(url),
    )?;
    Ok(to.to_owned())
}

fn parse(text: &str) -> Result<Script> {
    let mut script = Script::default();
    for line in text.lines() {
        let line = line.split(" ||").next().unwrap_or(line);
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["kernel", url, ref rest @ ..] => {
                script.kernel = url.to_owned();
                let kept = rest.iter().filter(|word| !word.starts_with("initrd="));
                script.command_line = kept.copied().collect::<Vec<_>>().join(" ");
            }
            ["initrd", .., url] => script.initrds.push(url.to_owned()),
            _ => {}
        }
    }
    if script.kernel.is_empty() || script.initrds.is_empty() {
        bail!("the server does not start the agent: {text}");
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_boot_script_are_found() {
        let script = parse(
            "#!ipxe\necho netflash: job 1 is active\n\
             kernel http://s/boot/vmlinuz initrd=a initrd=b console=ttyS0 x=1 || goto failed\n\
             initrd --name a http://s/a || goto failed\ninitrd --name b http://s/b?t=1 || goto failed\n\
             boot || goto failed\n",
        )
        .unwrap();
        assert_eq!(script.kernel, "http://s/boot/vmlinuz");
        assert_eq!(script.command_line, "console=ttyS0 x=1");
        assert_eq!(script.initrds, ["http://s/a", "http://s/b?t=1"]);
    }

    #[test]
    fn a_machine_sent_to_its_disk_cannot_be_started_directly() {
        assert!(parse("#!ipxe\nsanboot --no-describe --drive 0x80 || exit 1\n").is_err());
    }
}
