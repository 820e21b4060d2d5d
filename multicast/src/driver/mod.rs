//! The driver: sockets, threads and clocks around the two state machines.
//!
//! ```text
//!  source thread            send()                          receive()                     sink thread
//!  read_block  <-NeedBlock- Sender --batches, paced--> recvmmsg -> Receiver --Preamble--> begin (survey)
//!              --payload--> Sender <----- reports ---------------- Receiver --Block-----> deliver
//! ```
//!
//! Both loops do the same in turn: take what came in, do what is due, say what is new, send what may leave,
//! and sleep until the next of these. All decisions are the state machines'.

mod cadence;
mod chance;
mod detour;
mod examine;
mod igmp;
mod pace;
mod receive;
mod send;
mod ticks;

pub use chance::random_session;
pub use detour::{Bypass, Detour, DetourError, DetourReport};
pub use examine::{Examination, HeardSession, examine, probe};
pub use igmp::ask_who_listens;
pub use receive::{
    ReceiveConfig, ReceiveError, ReceiveEvent, ReceiveReport, receive, receive_beside,
};
pub use send::{
    Audience, RateBudget, RateChange, RateShare, SendConfig, SendError, SendEvent, SendReport, send,
};

#[cfg(test)]
mod tests;
