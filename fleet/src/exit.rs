//! How `netflash` ends.

use std::process::ExitCode;

/// Exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done = 0,
    /// Failed, or refused.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The server does not answer.
    Unreachable = 3,
    /// A person pressed Ctrl-C, or a signal asked us to stop.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows with which code the program ends.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// The code.
    pub exit: Exit,
    message: String,
}

impl ExitError {
    /// An error with its code.
    pub fn new(exit: Exit, message: impl Into<String>) -> ExitError {
        ExitError {
            exit,
            message: message.into(),
        }
    }
}

/// The code an error ends the program with: that of the first [`ExitError`] in its chain, else [`Exit::Failed`].
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let known = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<ExitError>().map(|e| e.exit)
    };
    error.chain().find_map(known).unwrap_or(Exit::Failed)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::{Exit, ExitError, exit_of};

    #[test]
    fn context_does_not_hide_the_code() {
        let error = Err::<(), _>(ExitError::new(Exit::Unreachable, "no answer"))
            .context("asking the server")
            .expect_err("it is an error");
        assert_eq!(exit_of(&error), Exit::Unreachable);
        assert_eq!(exit_of(&anyhow::anyhow!("other")), Exit::Failed);
    }
}
