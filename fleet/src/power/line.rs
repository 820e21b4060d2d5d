//! The line to a device: one conversation at a time, first come, first served.
//!
//! Management controllers have two to five sessions and lose track of them when several are open at once; a PDU
//! answers for a whole rack. So whoever talks to a device takes a turn. A device that refused a login is not asked
//! with the same login again for a while: the third wrong password locks an account for everybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};

/// Conversations that may wait for one device.
const WAITING_MAX: usize = 64;
/// Devices remembered; idle ones go first.
const LINES_MAX: usize = 20_000;
/// How long a refused login is not tried again.
const HOLD_OFF: Duration = Duration::from_secs(300);

/// The lines to all devices, by driver and address.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<BTreeMap<String, Arc<Line>>>);

impl Lines {
    /// The line to a device.
    pub(super) fn line(&self, device: &str) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        Arc::clone(lines.entry(device.to_owned()).or_default())
    }
}

/// The line to one device.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: Mutex<Queue>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Tickets; the first one has its turn.
    waiting: VecDeque<u64>,
    next: u64,
    /// The login that was refused last, and when.
    refused: Option<(u64, Instant)>,
}

impl Line {
    /// Wait for a turn, as long as the deadline allows.
    pub(super) fn turn(&self, until: Deadline) -> Result<Turn<'_>, PowerError> {
        let mut queue = self.queue();
        if queue.waiting.len() >= WAITING_MAX {
            return Err(Failure::Busy.because(format!(
                "{WAITING_MAX} conversations wait for the device already"
            )));
        }
        let ticket = queue.next;
        queue.next += 1;
        queue.waiting.push_back(ticket);
        while queue.waiting.front() != Some(&ticket) {
            let left = until.left();
            if left.is_zero() {
                queue.waiting.retain(|other| *other != ticket);
                let text = format!("the device was in use for {} s", until.seconds());
                return Err(Failure::Busy.because(text));
            }
            let waited = self.moved.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Turn { line: self, ticket })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is complete before anything can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to talk to a device; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    line: &'a Line,
    ticket: u64,
}

impl Turn<'_> {
    /// Refuse to use a login that the device has refused lately. `stamp` tells logins apart; 0 is none, a key for example, which no
    /// number of tries gives away.
    pub(super) fn check(&self, stamp: u64) -> Result<(), PowerError> {
        match self.line.queue().refused {
            Some((refused, at)) if stamp != 0 && refused == stamp && at.elapsed() < HOLD_OFF => {
                let text = format!(
                    "the device refused this login {} s ago and is left alone, or it locks the account; enter the right one with netflash power login",
                    at.elapsed().as_secs()
                );
                Err(Failure::WrongPassword.because(text))
            }
            _ => Ok(()),
        }
    }

    /// Note that the device refused a login.
    pub(super) fn refused(&self, stamp: u64) {
        self.line.queue().refused = Some((stamp, Instant::now()));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.line
            .queue()
            .waiting
            .retain(|ticket| *ticket != self.ticket);
        self.line.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::super::deadline::Deadline;
    use super::super::failure::Failure;
    use super::{Line, Lines};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn one_conversation_at_a_time_and_every_waiter_gets_its_turn() {
        let lines = Lines::default();
        let inside = AtomicUsize::new(0);
        let served = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    let line = lines.line("ipmi 10.0.0.1");
                    let turn = line.turn(Deadline::after(LONG)).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    served.fetch_add(1, Ordering::SeqCst);
                    drop(turn);
                });
            }
        });
        assert_eq!(served.into_inner(), 20);
    }

    #[test]
    fn who_waits_too_long_leaves_the_queue_to_the_others() {
        let line = Line::default();
        let turn = line.turn(Deadline::after(LONG)).unwrap();
        let late = line.turn(Deadline::after(Duration::ZERO)).unwrap_err();
        assert_eq!(late.failure, Failure::Busy);
        drop(turn);
        line.turn(Deadline::after(Duration::ZERO)).unwrap();
    }

    #[test]
    fn a_refused_login_is_not_tried_again_but_another_one_is() {
        let line = Line::default();
        let turn = line.turn(Deadline::after(LONG)).unwrap();
        turn.check(7).unwrap();
        turn.refused(7);
        assert_eq!(turn.check(7).unwrap_err().failure, Failure::WrongPassword);
        turn.check(8).unwrap();
    }
}
