//! `docs/scale.md`: the figures, how they were counted, and how to get them again.

use std::fmt::{Error, Write};
use std::time::Duration;

use crate::grid::Cell;
use crate::hard::Day;

/// The page.
pub(crate) fn render(cells: &[Cell], days: &[Day], blocks: u32) -> Result<String, Error> {
    let mut text = String::new();
    writeln!(
        text,
        "# From one machine to ten thousand\n\n\
         Written by `cargo run --release -p tests --bin scale -- --out docs`; not\n\
         edited by hand. Simulated: real senders and receivers, a code that counts\n\
         symbols instead of computing them, a network and disks made of chance from a\n\
         seed ([tests/sim/crowd](../tests/sim/crowd)). {blocks} blocks of 1000 symbols of\n\
         1452 bytes at 1 Gbit/s, datagrams on their way for half a millisecond.\n\n\
         ![symbols sent and time, by the size of the room](scale.svg)\n\n\
         *Sent*: symbols sent for each source symbol, those of the preamble included.\n\
         *Least*: the expected maximum over the machines of the symbols that must be sent\n\
         until k of them have come, for each source symbol: no protocol that knows only\n\
         afterwards who lost what can be expected to send less. *Last*: from the first\n\
         symbol of the payload until the last machine had everything, and beside it the\n\
         same for one machine. *Feedback*: bytes of all reports for each byte sent in\n\
         that time, both with their Ethernet, IPv4 and UDP headers. *Reports*: of each\n\
         machine over the whole session, with those that come before and after: that it\n\
         is there, that it is ready, twice, and that it is done, until acknowledged.\n\n\
         | loss | machines | sent | least | sent ÷ least | last | ÷ one machine | feedback | reports | played in |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for cell in cells {
        let alone = cells
            .iter()
            .find(|other| other.machines == 1 && other.loss == cell.loss);
        let alone = alone.and_then(|alone| alone.last);
        writeln!(
            text,
            "| {} % | {} | {:.4} | {:.4} | {:.4} | {} | {} | {:.3} % | {:.1} | {:.1} s |",
            percent(cell.loss),
            cell.machines,
            cell.wire,
            cell.least,
            cell.excess(),
            seconds(cell.last),
            ratio(cell.last, alone),
            100.0 * cell.feedback,
            cell.reports,
            cell.cost.as_secs_f64()
        )?;
    }
    if days.is_empty() {
        return Ok(text);
    }
    writeln!(
        text,
        "\n## Hard days\n\n\
         When half, 95 of 100, and all of the machines had everything. In the first room\n\
         everybody is alike; in the second, two machines more shall not hold up the other\n\
         98.\n\n\
         | room | machines | complete | sent | feedback | half | 95 % | all |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for day in days {
        let [half, most, all] = day.times.map(seconds);
        writeln!(
            text,
            "| {} | {} | {} | {:.4} | {:.3} % | {half} | {most} | {all} |",
            day.what,
            day.machines,
            day.complete,
            day.wire,
            100.0 * day.feedback
        )?;
    }
    Ok(text)
}

fn percent(part: f64) -> f64 {
    (part * 100_000.0).round() / 1000.0
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("never".to_owned(), |time| {
        format!("{:.3} s", time.as_secs_f64())
    })
}

fn ratio(time: Option<Duration>, alone: Option<Duration>) -> String {
    match (time, alone) {
        (Some(time), Some(alone)) => format!("{:.3}", time.as_secs_f64() / alone.as_secs_f64()),
        _ => "–".to_owned(),
    }
}
