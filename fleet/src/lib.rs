//! What do we want each machine to be, and how do we get there? Server, power drivers and the command line.

mod cli;
mod cmd;
mod exit;

pub use cli::{command, run};
pub use exit::{Exit, ExitError, exit_of};
