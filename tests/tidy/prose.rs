//! Rules for scripts and documents.

use std::path::{Component, Path, PathBuf};

use crate::tree::Tree;

/// What must not be named: places of one machine, and hosts of registries.
/// Spelled in pieces, so that this file does not hold them.
fn outside_words() -> [String; 7] {
    [
        ["/wo", "rk/"].concat(),
        ["/fa", "rm/"].concat(),
        ["/tmp/", "brief"].concat(),
        ["crates", ".io"].concat(),
        ["py", "pi.org"].concat(),
        ["npm", "js."].concat(),
        ["deb.deb", "ian.org"].concat(),
    ]
}

/// Words of the world outside the repository.
pub(crate) fn outside(tree: &Tree) -> Vec<String> {
    let words = outside_words();
    let mut bad = Vec::new();
    for file in &tree.files {
        // The lock file names its registry; CI may name the folder of recordings.
        if file.path.ends_with("Cargo.lock") || file.path == ".ci/run" {
            continue;
        }
        for (i, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word.as_str())) {
                bad.push(format!("{}:{}: {}", file.path, i + 1, line.trim()));
            }
        }
    }
    bad
}

/// Scripts that go on after an error, or do not say what they do.
pub(crate) fn scripts(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    let scripts = tree.files.iter().filter(|f| {
        f.path.starts_with("scripts/") || f.path == ".ci/run" || f.text.starts_with("#!")
    });
    for file in scripts {
        if file.path.ends_with(".rs") {
            continue;
        }
        if !file.executable {
            bad.push(format!("{}: not executable", file.path));
        }
        let bash = file
            .text
            .lines()
            .next()
            .is_some_and(|l| l.ends_with("bash"));
        if bash && !file.text.contains("set -euo pipefail") {
            bad.push(format!("{}: no `set -euo pipefail`", file.path));
        }
        if !file
            .text
            .lines()
            .nth(1)
            .is_some_and(|l| l.starts_with("# ") || l.starts_with("\"\"\""))
        {
            bad.push(format!(
                "{}: the second line does not say what it does",
                file.path
            ));
        }
    }
    bad
}

/// Links between documents that lead nowhere.
pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with(".md")) {
        for rest in file.text.split("](").skip(1) {
            let Some((target, _)) = rest.split_once(')') else {
                continue;
            };
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
            let path = flat(&folder.join(target));
            let known = |f: &crate::tree::File| {
                f.path == path
                    || f.path
                        .starts_with(&format!("{}/", path.trim_end_matches('/')))
            };
            if !tree.files.iter().any(known) {
                bad.push(format!("{}: {target}", file.path));
            }
        }
    }
    bad
}

/// The path without `.` and `..`.
fn flat(path: &Path) -> String {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(name) => parts.push(name),
            _ => {}
        }
    }
    parts.to_string_lossy().into_owned()
}

#[test]
fn a_path_of_one_machine_is_found() {
    let text = format!("see {}main", outside_words()[0]);
    assert_eq!(outside(&Tree::of(&[("docs/a.md", &text)])).len(), 1);
}

#[test]
fn a_careless_script_is_found() {
    let tree = Tree::of(&[("scripts/a", "#!/usr/bin/env bash\nrm -rf x")]);
    assert_eq!(scripts(&tree).len(), 2);
}

#[test]
fn a_dead_link_is_found() {
    let tree = Tree::of(&[("docs/a.md", "[b](b.md) [c](../c.md)"), ("c.md", "")]);
    assert_eq!(links(&tree), ["docs/a.md: b.md"]);
}
