//! Makes the seeds of the fuzz target `wire`: a whole session, and some of its datagrams alone.
//!
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --bin seed-wire` writes them to
//! `tests/fuzz/seeds/wire`.

use std::fs;
use std::path::Path;

#[path = "stage.rs"]
mod stage;

fn main() -> std::io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/wire");
    fs::create_dir_all(&seeds)?;
    let session = stage::Stage::new().record();
    let mut input = Vec::new();
    for (step, bytes) in &session {
        stage::write_step(*step, bytes, &mut input);
    }
    fs::write(seeds.join("session"), &input)?;
    let datagrams = session.iter().filter(|(_, bytes)| bytes.len() > 2);
    for (at, (_, datagram)) in datagrams.enumerate().step_by(7).take(12) {
        fs::write(seeds.join(format!("datagram-{at:02}")), datagram)?;
    }
    println!("{} steps recorded in {}", session.len(), seeds.display());
    Ok(())
}
