//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once.

use std::sync::{Arc, atomic::AtomicBool};

use anyhow::Context;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::Exit;

/// A flag that the first signal sets.
pub(crate) fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let code = Exit::Interrupted as i32;
        // In this order: the first signal finds the flag unset and sets it, the second finds it set.
        flag::register_conditional_shutdown(signal, code, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .context("listening to signals")?;
    }
    Ok(stop)
}
