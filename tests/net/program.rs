//! A program in a namespace: started, watched, ended, and what it cost.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::Read,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Pid, SysconfVar, sysconf},
};

use crate::lab::{Patience, wait_until};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Option<Child>,
    started: Instant,
    /// Waits for the end and notes its moment.
    watch: Option<JoinHandle<Instant>>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    /// When it ended.
    pub ended: Instant,
    /// Processor time, its own and that the kernel spent for it.
    pub cpu: Duration,
}

/// The path of the program under test, from `NETFLASH_BIN`.
pub fn netflash() -> Result<PathBuf> {
    let path =
        env::var_os("NETFLASH_BIN").context("NETFLASH_BIN is not set: run ./scripts/test")?;
    Ok(PathBuf::from(path))
}

impl Program {
    /// Starts `program` in `namespace`; `name` is for messages.
    pub fn start<S: AsRef<OsStr>>(
        name: impl Into<String>,
        namespace: &str,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Program> {
        let name = name.into();
        // `ip netns exec` becomes the program: the process started is the program itself.
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let started = Instant::now();
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        let watch = thread::spawn(move || {
            // Not reaped: the dead process still knows what it used. An error says that it is gone already.
            let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            Instant::now()
        });
        let stdout = child.stdout.take().map(gather);
        let stderr = child.stderr.take().map(gather);
        Ok(Program {
            name,
            child: Some(child),
            started,
            watch: Some(watch),
            stdout,
            stderr,
        })
    }

    /// Waits for its end.
    pub fn wait(mut self, limit: Duration) -> Result<Ended> {
        let pid = self.pid()?;
        let watch = self
            .watch
            .take()
            .context("the program was waited for already")?;
        let what = format!("the end of {}", self.name);
        if let Err(error) = wait_until(what, limit, || Ok(watch.is_finished())) {
            bail!("{error}; it said: {}", self.last_words());
        }
        // The dead process still knows what it used, until it is reaped.
        let cpu = cpu_of(pid)?;
        let mut child = self
            .child
            .take()
            .context("the program was waited for already")?;
        let status = child.wait().context("reaping the program")?;
        let ended = watch
            .join()
            .map_err(|_| anyhow!("the watch of {} panicked", self.name))?;
        Ok(Ended {
            code: status.code(),
            stdout: joined(self.stdout.take()),
            stderr: joined(self.stderr.take()),
            took: ended.duration_since(self.started),
            ended,
            cpu,
        })
    }

    /// Waits for its end, which must be a success.
    pub fn succeed(self, limit: Duration) -> Result<Ended> {
        let name = self.name.clone();
        let ended = self.wait(limit)?;
        let code = ended.code;
        ensure!(
            code == Some(0),
            "{name} ended with {code:?}: {}{}",
            ended.stderr,
            ended.stdout
        );
        Ok(ended)
    }

    /// Asks it to end, as `kill` does.
    pub fn ask_to_end(&self) -> Result<()> {
        kill(self.pid()?, Signal::SIGTERM).context("asking the program to end")
    }

    /// Its process number.
    pub fn id(&self) -> Result<u32> {
        let child = self
            .child
            .as_ref()
            .context("the program was waited for already")?;
        Ok(child.id())
    }

    /// The most memory it has held so far, in bytes; `None` when it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid().ok()?)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kibibytes << 10)
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Kills it as a power cut would: it is not asked.
    pub fn kill(mut self) -> Result<()> {
        kill(self.pid()?, Signal::SIGKILL).context("killing the program")?;
        if let Some(mut child) = self.child.take() {
            child.wait().context("reaping the program")?;
        }
        Ok(())
    }

    /// Whether it still runs. A dead one is not reaped: [`Program::wait`] wants to know what it used.
    pub fn is_running(&self) -> Result<bool> {
        let watch = self
            .watch
            .as_ref()
            .context("the program was waited for already")?;
        Ok(!watch.is_finished())
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.id()?)?))
    }

    fn last_words(&mut self) -> String {
        if let Some(mut child) = self.child.take() {
            // Dead or not, its pipes close.
            let _ = child.kill();
            let _ = child.wait();
        }
        joined(self.stderr.take())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended on its own.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until `condition` holds, as long as `program` runs.
pub fn wait_while(
    program: &mut Program,
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut patience = Patience::new(what, limit);
    while !condition()? {
        if !program.is_running()? {
            let said = program.last_words();
            bail!("{} ended before {what}: {said}", program.name);
        }
        patience.tick()?;
    }
    Ok(())
}

fn gather(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is all there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(thread: Option<JoinHandle<String>>) -> String {
    thread
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default()
}

/// User and system time of a process and of the children it has waited for, from `/proc`.
fn cpu_of(pid: Pid) -> Result<Duration> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).context("reading its processor time")?;
    // The name in parentheses may hold blanks; fields 14 to 17 of the whole are 12 to 15 after it.
    let after = stat
        .rsplit_once(')')
        .context("no name in /proc/PID/stat")?
        .1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: u64 = fields
        .get(11..15)
        .context("/proc/PID/stat is short")?
        .iter()
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}
