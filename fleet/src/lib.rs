//! What do we want each machine to be, and how do we get there? Server, power drivers and the command line.

mod adapter;
mod api;
mod base64;
mod capture;
mod cli;
mod client;
mod cmd;
mod config;
mod confirm;
mod data_dir;
mod detour;
mod doctor;
mod exit;
mod fallback;
mod fleet;
mod interrupt;
mod job;
mod machine;
mod pki;
mod power;
mod progress;
mod secret;
mod server;
mod session;
mod snippet;
mod store;
mod sys;
mod table;
mod units;
mod vault;

pub use adapter::{DeployOutcome, DeploySink, ImageSource};
pub use cli::{command, run};
pub use exit::{Exit, ExitError, exit_of};
pub use fallback::{Answer, Queue, QueueConfig};
#[cfg(feature = "fuzzing")]
pub use power::read_as_device;
pub use units::DEFAULT_GROUP;
