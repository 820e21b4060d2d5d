//! The commands, one file each: arguments, what they do, and what they print.

use std::io::{self, Write};

use serde::Serialize;

pub(crate) mod appliance;
pub(crate) mod doctor;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod job;
pub(crate) mod lab;
pub(crate) mod machine;
pub(crate) mod power;
pub(crate) mod receive;
pub(crate) mod scope;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod store_image;
pub(crate) mod transfer;
pub(crate) mod verify;

/// A result on standard output, for programs or for people.
pub(crate) fn show<T: Serialize>(
    json: bool,
    result: &T,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let mut out = if json {
        serde_json::to_string_pretty(result)?
    } else {
        text()
    };
    if json {
        out.push('\n');
    }
    match io::stdout().write_all(out.as_bytes()) {
        // Whoever reads has seen enough, as in `| head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
