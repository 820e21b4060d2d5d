//! Rules for Rust files.

use crate::tree::{Tree, program_lines};

/// Longest file allowed, in lines. The aim is 100 to 400.
const LINES_MAX: usize = 500;

/// The files that may hold unsafe code.
const UNSAFE_FILES: [&str; 5] = [
    "imager/src/device.rs",
    "multicast/src/udp.rs",
    "init/src/sys.rs",
    "tests/lab/sys.rs",
    "fleet/src/sys.rs",
];

/// Spelled in pieces, so that this file does not hold them.
fn leftover_marks() -> [String; 6] {
    [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["dbg", "!("].concat(),
    ]
}

fn at(path: &str, line: usize, what: &str) -> String {
    format!("{path}:{line}: {}", what.trim())
}

/// Marks of unfinished work, in any text file.
pub(crate) fn leftovers(tree: &Tree) -> Vec<String> {
    let marks = leftover_marks();
    let mut bad = Vec::new();
    for file in &tree.files {
        if file.path == "Cargo.lock" || file.path.starts_with("LICENSE") {
            continue;
        }
        for (i, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| is_word(line, mark)) {
                bad.push(at(&file.path, i + 1, line));
            }
        }
    }
    bad
}

/// Whether `mark` stands in `line` with no letter beside it.
fn is_word(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(start, _)| {
        let beside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let before = line[..start].chars().next_back();
        let after = line[start + mark.len()..].chars().next();
        !beside(before) && (mark.ends_with('(') || !beside(after))
    })
}

/// Length, and the sentence that says what a file is.
pub(crate) fn shape(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for file in tree.rust() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            bad.push(format!(
                "{}: {lines} lines; look for the second noun",
                file.path
            ));
        }
        let fuzz_target = file.text.starts_with("#![no_main]");
        if !file.text.starts_with("//!") && !fuzz_target {
            bad.push(format!(
                "{}: does not begin with what it is (//!)",
                file.path
            ));
        }
    }
    bad
}

/// Unsafe code outside its files, or without its reason.
pub(crate) fn unsafe_code(tree: &Tree) -> Vec<String> {
    let allow = ["allow(", "unsafe_code)"].concat();
    let block = ["unsafe", " {"].concat();
    let reason = ["SAFETY", ":"].concat();
    let mut bad = Vec::new();
    for file in tree.rust() {
        if file.text.contains(&allow) && !UNSAFE_FILES.contains(&file.path.as_str()) {
            bad.push(format!("{}: may not hold unsafe code", file.path));
        }
        let lines: Vec<&str> = file.text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let above = &lines[i.saturating_sub(6)..=i];
            let explained = above.iter().any(|l| l.contains(&reason));
            if line.contains(&block) && !line.trim_start().starts_with("//") && !explained {
                bad.push(at(&file.path, i + 1, line));
            }
        }
    }
    bad
}

/// Names that say nothing.
pub(crate) fn names(tree: &Tree) -> Vec<String> {
    let vague = ["Manager", "Helper", "Util", "Misc", "Common"];
    let mut bad = Vec::new();
    for file in tree.rust() {
        for (number, line) in program_lines(&file.text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2) {
                let name = pair[1];
                let is_type = matches!(pair[0], "struct" | "enum" | "trait" | "type");
                if is_type && vague.iter().any(|v| name.contains(v)) {
                    bad.push(at(&file.path, number, line));
                }
                let is_module = pair[0] == "mod";
                if is_module && vague.iter().any(|v| name.starts_with(&v.to_lowercase())) {
                    bad.push(at(&file.path, number, line));
                }
                if pair[0] == "fn" && name.starts_with("get_") {
                    bad.push(at(&file.path, number, line));
                }
            }
        }
    }
    bad
}

/// Imports by `*`. Unit tests may take a prelude, or all of the code beside them.
pub(crate) fn globs(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for file in tree.rust().filter(|f| !f.path.ends_with("/tests.rs")) {
        for (number, line) in program_lines(&file.text) {
            let line = line.trim();
            let taken = line.strip_prefix("pub ").unwrap_or(line);
            if taken.starts_with("use ") && line.ends_with("::*;") && taken != "use super::*;" {
                bad.push(at(&file.path, number, line));
            }
        }
    }
    bad
}

/// Modules of the libraries that are public as a whole.
pub(crate) fn public_modules(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for room in ["imager", "multicast", "pxe", "buildroot"] {
        let path = format!("{room}/src/lib.rs");
        for (number, line) in program_lines(tree.text(&path)) {
            if line.starts_with("pub mod ") {
                bad.push(at(&path, number, line));
            }
        }
    }
    bad
}

#[test]
fn a_planted_leftover_is_found() {
    let [mark, ..] = leftover_marks();
    let text = format!("//! x\n// {mark}: later\nlet {mark}S = 1;");
    assert_eq!(leftovers(&Tree::of(&[("a.rs", &text)])).len(), 1);
}

#[test]
fn a_long_or_nameless_file_is_found() {
    let long = format!("//! x\n{}", "\n".repeat(LINES_MAX));
    let tree = Tree::of(&[
        ("long.rs", &long),
        ("nameless.rs", "fn x() {}"),
        ("good.rs", "//! x"),
    ]);
    assert_eq!(shape(&tree).len(), 2);
}

#[test]
fn planted_unsafe_code_is_found() {
    let allow = ["#![allow(", "unsafe_code)]"].concat();
    let block = ["    unsafe", " { x() }"].concat();
    let tree = Tree::of(&[("pxe/src/a.rs", &allow), ("imager/src/device.rs", &block)]);
    assert_eq!(unsafe_code(&tree).len(), 2);
    let explained = format!("    // {}{} x is pure\n{block}", "SAFETY", ":");
    assert!(unsafe_code(&Tree::of(&[("imager/src/device.rs", &explained)])).is_empty());
}

#[test]
fn vague_names_are_found() {
    let text = "//! x\npub struct DiskManager;\nfn get_disk() {}\nmod util;\nstruct Session;";
    assert_eq!(names(&Tree::of(&[("a.rs", text)])).len(), 3);
}

#[test]
fn a_planted_glob_is_found() {
    let text = "//! x\nuse std::fs::*;\nuse std::fs;\n#[cfg(test)]\nmod tests {\nuse super::*;\n}";
    assert_eq!(globs(&Tree::of(&[("a.rs", text)])).len(), 1);
}

#[test]
fn a_public_module_is_found() {
    assert_eq!(
        public_modules(&Tree::of(&[("pxe/src/lib.rs", "pub mod x;\nmod y;")])).len(),
        1
    );
}
