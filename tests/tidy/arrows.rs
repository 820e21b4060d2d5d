//! Who may import whom, read from the manifests.

use crate::tree::Tree;

/// Each room, and the rooms it may import.
const MAY: [(&str, &[&str]); 7] = [
    ("imager", &[]),
    ("multicast", &[]),
    ("pxe", &[]),
    ("buildroot", &[]),
    ("init", &["imager", "multicast", "pxe"]),
    ("fleet", &["imager", "multicast", "pxe", "appliance"]),
    (
        "tests",
        &["imager", "multicast", "pxe", "appliance", "fleet", "init"],
    ),
];

/// The crates a manifest names in its tables of dependencies.
fn dependencies(manifest: &str) -> Result<Vec<(String, toml::Value)>, String> {
    let parsed: toml::Table = manifest.parse().map_err(|e| format!("{e}"))?;
    let mut found = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        if let Some(toml::Value::Table(entries)) = parsed.get(table) {
            found.extend(
                entries
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
        }
    }
    Ok(found)
}

/// Imports that the picture of the house forbids.
pub(crate) fn breaches(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for (room, may) in MAY {
        let manifest = format!("{room}/Cargo.toml");
        match dependencies(tree.text(&manifest)) {
            Err(e) => bad.push(format!("{manifest}: {e}")),
            Ok(named) => {
                for (name, _) in named {
                    let Some(other) = name.strip_prefix("netflash-") else {
                        continue;
                    };
                    if !may.contains(&other) {
                        bad.push(format!("{room} must not import {other}"));
                    }
                }
            }
        }
    }
    bad
}

/// Programs that switch the sabotage feature on.
pub(crate) fn sabotage(tree: &Tree) -> Vec<String> {
    let mut bad = Vec::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with("Cargo.toml")) {
        if file.path.starts_with("tests/") {
            continue;
        }
        match dependencies(&file.text) {
            Err(e) => bad.push(format!("{}: {e}", file.path)),
            Ok(named) => {
                for (name, value) in named {
                    if value.to_string().contains("sabotage") {
                        bad.push(format!("{}: {name} with the feature sabotage", file.path));
                    }
                }
            }
        }
        let parsed: toml::Table = file.text.parse().unwrap_or_default();
        let default = parsed.get("features").and_then(|f| f.get("default"));
        if default.is_some_and(|d| d.to_string().contains("sabotage")) {
            bad.push(format!("{}: sabotage is a default feature", file.path));
        }
    }
    bad
}

/// Crates of the workspace without a line in `docs/dependencies.md`.
pub(crate) fn undocumented(tree: &Tree) -> Vec<String> {
    let docs = tree.text("docs/dependencies.md");
    let mut bad = Vec::new();
    for file in tree.files.iter().filter(|f| f.path.ends_with("Cargo.toml")) {
        let Ok(named) = dependencies(&file.text) else {
            continue;
        };
        for (name, _) in named {
            let ours = name.starts_with("netflash-");
            if !ours && !docs.contains(&format!("`{name}`")) {
                bad.push(format!("{}: {name}", file.path));
            }
        }
    }
    bad.sort();
    bad.dedup();
    bad
}

#[test]
fn a_forbidden_arrow_is_found() {
    let tree = Tree::of(&[(
        "init/Cargo.toml",
        "[dependencies]\nnetflash-fleet.workspace = true",
    )]);
    assert_eq!(breaches(&tree), ["init must not import fleet"]);
}

#[test]
fn planted_sabotage_is_found() {
    let plant = "[dependencies]\nnetflash-multicast = { path = \"x\", features = [\"sabotage\"] }";
    assert_eq!(sabotage(&Tree::of(&[("init/Cargo.toml", plant)])).len(), 1);
    let default = "[features]\ndefault = [\"sabotage\"]\nsabotage = []";
    assert_eq!(
        sabotage(&Tree::of(&[("multicast/Cargo.toml", default)])).len(),
        1
    );
}

#[test]
fn an_undocumented_crate_is_found() {
    let tree = Tree::of(&[
        (
            "pxe/Cargo.toml",
            "[dependencies]\nserde = \"1\"\nleft-pad = \"1\"",
        ),
        ("docs/dependencies.md", "| `serde` | types on the wire |"),
    ]);
    assert_eq!(undocumented(&tree), ["pxe/Cargo.toml: left-pad"]);
}
