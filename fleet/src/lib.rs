//! What do we want each machine to be, and how do we get there? Server, power drivers and the command line.

mod adapter;
mod cli;
mod cmd;
mod confirm;
mod exit;
mod interrupt;
mod progress;
mod units;

pub use adapter::{DeployOutcome, DeploySink, ImageSource};
pub use cli::{command, run};
pub use exit::{Exit, ExitError, exit_of};
pub use units::DEFAULT_GROUP;
