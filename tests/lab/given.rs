//! What a test of the lab is given, and how it waits for the end of a flash.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{patience::wait_until, room::Machine, server::ServerProcess};

/// Lines of a machine's console that an error shows.
const LAST_LINES: usize = 16;

/// A file or directory that an environment variable names.
///
/// # Errors
/// When the variable is not set, or nothing is there.
pub fn given(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable)
        .with_context(|| format!("{variable} is not set: run ./scripts/test"))?;
    let path = std::path::absolute(path).context("following a path")?;
    ensure!(
        path.exists(),
        "{variable} names {}, which is not there: run ./scripts/test",
        path.display()
    );
    Ok(path)
}

/// A directory for a test's files; with `NETFLASH_KEEP` they stay, for whoever wants to see why it fails.
///
/// # Errors
/// When there is no room.
pub fn scratch(name: &str) -> Result<tempfile::TempDir> {
    let mut directory = tempfile::Builder::new()
        .prefix(&format!("netflash-{name}-"))
        .tempdir()
        .context("making room for the test")?;
    directory.disable_cleanup(env::var_os("NETFLASH_KEEP").is_some());
    Ok(directory)
}

/// The end of a machine's console in its run number `run`, for whoever has to find out why.
pub fn last_words(machine: &Machine, run: u32) -> String {
    let serial = machine.serial(run);
    let tail: Vec<&str> = serial.lines().rev().take(LAST_LINES).collect();
    format!("its console, last line first: {tail:#?}")
}

/// Waits for the agent's reboot, which ends QEMU, and for what it reports.
///
/// # Errors
/// When the job fails, the time is over, or the disk is not reported as verified.
pub fn await_flash(server: &ServerProcess<'_>, machine: &Machine, limit: Duration) -> Result<()> {
    let name = &machine.spec().name;
    wait_until(format!("{name} to be flashed"), limit, || {
        let job = server.job_of(name)?;
        ensure!(!job.has_failed(), "{name}: {}", job.reason);
        machine.is_off()
    })
    .with_context(|| last_words(machine, 1))?;
    let job = server.job_of(name)?;
    ensure!(job.is_done(), "{name} is off and its job {}", job.state);
    let verified = job.report.is_some_and(|report| report.verified);
    ensure!(verified, "{name} does not report its disk as verified");
    Ok(())
}
