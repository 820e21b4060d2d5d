//! Swap space, judged by `blkid`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bench::{Bench, MIB, noise, tool};

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

#[test]
fn of_swap_the_header_is_kept_and_nothing_else() {
    let bench = Bench::new();
    let volume = bench.blank("volume", 64 * MIB);
    tool("mkswap", &["-L", "more", "-U", UUID, &volume]);
    let file = File::options().write(true).open(&volume).unwrap();
    file.write_all_at(&noise(1, 20 << 20), 8 * MIB).unwrap();
    let journey = bench.journey(&volume);
    assert_eq!(journey.used_bytes(), 4096);
    for (tag, value) in [("TYPE", "swap"), ("LABEL", "more"), ("UUID", UUID)] {
        let said = tool(
            "blkid",
            &["-p", "-s", tag, "-o", "value", &journey.restored],
        );
        assert_eq!(said.trim(), value);
    }
}

#[test]
fn a_hibernated_system_is_refused() {
    let bench = Bench::new();
    let volume = bench.blank("volume", 64 * MIB);
    tool("mkswap", &[&volume]);
    let file = File::options().write(true).open(&volume).unwrap();
    file.write_all_at(b"S1SUSPEND\0", 4086).unwrap();
    let said = bench.refusal(&volume);
    assert!(
        said.contains("a hibernated Linux has its memory there"),
        "{said}"
    );
}
