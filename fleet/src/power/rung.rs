//! One rung of a machine's ladder: a driver at an address, used within its deadline and one conversation at a time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::line::Line;
use super::pin::Pin;
use super::{Power, PowerState};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// A busy device is asked again after this.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// A driver at an address.
pub(super) struct Rung {
    /// `PROFILE:ADDRESS`.
    pub(super) name: String,
    pub(super) driver: Box<dyn Power>,
    pub(super) line: Arc<Line>,
    /// Tells the login that is used apart from every other; 0 without one.
    pub(super) stamp: u64,
    /// How long an action may take.
    pub(super) deadline: Duration,
}

impl Rung {
    /// Whether the state it reads can be "off". Some drivers only notice that a machine answers.
    pub(super) fn tells_off(&self) -> bool {
        self.driver.tells_off()
    }

    /// Have one conversation with the device, again while it is busy.
    pub(super) fn ask<T>(
        &mut self,
        until: Deadline,
        mut conversation: impl FnMut(&mut dyn Power, Deadline) -> Result<T, PowerError>,
    ) -> Result<T, PowerError> {
        loop {
            let turn = self.line.turn(until)?;
            turn.check(self.stamp)?;
            let result = conversation(self.driver.as_mut(), until);
            match &result {
                Err(error) if error.failure == Failure::WrongPassword => turn.refused(self.stamp),
                Err(error) if error.failure == Failure::Busy && until.left() > BUSY_PAUSE => {
                    drop(turn);
                    thread::sleep(BUSY_PAUSE);
                    continue;
                }
                _ => {}
            }
            return result;
        }
    }

    /// The certificate the device shows.
    pub(super) fn certificate(&mut self) -> Result<Pin, PowerError> {
        let until = Deadline::after(self.deadline);
        self.ask(until, |driver, until| driver.certificate(until))
    }

    /// Whether the machine is on.
    pub(super) fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        self.ask(until, |driver, until| driver.status(until))
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        let until = Deadline::after(FAREWELL);
        // A device that is in use for so long closes forgotten sessions by itself.
        if let Ok(_turn) = self.line.turn(until) {
            self.driver.hang_up(until);
        }
    }
}
