//! Machines that come and go: they join at any moment, are killed, return with the same disk, and finish.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tests::{
    net::{Ended, Program},
    sim::Chance,
};

use crate::session::Session;

/// A transfer that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(300);
/// How often a running program is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How many visits end by a kill.
const KILLED: f64 = 0.4;
/// How many of the killed return with their disk.
const RETURNED: f64 = 0.7;
/// A kill comes at most so long after the start, in milliseconds: later than a whole transfer takes.
const KILL_MILLIS_MAX: u64 = 25_000;
/// Between two visits, at most, in milliseconds.
const REST_MILLIS_MAX: u64 = 3000;

/// What has happened so far.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    pub(crate) completed: AtomicU64,
    pub(crate) killed: AtomicU64,
    pub(crate) returned: AtomicU64,
    pub(crate) senders_killed: AtomicU64,
    /// What must not have happened.
    wrong: Mutex<Vec<String>>,
}

impl Diary {
    /// Notes something that must not happen.
    pub(crate) fn complain(&self, what: String) {
        eprintln!("soak: {what}");
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes what a program of ours must never do, whatever the weather.
    pub(crate) fn examine(&self, ended: &Ended, who: &str) {
        if ended.code.is_none_or(|code| code > 1) || ended.stderr.contains("panicked at") {
            self.complain(format!(
                "{who} ended with {:?}: {}",
                ended.code, ended.stderr
            ));
        }
    }
}

/// Visits sessions from this namespace until `stop`.
pub(crate) fn visit(
    namespace: &str,
    sessions: &[Session],
    directory: &Path,
    mut chance: Chance,
    diary: &Diary,
    stop: &AtomicBool,
) -> Result<()> {
    let mut kept: Option<(usize, PathBuf)> = None;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(chance.range(0, REST_MILLIS_MAX)));
        let (which, disk) = match kept.take() {
            Some(kept) => {
                diary.returned.fetch_add(1, Ordering::Relaxed);
                kept
            }
            None => {
                let which = chance.range(0, sessions.len() as u64 - 1) as usize;
                (which, directory.join(format!("{namespace}.raw")))
            }
        };
        let session = &sessions[which];
        let program = session.receive(namespace, &disk)?;
        let kill_at = chance
            .hit(KILLED)
            .then(|| Duration::from_millis(chance.range(100, KILL_MILLIS_MAX)));
        match outcome(program, kill_at)? {
            None => {
                diary.killed.fetch_add(1, Ordering::Relaxed);
                if disk.exists() && chance.hit(RETURNED) {
                    kept = Some((which, disk));
                    continue;
                }
            }
            Some(ended) => judge(&ended, session, &disk, namespace, diary),
        }
        remove(&disk)?;
    }
    Ok(())
}

/// Waits for the end of a program, or kills it at its time; `None` when it was killed.
fn outcome(program: Program, kill_at: Option<Duration>) -> Result<Option<Ended>> {
    let started = Instant::now();
    while kill_at.is_some_and(|at| started.elapsed() < at) && program.is_running()? {
        thread::sleep(TICK);
    }
    if kill_at.is_some() && program.is_running()? {
        program.kill()?;
        return Ok(None);
    }
    program.wait(LIMIT).map(Some)
}

/// A machine that says it is done has the right disk, by the word of `cmp`.
pub(crate) fn judge(ended: &Ended, session: &Session, disk: &Path, who: &str, diary: &Diary) {
    diary.examine(ended, who);
    if ended.code != Some(0) {
        return diary.complain(format!(
            "{who} did not get {}: {}",
            session.name, ended.stderr
        ));
    }
    match session.payload.compare(disk) {
        Ok(()) => drop(diary.completed.fetch_add(1, Ordering::Relaxed)),
        Err(error) => diary.complain(format!(
            "{who} has a wrong disk of {}: {error:#}",
            session.name
        )),
    }
}

/// Runs short sessions one after the other from `sender` to `receiver` until `stop`; some senders are killed.
pub(crate) fn short_sessions(
    (sender, receiver): (&str, &str),
    session: &Session,
    directory: &Path,
    mut chance: Chance,
    diary: &Diary,
    stop: &AtomicBool,
) -> Result<()> {
    let disk = directory.join(format!("{receiver}.raw"));
    while !stop.load(Ordering::Relaxed) {
        let machine = session.receive(receiver, &disk)?;
        let kill_at = chance
            .hit(0.2)
            .then(|| Duration::from_millis(chance.range(100, 3000)));
        match outcome(session.send(sender)?, kill_at)? {
            None => {
                diary.senders_killed.fetch_add(1, Ordering::Relaxed);
                // Another sender begins a new session; the machine must say that its own is gone, or be done.
                machine.kill()?;
            }
            Some(ended) => {
                diary.examine(&ended, "a short sender");
                ensure!(
                    ended.code == Some(0),
                    "a short session failed: {}",
                    ended.stderr
                );
                let ended = machine
                    .wait(LIMIT)
                    .context("waiting for the machine of a short session")?;
                judge(&ended, session, &disk, receiver, diary);
            }
        }
        remove(&disk)?;
    }
    Ok(())
}

fn remove(disk: &Path) -> Result<()> {
    match fs::remove_file(disk) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("removing a disk")
        }
        _ => Ok(()),
    }
}
