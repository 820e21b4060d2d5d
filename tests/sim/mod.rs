//! The deterministic simulator: real senders and receivers on a made-up network.
//!
//! Nothing here reads a clock or draws a number from outside: a [`Scenario`] is a pure function of its
//! seed, a run is a pure function of its scenario, and so the seed is the bug report:
//!
//! ```text
//! NETFLASH_SEED=1234 cargo test --test simulation one_seed -- --nocapture
//! ```
//!
//! What may go wrong is a [`Fault`]; what must hold whatever goes wrong is a [`Check`].

mod chance;
mod check;
mod crowd;
mod forger;
mod insider;
mod link;
mod machine;
mod scenario;
mod world;

pub use chance::Chance;
pub use check::{Check, Outcome, Violation, expected_max};
pub use crowd::{Bottleneck, Counting, Crowd, CrowdOutcome, Seat, play};
pub use forger::crc32;
pub use scenario::{Fault, MachinePlan, Scenario};
pub use world::run;
