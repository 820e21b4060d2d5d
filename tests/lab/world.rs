//! The world of the lab: network, mounts and processes of its own.
//!
//! The program starts itself again under `unshare`. Inside it is process 1, so
//! that at its end, however it ends, the kernel ends every QEMU, server and
//! capture with it, and bridge, taps and mounts are gone too.

use std::{env, os::unix::process::CommandExt, process::Command};

use anyhow::{Context, Result, bail, ensure};

use super::shell;

/// Set inside the world; its value has no meaning.
const INSIDE: &str = "NETFLASH_LAB_INSIDE";

/// Where `ip netns` keeps its names; a tmpfs of ours hides the machine's.
const NETNS_DIRECTORY: &str = "/run/netns";

/// Moves this program into a world of its own, with the same arguments.
///
/// Returns inside the world. Fails without root, and says how to get it.
pub fn enter() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return furnish();
    }
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let error = outside_command()?.args(arguments).exec();
    Err(error).context("starting unshare (package util-linux)")
}

/// Runs the body of the named libtest test inside a world of its own.
///
/// Fails, never skips, when there is no root or the body fails.
pub fn inside(test: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        furnish()?;
        return body();
    }
    let status = outside_command()?
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .status()
        .context("starting unshare (package util-linux)")?;
    ensure!(status.success(), "{test} failed inside its world: {status}");
    Ok(())
}

/// This program again, under `unshare`, without its arguments.
fn outside_command() -> Result<Command> {
    let program = env::current_exe().context("finding this program")?;
    if !nix::unistd::geteuid().is_root() {
        let line: Vec<_> = env::args().skip(1).collect();
        bail!(
            "needs root for its network namespaces: sudo -E {} {}",
            program.display(),
            line.join(" ")
        );
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--mount",
            "--pid",
        ])
        .args(["--fork", "--kill-child", "--mount-proc", "--"])
        .arg(program)
        .env(INSIDE, "1");
    Ok(command)
}

fn furnish() -> Result<()> {
    shell::sh(&format!("mkdir -p {NETNS_DIRECTORY}"))?;
    shell::sh(&format!("mount -t tmpfs tmpfs {NETNS_DIRECTORY}"))?;
    shell::sh("ip link set lo up")?;
    Ok(())
}
