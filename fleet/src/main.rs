//! `netflash`: the server and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    netflash_fleet::run().into()
}
