//! PID 1: spawns the worker, reaps, feeds the watchdog, carries out the last action.
//!
//! ```text
//!   mount ──▶ spawn worker ──▶ reap ──▶ worker ended
//!                               ▲  │       ├─ exit 64/65/66 ─▶ reboot / power off / halt
//!                               └──┘       └─ anything else ─▶ say so, wait, reboot
//! ```
//!
//! PID 1 must not die (the kernel would panic), so it does as little as possible, and what
//! may fail happens in the worker.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, sync};

use crate::{console, mounts, worker};

/// Time to read the last words before the machine starts again, unless `netflash.restart` says.
const RESTART_DELAY: Duration = Duration::from_secs(30);
/// The smallest time-out a watchdog is known to have is a few times this.
const WATCHDOG_FEED: Duration = Duration::from_secs(5);
/// How PID 1 tells its own program to be the worker.
const WORKER_ARGUMENT: &str = "--worker";
/// What every other use of the program gets.
const USAGE: &str =
    "netflash-init is PID 1 of the netflash appliance; the kernel starts it as /init\n";

/// How the worker asks for the end: its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Start the machine again.
    Reboot = 64,
    /// Switch it off.
    PowerOff = 65,
    /// Stop it, with the screen left as it is.
    Halt = 66,
}

impl Ending {
    fn of(status: ExitStatus) -> Option<Ending> {
        [Ending::Reboot, Ending::PowerOff, Ending::Halt]
            .into_iter()
            .find(|ending| status.code() == Some(*ending as i32))
    }
}

/// The whole program: keeper as PID 1, worker as its child, a sentence to everybody else.
pub fn run() -> ExitCode {
    if getpid() == Pid::from_raw(1) {
        keep()
    }
    // Only PID 1's child is the worker: a word on the kernel command line is not enough.
    let is_child = nix::unistd::getppid() == Pid::from_raw(1);
    if is_child && std::env::args().nth(1).as_deref() == Some(WORKER_ARGUMENT) {
        return match worker::work() {
            Ok(ending) => ExitCode::from(ending as u8),
            Err(()) => ExitCode::FAILURE,
        };
    }
    eprint!("{USAGE}");
    ExitCode::from(2)
}

fn keep() -> ! {
    let failures = mounts::mount_all();
    if !failures.is_empty() {
        console::shout(&failures.join("\n"));
    }
    // Without a thread to spare the machine still works, only unwatched.
    let _ = thread::Builder::new()
        .name("watchdog".into())
        .spawn(feed_watchdog);
    let ending = match spawn_worker() {
        Ok(worker) => reap_until(worker),
        Err(error) => Err(format!("the agent cannot be started: {error}")),
    };
    let mode = match ending {
        Ok(Ending::Reboot) => RebootMode::RB_AUTOBOOT,
        Ok(Ending::PowerOff) => RebootMode::RB_POWER_OFF,
        Ok(Ending::Halt) => RebootMode::RB_HALT_SYSTEM,
        Err(reason) => {
            wait_for_restart(&reason);
            RebootMode::RB_AUTOBOOT
        }
    };
    sync();
    let failure = reboot(mode);
    console::shout(&format!(
        "netflash: {mode:?} failed: {failure:?}; switch the machine off"
    ));
    loop {
        thread::park();
    }
}

/// Says why, and returns when the machine shall start again; `netflash.restart=0` is never.
fn wait_for_restart(reason: &str) {
    let (params, _) = crate::kernel_params();
    match params.restart_seconds {
        Some(0) => {
            console::shout(&format!(
                "netflash: {reason}\nswitch the machine off and on"
            ));
            loop {
                thread::park();
            }
        }
        seconds => {
            let delay = seconds.map_or(RESTART_DELAY, |s| Duration::from_secs(s.into()));
            let seconds = delay.as_secs();
            console::shout(&format!("netflash: {reason}\nrebooting in {seconds} s"));
            thread::sleep(delay);
        }
    }
}

fn spawn_worker() -> std::io::Result<Pid> {
    let child = Command::new("/proc/self/exe")
        .arg0("netflash-init")
        .arg(WORKER_ARGUMENT)
        .spawn()?;
    i32::try_from(child.id())
        .map(Pid::from_raw)
        .map_err(std::io::Error::other)
}

/// Collects every orphan until the worker itself is collected.
fn reap_until(worker: Pid) -> Result<Ending, String> {
    loop {
        let status = match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == worker => ExitStatus::from_raw(code << 8),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == worker => {
                return Err(format!("the agent died of {signal}"));
            }
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(error) => return Err(format!("waiting for the agent: {error}")),
        };
        return Ending::of(status).ok_or_else(|| "the agent cannot go on".into());
    }
}

/// Feeds `/dev/watchdog` from the moment it appears, as long as the kernel runs us.
fn feed_watchdog() {
    loop {
        if let Ok(mut watchdog) = OpenOptions::new().write(true).open("/dev/watchdog") {
            while watchdog.write_all(b"\0").is_ok() {
                thread::sleep(WATCHDOG_FEED);
            }
        }
        thread::sleep(WATCHDOG_FEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_exit_codes_are_an_ending() {
        for code in 0..=255 {
            let ending = Ending::of(ExitStatus::from_raw(code << 8));
            assert_eq!(ending.is_some(), (64..=66).contains(&code), "{code}");
        }
    }

    #[test]
    fn a_signal_is_not_an_ending() {
        assert_eq!(Ending::of(ExitStatus::from_raw(6)), None);
    }
}
