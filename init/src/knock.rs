//! A machine that was not booted over the network has no token, and knocks until the server has something for it.

use std::thread;
use std::time::Duration;

use netflash_pxe::plain;

use crate::console::Console;
use crate::network::Network;
use crate::server::Server;
use crate::worker::{POLL_MAX, POLL_MIN, RETRY_MAX, RETRY_MIN};

/// Longest reason of the server that is shown, in characters.
const REASON_MAX: usize = 120;

/// The server, with a token to say hello with. That may take days: somebody has to order something first.
///
/// # Errors
/// When the server refuses to answer at all; what to show then.
pub(crate) fn admitted(
    console: &Console,
    server: Server,
    network: &Network,
) -> Result<Server, Vec<String>> {
    console.phase(&format!("asking server {} what to do", server.address()));
    let mut again = false;
    let mut shown = String::new();
    let mut pause = RETRY_MIN;
    loop {
        match server.knock(again) {
            Ok(answer) => {
                again = true;
                pause = RETRY_MIN;
                if let Some(token) = answer.token {
                    log::info!("knock state=admitted");
                    return Ok(server.with_token(token));
                }
                let reason = plain(&answer.reason, REASON_MAX);
                if shown != reason {
                    console.phase(&format!("waiting: {reason}"));
                    shown = reason;
                }
                let wait = Duration::from_secs(answer.again_seconds.into());
                thread::sleep(wait.clamp(POLL_MIN, POLL_MAX));
            }
            Err(error) if error.may_pass() => {
                let advice = format!("is the server running? {}", network.describe());
                console.trouble(&[error.to_string(), advice]);
                thread::sleep(pause);
                pause = (pause * 2).min(RETRY_MAX);
            }
            Err(error) => return Err(vec![error.to_string()]),
        }
    }
}
