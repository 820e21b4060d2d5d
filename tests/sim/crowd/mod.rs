//! A crowd: real senders and receivers in rooms of up to ten thousand machines.
//!
//! What makes a room of this size playable: symbols of two bytes and a code that counts instead of computing
//! ([`Counting`]), so that a machine takes kilobytes; time in slots of the network's delay, so that everything a
//! machine hears of one slot is handled at once; losses drawn as gaps between them. The wire is reckoned as if
//! symbols had their real size. Bytes are the business of the other simulator, see [`run`](super::run).
//!
//! Two guards are away here, both checked elsewhere: `symbol_bytes`, which refuses symbols so small, and
//! `announce_signature`, because nobody forges here and ten thousand verifications of each announce take a second.

mod counting;
mod losses;
mod member;
mod outcome;
mod pipe;
mod plan;
mod world;

pub use counting::Counting;
pub use outcome::CrowdOutcome;
pub use plan::{Bottleneck, Crowd, Seat};
pub use world::play;
