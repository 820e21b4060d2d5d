//! QMP sockets that are no QEMU, or none any more.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::desk::Desk;

/// QEMU's first words.
const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

/// A socket where each line is answered by these bytes, after others at the beginning.
fn answers(at: &Path, first: &'static str, each: &'static str) -> Result<()> {
    let listener = UnixListener::bind(at)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client may hang up at any time.
            let _ = (&stream).write_all(first.as_bytes());
            for _ in BufReader::new(&stream).lines().map_while(Result::ok) {
                let _ = (&stream).write_all(each.as_bytes());
            }
        }
    });
    Ok(())
}

/// A socket where an event comes every now and then, and an answer never.
fn drips(at: &Path) -> Result<()> {
    let listener = UnixListener::bind(at)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut said = (&stream).write_all(GREETING.as_bytes());
            while said.is_ok() {
                thread::sleep(Duration::from_millis(200));
                said = (&stream).write_all(b"{\"event\": \"RESET\"}\n");
            }
        }
    });
    Ok(())
}

#[test]
fn what_is_no_qemu_has_its_word_and_does_not_hang() -> Result<()> {
    let desk = Desk::open("[power.vm]\ndriver = \"qmp\"\ndeadline_seconds = 3\n")?;
    let at = |name: &str| desk.scratch.path().join(name);
    answers(&at("silent"), "", "")?;
    answers(&at("garbage"), "HTTP/1.1 200 OK\r\n", "")?;
    answers(&at("mute"), GREETING, "")?;
    let refusal = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"not now\"}}\n";
    answers(&at("refusing"), GREETING, refusal)?;
    let events = "{\"event\": \"RESET\"}\n{\"event\": \"RESET\"}\n";
    answers(&at("chatter"), GREETING, events)?;
    drips(&at("dripping"))?;
    drop(UnixListener::bind(at("left"))?);
    let names = [
        "silent", "garbage", "mute", "refusing", "chatter", "dripping", "left", "none",
    ];
    for (number, name) in (1..).zip(names) {
        desk.add(name, number, &[&format!("vm:{}", at(name).display())])?;
    }
    let words = desk.words("status")?;
    for (name, expected) in [
        ("silent", "timed-out"),
        ("garbage", "garbage"),
        ("mute", "timed-out"),
        ("refusing", "refused"),
        ("chatter", "timed-out"),
        ("dripping", "timed-out"),
        ("left", "off"),
        ("none", "off"),
    ] {
        assert_eq!(words[name], expected, "{name}");
    }
    assert_eq!(desk.power(&["on", "none"])?["failure"], "unsupported");
    assert_eq!(
        desk.power(&["bootdev", "pxe", "none"])?["failure"],
        "unsupported"
    );
    assert_eq!(desk.power(&["reset", "refusing"])?["failure"], "refused");
    Ok(())
}
