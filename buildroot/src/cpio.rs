//! Newc archives, the format of an initramfs (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! What the kernel unpacks is a sequence of archives, each of which must start at a multiple of 4 bytes. Boot loaders
//! that load several files put them one behind the other *without* padding, so every archive made here has a length
//! divisible by 4, and [`pad`] gives a compressed one the same property.
//!
//! The bytes depend on what was added and on nothing else: times are 0, the owner is root, inode numbers count from 1.

use std::collections::BTreeMap;

use thiserror::Error;

/// Boot loaders concatenate archives; the kernel finds the next one only at a multiple of this many bytes.
pub const ALIGNMENT: usize = 4;

const MAGIC: &[u8; 6] = b"070701";
const TRAILER: &str = "TRAILER!!!";
const HEADER_BYTES: usize = 110;
/// The kernel's `PATH_MAX`, the terminating zero included.
const PATH_BYTES_MAX: usize = 4096;

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_CHARACTER: u32 = 0o020_000;

/// Why an archive cannot be written or read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CpioError {
    /// The path is empty, absolute, too long, contains a zero byte, or has a component `.` or `..`.
    #[error("{0:?} is no path inside an archive")]
    Path(String),
    /// The path is in the archive already.
    #[error("{0:?} is in the archive twice")]
    Duplicate(String),
    /// A file does not fit the format's 32-bit length.
    #[error("{path:?} has {bytes} bytes, more than an archive can hold")]
    TooLong {
        /// Path inside the archive.
        path: String,
        /// Its size.
        bytes: usize,
    },
    /// The bytes read are no newc archive.
    #[error("no newc archive: {reason} at byte {offset}")]
    Malformed {
        /// Where reading stopped, in bytes from the start.
        offset: usize,
        /// What is wrong there.
        reason: &'static str,
    },
}

/// An archive being written. Parent directories are added by themselves.
///
/// ```
/// use netflash_appliance::Cpio;
///
/// let mut archive = Cpio::new();
/// archive.file("netflash/server", 0o644, b"10.0.0.1:8443")?;
/// assert_eq!(archive.finish().len() % 4, 0);
/// # Ok::<(), netflash_appliance::CpioError>(())
/// ```
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    /// What was added, and whether it is a directory.
    paths: BTreeMap<String, bool>,
    last_inode: u32,
}

struct Entry<'a> {
    path: &'a str,
    mode: u32,
    links: u32,
    /// Major and minor number of a device node.
    device: (u32, u32),
    content: &'a [u8],
}

impl Cpio {
    /// An archive with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with mode 0755, and those above it. One that is there already is left as it is.
    ///
    /// # Errors
    /// An impossible path, or one that leads through a file.
    pub fn directory(&mut self, path: &str) -> Result<(), CpioError> {
        check(path)?;
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let directory = &path[..end];
            match self.paths.insert(directory.to_owned(), true) {
                None => self.push(&Entry {
                    path: directory,
                    mode: TYPE_DIRECTORY | 0o755,
                    links: 2,
                    device: (0, 0),
                    content: &[],
                }),
                Some(true) => {}
                Some(false) => return Err(CpioError::Duplicate(directory.to_owned())),
            }
        }
        Ok(())
    }

    /// Adds a regular file. `mode` holds permission bits only, such as 0o755.
    ///
    /// # Errors
    /// An impossible or repeated path, or content of 4 GiB and more.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), CpioError> {
        if u32::try_from(content.len()).is_err() {
            return Err(CpioError::TooLong {
                path: path.to_owned(),
                bytes: content.len(),
            });
        }
        self.leaf(&Entry {
            path,
            mode: TYPE_REGULAR | (mode & 0o7777),
            links: 1,
            device: (0, 0),
            content,
        })
    }

    /// Adds a character device node, such as `dev/console` (5, 1).
    ///
    /// # Errors
    /// An impossible or repeated path.
    pub fn character_device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), CpioError> {
        self.leaf(&Entry {
            path,
            mode: TYPE_CHARACTER | (mode & 0o7777),
            links: 1,
            device: (major, minor),
            content: &[],
        })
    }

    /// The finished archive. Its length is a multiple of [`ALIGNMENT`].
    pub fn finish(mut self) -> Vec<u8> {
        self.last_inode = 0;
        self.header(
            &Entry {
                path: TRAILER,
                mode: 0,
                links: 1,
                device: (0, 0),
                content: &[],
            },
            0,
        );
        pad(&mut self.bytes);
        self.bytes
    }

    fn leaf(&mut self, entry: &Entry) -> Result<(), CpioError> {
        check(entry.path)?;
        if let Some((parent, _)) = entry.path.rsplit_once('/') {
            self.directory(parent)?;
        }
        if self.paths.insert(entry.path.to_owned(), false).is_some() {
            return Err(CpioError::Duplicate(entry.path.to_owned()));
        }
        self.push(entry);
        Ok(())
    }

    fn push(&mut self, entry: &Entry) {
        self.last_inode += 1;
        self.header(entry, self.last_inode);
        self.bytes.extend_from_slice(entry.content);
        pad(&mut self.bytes);
    }

    fn header(&mut self, entry: &Entry, inode: u32) {
        let content_bytes = u32::try_from(entry.content.len()).expect("checked when it was added");
        let name_bytes = u32::try_from(entry.path.len() + 1).expect("at most PATH_BYTES_MAX");
        let (owner, group, time, checksum, volume) = (0, 0, 0, 0, (0, 0));
        self.bytes.extend_from_slice(MAGIC);
        for field in [
            inode,
            entry.mode,
            owner,
            group,
            entry.links,
            time,
            content_bytes,
            volume.0,
            volume.1,
            entry.device.0,
            entry.device.1,
            name_bytes,
            checksum,
        ] {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(entry.path.as_bytes());
        self.bytes.push(0);
        pad(&mut self.bytes);
    }
}

/// Appends zeros up to a multiple of [`ALIGNMENT`] bytes. The kernel skips zeros between archives.
pub fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

/// The paths in an uncompressed archive, in order.
///
/// # Errors
/// [`CpioError::Malformed`] for anything but one whole newc archive followed by zeros.
pub fn archive_paths(bytes: &[u8]) -> Result<Vec<String>, CpioError> {
    let mut paths = Vec::new();
    let mut offset = 0;
    loop {
        let malformed = |reason| CpioError::Malformed { offset, reason };
        let header = bytes
            .get(offset..)
            .and_then(|rest| rest.get(..HEADER_BYTES))
            .ok_or(malformed("cut off"))?;
        if !header.starts_with(MAGIC) {
            return Err(malformed("wrong magic number"));
        }
        let field = |index: usize| {
            std::str::from_utf8(&header[6 + 8 * index..][..8])
                .ok()
                .and_then(|digits| usize::from_str_radix(digits, 16).ok())
                .ok_or(malformed("a field that is no number"))
        };
        let (content_bytes, name_bytes) = (field(6)?, field(11)?);
        let name_start = offset + HEADER_BYTES;
        let name = bytes
            .get(name_start..name_start + name_bytes)
            .ok_or(malformed("name cut off"))?;
        let name = name
            .strip_suffix(&[0])
            .ok_or(malformed("name without end"))?;
        let name = std::str::from_utf8(name).map_err(|_| malformed("name is no text"))?;
        let content_start = (name_start + name_bytes).next_multiple_of(ALIGNMENT);
        let next = (content_start + content_bytes).next_multiple_of(ALIGNMENT);
        if name == TRAILER {
            let rest = bytes.get(content_start..).unwrap_or_default();
            return if rest.iter().all(|byte| *byte == 0) {
                Ok(paths)
            } else {
                Err(malformed("bytes after the end"))
            };
        }
        if next > bytes.len() {
            return Err(malformed("content cut off"));
        }
        paths.push(name.to_owned());
        offset = next;
    }
}

fn check(path: &str) -> Result<(), CpioError> {
    let fits = path.len() < PATH_BYTES_MAX && !path.contains('\0') && path != TRAILER;
    if fits && path.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        Ok(())
    } else {
        Err(CpioError::Path(path.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn listed_by_cpio(archive: &[u8]) -> String {
        let mut child = Command::new("cpio")
            .args(["-itv", "--quiet", "--numeric-uid-gid"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program cpio is needed: run ./scripts/setup");
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn cpio_reads_what_we_write() {
        let mut archive = Cpio::new();
        archive
            .character_device("dev/console", 0o600, 5, 1)
            .unwrap();
        archive.file("init", 0o755, b"#!").unwrap();
        archive.file("netflash/ca.pem", 0o644, &[7; 4097]).unwrap();
        let listing = listed_by_cpio(&archive.finish());
        let lines: Vec<Vec<&str>> = listing
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let names: Vec<&str> = lines.iter().map(|words| *words.last().unwrap()).collect();
        assert_eq!(
            names,
            ["dev", "dev/console", "init", "netflash", "netflash/ca.pem"]
        );
        assert_eq!(lines[1][..6], ["crw-------", "1", "0", "0", "5,", "1"]);
        assert_eq!(lines[2][..5], ["-rwxr-xr-x", "1", "0", "0", "2"]);
        assert_eq!(lines[4][..5], ["-rw-r--r--", "1", "0", "0", "4097"]);
    }

    #[test]
    fn impossible_paths_are_refused() {
        let long = "x".repeat(PATH_BYTES_MAX);
        for path in [
            "", "/init", "a//b", "a/", "../a", "a/./b", "a\0b", TRAILER, &long,
        ] {
            assert_eq!(
                Cpio::new().file(path, 0o644, b""),
                Err(CpioError::Path(path.to_owned()))
            );
        }
    }

    #[test]
    fn a_path_stands_in_the_archive_once() {
        let mut archive = Cpio::new();
        archive.file("a/b", 0o644, b"1").unwrap();
        archive.directory("a").unwrap();
        assert_eq!(
            archive.file("a/b/c", 0o644, b""),
            Err(CpioError::Duplicate("a/b".to_owned()))
        );
        assert_eq!(
            archive.file("a/b", 0o644, b"2"),
            Err(CpioError::Duplicate("a/b".to_owned()))
        );
        assert_eq!(archive_paths(&archive.finish()).unwrap(), ["a", "a/b"]);
    }

    #[test]
    fn bytes_after_the_end_are_no_archive() {
        let mut bytes = Cpio::new().finish();
        bytes.extend([0; 8]);
        assert_eq!(archive_paths(&bytes), Ok(Vec::new()));
        bytes.push(1);
        assert!(archive_paths(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn every_archive_is_aligned_and_reads_back(files in prop::collection::btree_map("([A-Z]{1,3}/){0,2}[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..99), 0..9)) {
            let mut archive = Cpio::new();
            for (path, content) in &files {
                archive.file(path, 0o644, content).unwrap();
            }
            let bytes = archive.finish();
            prop_assert_eq!(bytes.len() % ALIGNMENT, 0);
            let paths = archive_paths(&bytes).unwrap();
            prop_assert!(files.keys().all(|path| paths.contains(path)));
        }

        #[test]
        fn hostile_bytes_are_an_error_not_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
            if magic && bytes.len() >= HEADER_BYTES {
                bytes[..HEADER_BYTES].fill(b'f');
                bytes[..6].copy_from_slice(MAGIC);
            }
            let _ = archive_paths(&bytes);
        }
    }
}
