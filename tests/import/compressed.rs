//! Compressed disks, by the programs that everybody compresses with.

use std::fs;

use crate::bench::{Bench, image, refused};
use crate::trial::{assert_becomes, assert_refused, output_of, piped, some_disk};

/// Each program and how it is asked for its format.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("gzip", &["-c"]),
    ("bzip2", &["-c"]),
    ("xz", &["-c", "-T2", "-1", "--block-size=2MiB"]),
    ("xz", &["-c", "-9"]),
    ("zstd", &["-c", "-q", "-T2"]),
    ("zstd", &["-c", "-q", "--ultra", "-20", "--long=27"]),
];

fn compressed(program: &str, options: &[&str], path: &str) -> Vec<u8> {
    output_of(program, &[options, &[path]].concat())
}

#[test]
fn a_compressed_disk_is_that_disk() {
    let bench = Bench::new();
    let raw = some_disk();
    let disk = bench.file("disk", &raw);
    for (program, options) in PROGRAMS {
        let packed = bench.file("packed", &compressed(program, options, &disk));
        assert_becomes(&bench, &packed, &raw);
    }
}

#[test]
fn all_members_of_a_compressed_file_are_taken() {
    let bench = Bench::new();
    let raw = some_disk();
    let parts = raw.chunks(raw.len() / 3 + 1);
    let parts: Vec<String> = parts
        .enumerate()
        .map(|(index, part)| bench.file(&format!("part{index}"), part))
        .collect();
    for (program, options) in PROGRAMS {
        let members = parts.iter().map(|part| compressed(program, options, part));
        let packed = bench.file("packed", &members.collect::<Vec<_>>().concat());
        assert_becomes(&bench, &packed, &raw);
    }
    // A tape pads with zeros; gzip and xz programs take them too.
    for program in ["gzip", "xz"] {
        let mut packed = compressed(program, &["-c"], &bench.file("disk", &raw));
        packed.resize(packed.len().next_multiple_of(4) + 10_240, 0);
        assert_becomes(&bench, &bench.file("packed", &packed), &raw);
    }
}

#[test]
fn what_is_cut_short_or_damaged_becomes_no_image() {
    let bench = Bench::new();
    let disk = bench.file("disk", &some_disk());
    for (program, options) in PROGRAMS {
        let whole = compressed(program, options, &disk);
        for left in [whole.len() - 1, whole.len() - 5, whole.len() / 2, 20] {
            let cut = bench.file("cut", &whole[..left]);
            assert_refused(&bench, &cut, "at byte");
        }
        // Cut within a second member: the first alone would be a short disk.
        let cut = [&whole[..], &whole[..whole.len() / 3]].concat();
        assert_refused(&bench, &bench.file("cut", &cut), "at byte");
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 0x10;
        assert_refused(&bench, &bench.file("damaged", &damaged), "at byte");
        let trailed = [&whole[..], b"something else"].concat();
        assert_refused(&bench, &bench.file("trailed", &trailed), "at byte");
    }
}

#[test]
fn a_compressed_pipe_is_unpacked_on_the_way() {
    let bench = Bench::new();
    let raw = some_disk();
    let disk = bench.file("disk", &raw);
    for (program, options) in PROGRAMS {
        let out = piped(&bench, program, &[options, &[&disk]].concat());
        assert!(bench.unpacked(&out) == raw, "{program}");
        fs::remove_file(out).unwrap();
    }
}

#[test]
fn an_image_is_no_source_and_nothing_is_unpacked_twice() {
    let bench = Bench::new();
    let disk = bench.file("disk", &some_disk());
    let (sealed, again) = (bench.path("a.img.zst"), bench.path("b.img.zst"));
    image(&["create", &disk, &sealed]);
    let reason = refused(&["create", &sealed, &again], 1);
    assert!(reason.contains("is an image already"), "{reason}");
    let once = bench.file("once", &compressed("gzip", &["-c"], &disk));
    let twice = bench.file("twice", &compressed("xz", &["-c"], &once));
    assert_refused(&bench, &twice, "compressed twice");
}

#[test]
fn a_window_or_dictionary_beyond_the_bounds_is_refused() {
    let bench = Bench::new();
    let disk = bench.file("disk", &some_disk());
    let options = ["-c", "--lzma2=preset=0,dict=192MiB"];
    let packed = bench.file("packed", &compressed("xz", &options, &disk));
    assert_refused(&bench, &packed, "memory");
}
