//! The server as IGMP querier, on the interface it sends by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netflash_multicast::{Family, Interface, InterfaceChoice, ask_who_listens};

use crate::config::MulticastConfig;

/// Pause after it failed: the interface may not be up yet.
const RETRY: Duration = Duration::from_secs(10);
/// The longest sleep, so that a stop is noticed.
const NAP: Duration = Duration::from_millis(100);

/// Asks who listens, where nobody else does. Dropping it ends that.
pub(super) struct Querier {
    stop: Arc<AtomicBool>,
}

impl Querier {
    /// Starts listening for others, unless it is switched off.
    pub(super) fn start(config: &MulticastConfig) -> Option<Querier> {
        let asking = config.querier()?;
        let Ok(choice) = config.interface.parse::<InterfaceChoice>();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let spawned = thread::Builder::new()
            .name("querier".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let observer = |asks: bool| log::info!("querier asks={asks}");
                    let outcome = match Interface::choose(&choice, Family::V4) {
                        Ok(interface) => ask_who_listens(&interface, asking, observer, &stopped)
                            .map_err(|error| error.to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    if let Err(reason) = outcome {
                        // Without root there are no raw sockets; everything else works all the same.
                        log::info!("querier state=off reason={reason:?}");
                    }
                    rest(&stopped);
                }
            });
        match spawned {
            Ok(_) => Some(Querier { stop }),
            Err(error) => {
                log::warn!("querier state=off reason=\"{error}\"");
                None
            }
        }
    }
}

impl Drop for Querier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn rest(stopped: &AtomicBool) {
    for _ in 0..RETRY.as_millis() / NAP.as_millis() {
        if !stopped.load(Ordering::Relaxed) {
            thread::sleep(NAP);
        }
    }
}
