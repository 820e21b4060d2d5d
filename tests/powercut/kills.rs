//! Machines and servers that die in the middle of a capture, spread over its bytes.
//!
//! A kill is less than a power cut, since the page cache survives; but there can be one at any byte.

use anyhow::{Context, Result, ensure};
use tests::sim::Chance;

use crate::desk::{Sealed, Server, Stage, Visit};

/// Deaths of the machine; at every second the server dies, too.
const DEATHS: usize = 50;
/// Deaths of the server while it checks the image.
const SEALING_DEATHS: usize = 5;

/// Captures with all these deaths on the way.
pub(crate) fn assert_every_death_is_survived(seed: u64) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("server");
    std::fs::create_dir(&place)?;
    let image = Sealed::make(directory.path(), &mut Chance::new(seed))?;
    let mut server = Server::start(&place)?;
    server.order()?;
    let all = image.bytes.len();
    let (mut before, mut sent_again) = (0, 0);
    for death in 1..=DEATHS {
        let visit = Visit::begin(&server, death as u8)?;
        let until = all * death / (DEATHS + 1);
        let had = visit.send(&image, until)?;
        ensure!(had <= before, "the server has {had} of {before} bytes sent");
        sent_again += before - had;
        before = until;
        // A part that does not follow changes nothing.
        ensure!(visit.part(until + 1, b"stray").is_err(), "a gap was filled");
        if death % 2 == 0 {
            drop(server);
            server = Server::start(&place)?;
        }
        let stage = server.judge(&image)?;
        ensure!(stage == Stage::Capturing, "half an image is {stage:?}");
    }
    let visit = Visit::begin(&server, 0xee)?;
    visit.send(&image, all)?;
    visit.end(&image)?;
    for _ in 0..SEALING_DEATHS {
        drop(server);
        server = Server::start(&place)?;
        server.judge(&image).context("while it is checked")?;
    }
    server.await_ready(&image)?;
    println!("{DEATHS} deaths over {all} bytes; {sent_again} bytes were sent twice");
    ensure!(
        sent_again == 0,
        "a server that was killed had lost what it acknowledged"
    );
    Ok(())
}
