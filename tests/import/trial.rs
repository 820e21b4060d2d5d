//! What the tests of foreign formats share: making an image of a source, and what must be left.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, MIB, image, json, netflash, noise, refused, said, tool};

/// A disk with everything that readers like to get wrong: noise, zeros, a hole in the middle of a
/// unit, and an end in noise.
pub(crate) fn some_disk() -> Vec<u8> {
    let mut raw = noise(1, 3 << 20);
    raw.resize(7 << 20, 0);
    raw.extend(noise(2, 70_000));
    raw.resize(20 * MIB as usize - 512, 0);
    raw.extend(noise(3, 512));
    raw
}

/// Makes the image of `source` and compares what `zstd` gives back with `raw`.
pub(crate) fn assert_becomes(bench: &Bench, source: &str, raw: &[u8]) -> Value {
    assert_becomes_with(bench, source, raw, &[])
}

/// The same, with more options.
pub(crate) fn assert_becomes_with(
    bench: &Bench,
    source: &str,
    raw: &[u8],
    options: &[&str],
) -> Value {
    let out = bench.path("out.img.zst");
    let _ = fs::remove_file(&out);
    let before = names(bench);
    let always = [
        "create",
        source,
        &out,
        "--used-only=off",
        "--level=1",
        "--json",
    ];
    let made = json(&image(&[&always[..], options].concat()));
    let mut after = names(bench);
    after.retain(|name| name != "out.img.zst");
    assert_eq!(before, after, "nothing else is left");
    let unpacked = bench.unpacked(&out);
    let differing = unpacked.iter().zip(raw).position(|(a, b)| a != b);
    assert_eq!(
        (differing, unpacked.len()),
        (None, raw.len()),
        "{source}: first differing byte, length"
    );
    fs::remove_file(bench.path("unpacked")).unwrap();
    made
}

/// No image comes of `source`, nothing is left, and the reason has `word`.
pub(crate) fn assert_refused(bench: &Bench, source: &str, word: &str) {
    let out = bench.path("refused.img.zst");
    let before = names(bench);
    let reason = refused(&["create", source, &out, "--used-only=off"], 1);
    assert!(reason.contains(word), "{source}: {word} is not in {reason}");
    assert_eq!(before, names(bench), "nothing is left");
}

/// What a tool prints, as bytes.
pub(crate) fn output_of(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; run ./scripts/setup"));
    assert!(output.status.success(), "{program}: {}", said(&output));
    output.stdout
}

/// Makes the image of what `program` prints; gives the image's name.
pub(crate) fn piped(bench: &Bench, program: &str, arguments: &[&str]) -> String {
    let out = bench.path("piped.img.zst");
    let mut source = Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = netflash()
        .args(["create", "-", &out])
        .stdin(source.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(source.wait().unwrap().success());
    out
}

/// An empty file of `bytes`.
pub(crate) fn blank(bench: &Bench, name: &str, bytes: u64) -> String {
    let path = bench.path(name);
    fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

/// A directory of files, some of them noise, one of them empty of content.
pub(crate) fn files(bench: &Bench) -> String {
    let files = bench.path("files");
    fs::create_dir_all(&files).unwrap();
    for index in 0..12usize {
        fs::write(
            format!("{files}/{index}"),
            noise(index as u64, 90_000 * index + 5),
        )
        .unwrap();
    }
    fs::write(format!("{files}/zeros"), vec![0; 900_000]).unwrap();
    files
}

/// An ext4 file system with files, `bytes` large.
pub(crate) fn ext4(bench: &Bench, name: &str, bytes: u64) -> String {
    let (path, files) = (blank(bench, name, bytes), files(bench));
    tool(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-d", &files, &path],
        "",
    );
    path
}

fn names(bench: &Bench) -> Vec<String> {
    let entries = fs::read_dir(bench.directory.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
