//! Sequences of events around a sender: datagrams in any order, time, sinks, blocks, and forgery of what comes to the sender.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../machine.rs"]
mod machine;
#[path = "../script.rs"]
mod script;
#[path = "../theatre.rs"]
mod theatre;

fuzz_target!(init: script::sabotage(), |input: &[u8]| {
    script::play(input, script::Victim::Sender);
});
