//! Asking before something is erased.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Context;

use crate::exit::{Exit, ExitError};

/// Names what will be erased and asks, unless `yes` was said already.
///
/// # Errors
/// When the answer is no, or nobody can answer.
pub(crate) fn confirm_erasing(what: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let refused = |reason: &str| ExitError::new(Exit::Failed, format!("{what}: {reason}"));
    if !io::stdin().is_terminal() {
        return Err(refused("nobody is there to be asked; add --yes to erase it").into());
    }
    eprint!("Everything on {what} will be erased. Type yes to go on: ");
    io::stderr().flush().context("asking")?;
    let mut answer = String::new();
    let asked = io::stdin().lock().read_line(&mut answer);
    asked.context("reading the answer")?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(refused("not erased").into())
    }
}
