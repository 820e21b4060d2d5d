//! Pulling a cable, and plugging it in again.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{patience::wait_until, room::Machine, shell};

/// QEMU listens within this time.
const MONITOR_STARTS: Duration = Duration::from_secs(10);

impl Machine {
    /// Pulls the cable between the machine's first card and the room's switch: both ends see their link go, and the
    /// switch forgets what it knew of the port.
    pub fn pull_cable(&self) -> Result<()> {
        self.set_card_link("nic0", false)?;
        shell::sh(&format!("ip link set {} down", self.spec().tap()))?;
        Ok(())
    }

    /// Plugs it in again.
    pub fn plug_cable(&self) -> Result<()> {
        shell::sh(&format!("ip link set {} up", self.spec().tap()))?;
        self.set_card_link("nic0", true)
    }

    /// Gives one of its cards, `nic0` and so on, a link or takes it away; the machine must be on.
    pub fn set_card_link(&self, card: &str, up: bool) -> Result<()> {
        let command = format!(r#""set_link", "arguments": {{"name": "{card}", "up": {up}}}"#);
        let socket = self.qmp_socket();
        // One that was just switched on is not there at once.
        wait_until("QEMU's monitor", MONITOR_STARTS, || {
            Ok(UnixStream::connect(&socket).is_ok())
        })?;
        monitor(&socket, &[&command])
    }
}

/// Has QEMU carry out commands of its monitor protocol, each as it stands behind `"execute":`.
pub(super) fn monitor(path: &Path, commands: &[&str]) -> Result<()> {
    let mut socket = UnixStream::connect(path)
        .with_context(|| format!("reaching QEMU at {}", path.display()))?;
    let mut answers = BufReader::new(socket.try_clone()?).lines();
    for command in [r#""qmp_capabilities""#].iter().chain(commands) {
        writeln!(socket, "{{\"execute\": {command}}}")?;
        loop {
            let Some(line) = answers.next() else {
                bail!("QEMU says nothing to {command}");
            };
            let line = line?;
            ensure!(!line.contains("\"error\""), "{command}: {line}");
            if line.contains("\"return\"") {
                break;
            }
        }
    }
    Ok(())
}
