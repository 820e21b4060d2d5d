//! A switched network inside one world: a sender and several receivers, each in
//! a network namespace of its own, around a bridge.
//!
//! ```text
//!     s (10.78.0.1)      r1 (10.78.0.11)   r2 (10.78.0.12)  ...
//!         eth0               eth0              eth0
//!          |                  |                 |
//!        p-s                p-r1              p-r2     <- loss towards each
//!   ------+------------- br0 -+-----------------+------
//! ```
//!
//! Programs run in it are those an operator runs. What they sent is counted at
//! the sender's interface, what was lost at the bridge: by the kernel, not by them.

mod hall;
mod payload;
mod program;
mod wall;

pub use hall::{GenerousBuffers, Hall, WireCount};
pub use payload::{Payload, differing_mebibytes};
pub use program::{Ended, Program, netflash, wait_while};
pub use wall::{Blocked, Wall};
