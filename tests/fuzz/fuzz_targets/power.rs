//! Answers of power devices: anybody who is at their address gives them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netflash_fleet::read_as_device;

fuzz_target!(|bytes: &[u8]| read_as_device(bytes));
