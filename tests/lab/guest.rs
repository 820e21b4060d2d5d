//! One boot of a guest, with nothing around it: no network, no server.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{cable::monitor, patience::stretch};

/// What the guest says when it is up.
const PROMPT: &str = "login:";
/// How long that may take on an idle machine.
const BOOT_MAX: Duration = Duration::from_secs(240);
/// How long it may take to shut down.
const DOWN_MAX: Duration = Duration::from_secs(120);

/// Boots the disk of a guest to its login prompt, and shuts it down in order. QEMU's socket is made in `directory`.
pub fn boot_once(disk: &Path, directory: &Path) -> Result<()> {
    let socket = &directory.join("monitor");
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-accel", "tcg", "-cpu", "qemu64", "-m", "512", "-display", "none",
        ])
        .args(["-serial", "stdio", "-no-reboot", "-nic", "none"])
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", socket.display()))
        .arg("-drive")
        .arg(format!(
            "file={},format=raw,if=virtio,cache=unsafe",
            disk.display()
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .context("starting QEMU")?;
    let booted = await_prompt(qemu.stdout.take().context("its serial line")?);
    let down = booted.and_then(|()| press_keys(socket));
    let end = Instant::now() + DOWN_MAX.mul_f64(stretch());
    while down.is_ok() && qemu.try_wait()?.is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(200));
    }
    let ended = qemu.try_wait()?;
    // Ended already, or it has to: its disk is of no use then.
    let _ = qemu.kill();
    qemu.wait()?;
    down?;
    ensure!(ended.is_some(), "the guest did not shut down");
    Ok(())
}

fn await_prompt(serial: ChildStdout) -> Result<()> {
    let (found, finding) = channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        // The prompt ends no line: pieces end at its colon.
        for piece in BufReader::new(serial).split(b':') {
            let Ok(piece) = piece else { return };
            said.extend(piece);
            said.push(b':');
            if said.ends_with(PROMPT.as_bytes()) {
                // Whoever waited may have gone; what is said is read to its end all the same.
                let _ = found.send(());
            }
        }
    });
    finding
        .recv_timeout(BOOT_MAX.mul_f64(stretch()))
        .context("the guest did not come to its login prompt")
}

fn press_keys(path: &Path) -> Result<()> {
    // A guest without a daemon for its power button ends in order on these keys, and QEMU does not start it again.
    let keys = r#""send-key", "arguments": {"keys": [{"type": "qcode", "data": "ctrl"},
        {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}]}"#;
    monitor(path, &[keys])
}
