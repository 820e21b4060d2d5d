//! The directory a server lives in: configuration, keys, database.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirError {
    /// A file of it.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another server runs on it.
    #[error("{0} is in use by another netflash serve")]
    InUse(PathBuf),
}

/// Where a running server is found; in `serve.json` while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// TLS address.
    pub(crate) https: SocketAddr,
    /// Plain HTTP address.
    pub(crate) http: SocketAddr,
    /// Process id.
    pub(crate) pid: u32,
}

/// A server's directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// The directory at `path`, made when it does not exist.
    pub(crate) fn open(path: &Path) -> Result<DataDir, DirError> {
        fs::create_dir_all(path).map_err(|source| file_error("making", path, source))?;
        let path = path
            .canonicalize()
            .map_err(|source| file_error("finding", path, source))?;
        Ok(DataDir(path))
    }

    /// A file or directory inside.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("netflash.toml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path("netflash.db")
    }

    pub(crate) fn running(&self) -> PathBuf {
        self.path("serve.json")
    }

    /// Hold the directory against a second server, for as long as the result lives.
    pub(crate) fn lock(&self) -> Result<Flock<File>, DirError> {
        let path = self.path("serve.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| file_error("opening", &path, source))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| DirError::InUse(self.0.clone()))
    }

    /// Write a file whole or not at all. `mode` holds its permissions from the first byte on.
    pub(crate) fn write(&self, name: &str, mode: u32, content: &[u8]) -> Result<(), DirError> {
        let path = self.path(name);
        let fresh = self.path(format!(".{name}.new"));
        let attempt = || -> io::Result<()> {
            match fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&fresh)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        attempt().map_err(|source| file_error("writing", &path, source))
    }

    /// The text of a file, or `None` when there is no such file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<String>, DirError> {
        let path = self.path(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(file_error("reading", &path, source)),
        }
    }
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> DirError {
    DirError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::DataDir;

    #[test]
    fn a_second_server_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let held = dir.lock().unwrap();
        assert!(dir.lock().is_err());
        drop(held);
        assert!(dir.lock().is_ok());
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        dir.write("key", 0o600, b"secret").unwrap();
        dir.write("key", 0o600, b"other").unwrap();
        let mode = dir.path("key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(dir.read("key").unwrap().as_deref(), Some("other"));
        assert_eq!(dir.read("none").unwrap(), None);
    }
}
