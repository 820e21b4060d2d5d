//! Everything a stranger can put on the wire, to a receiver and to a sender in the middle of a session.
//!
//! An input is a list of steps, each a kind, a length and bytes (see `stage.rs`). Besides raw datagrams
//! there are *mended* ones, with a right checksum or signature, so that the fuzzer is not stopped at
//! the door.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../stage.rs"]
mod stage;

fuzz_target!(|input: &[u8]| {
    stage::round_trip(input);
    stage::Stage::new().play(input);
});
