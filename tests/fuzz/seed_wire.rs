//! Makes the seeds of the fuzz target `wire`: a whole session, and some of its datagrams alone.
//!
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --bin seed-wire` writes them to
//! `tests/fuzz/seeds/wire`.

use std::fs;
use std::path::Path;

#[path = "stage.rs"]
mod stage;

/// Length of the shorter seeds.
const SHORT_BYTES: usize = 5000;

fn main() -> std::io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/wire");
    fs::create_dir_all(&seeds)?;
    let session = stage::Stage::new().record();
    let mut genuine = Vec::new();
    let mut mended = Vec::new();
    for (step, bytes) in &session {
        stage::write_step(*step, bytes, &mut genuine);
        stage::write_step(step.mended(), bytes, &mut mended);
        // A beginning too, so that not every mutation pays for a whole session.
        if mended.len() < SHORT_BYTES {
            fs::write(seeds.join("beginning-mended"), &mended)?;
        }
    }
    fs::write(seeds.join("session"), &genuine)?;
    fs::write(seeds.join("session-mended"), &mended)?;
    let datagrams = session.iter().filter(|(_, bytes)| bytes.len() > 2);
    for (at, (_, datagram)) in datagrams.enumerate().step_by(7).take(12) {
        fs::write(seeds.join(format!("datagram-{at:02}")), datagram)?;
    }
    println!("{} steps recorded in {}", session.len(), seeds.display());
    Ok(())
}
