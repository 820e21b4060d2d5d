//! Power by programs of the operator: anything that can be scripted.

use super::child;
use super::deadline::Deadline;
use super::failure::{Failure, PowerError};
use super::{Power, PowerState};

/// Command lines with everything filled in.
pub(super) struct CommandPower {
    pub(super) on: Vec<String>,
    pub(super) off: Vec<String>,
    pub(super) cycle: Vec<String>,
    pub(super) reset: Vec<String>,
    pub(super) status: Vec<String>,
}

impl Power for CommandPower {
    fn status(&mut self, until: Deadline) -> Result<PowerState, PowerError> {
        let output = run(&self.status, until)?;
        match output.trim().to_ascii_lowercase().as_str() {
            "on" => Ok(PowerState::On),
            "off" => Ok(PowerState::Off),
            other => Err(Failure::Garbage.because(format!("{other:?} is neither on nor off"))),
        }
    }

    fn on(&mut self, until: Deadline) -> Result<(), PowerError> {
        run(&self.on, until).map(drop)
    }

    fn off(&mut self, until: Deadline) -> Result<(), PowerError> {
        run(&self.off, until).map(drop)
    }

    fn cycle(&mut self, until: Deadline) -> Result<(), PowerError> {
        run(&self.cycle, until).map(drop)
    }

    fn reset(&mut self, until: Deadline) -> Result<(), PowerError> {
        run(&self.reset, until).map(drop)
    }
}

/// Run a command line; its standard output, when it succeeds.
pub(super) fn run(argv: &[String], until: Deadline) -> Result<String, PowerError> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Failure::Unsupported.because("the profile has no command for it"))?;
    let ended = child::run(program, arguments, &[], until)?;
    if ended.code == Some(0) {
        return Ok(ended.stdout);
    }
    let text = format!("{program}: {}: {}", ended.how(), ended.stderr.trim());
    Err(Failure::Refused.because(text))
}
