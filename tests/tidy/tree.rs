//! The files of the repository, read once.

use std::fs;
use std::path::Path;

/// One text file of the repository.
pub(crate) struct File {
    /// Path from the root of the repository, with slashes.
    pub(crate) path: String,
    /// Its whole text.
    pub(crate) text: String,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
}

/// The repository as the rules see it.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// Folders that hold what tools make.
const MADE: [&str; 6] = [
    ".git",
    "target",
    "corpus",
    "artifacts",
    "coverage",
    "node_modules",
];

impl Tree {
    /// The repository this test was built from.
    pub(crate) fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("tests/ has a parent");
        let mut files = Vec::new();
        walk(root, root, &mut files);
        assert!(files.len() > 20, "no repository at {}", root.display());
        Self { files }
    }

    /// A tree made up by a test.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| File {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
                executable: true,
            })
            .collect();
        Self { files }
    }

    /// The text of one file, or nothing.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map_or("", |file| &file.text)
    }

    /// Every Rust file.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .expect("the repository is readable")
        .flatten()
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let Ok(facts) = entry.metadata() else {
            continue;
        };
        // In a second work tree `.git` is a file.
        if MADE.contains(&name.as_str()) {
            continue;
        }
        if facts.is_dir() {
            walk(root, &path, files);
            continue;
        }
        // Seeds of the fuzz targets and the like are no text.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let relative = path.strip_prefix(root).expect("below the root");
        use std::os::unix::fs::PermissionsExt;
        files.push(File {
            path: relative.to_string_lossy().into_owned(),
            text,
            executable: facts.permissions().mode() & 0o100 != 0,
        });
    }
}

/// The lines of a Rust file before its unit tests, with their numbers from 1.
pub(crate) fn program_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line))
        .take_while(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with("#[cfg(test)]") && !line.starts_with("#[test]")
        })
}
