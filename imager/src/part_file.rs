//! A file that appears under its name complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file under a provisional name beside its final one; removed on drop unless finished.
pub(crate) struct PartFile {
    file: File,
    path: PathBuf,
    finished: bool,
}

impl PartFile {
    /// Creates the provisional file for `target`. One left by a crash of this very process id is
    /// replaced; others never collide.
    pub(crate) fn create(target: &Path) -> io::Result<PartFile> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let path = directory(target).join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok(PartFile {
            file,
            path,
            finished: false,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Makes the content durable, gives it its name, and makes the name durable.
    pub(crate) fn finish(mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.finished = true;
        File::open(directory(target))?.sync_all()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.finished {
            // The error that led here is the one to report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn directory(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
