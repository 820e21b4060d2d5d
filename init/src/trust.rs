//! What tells this machine whom to believe: three small files beside the agent.
//!
//! `trust.img` carries the server's certificate authority and address, the third initrd file
//! the one-time token; a machine that was not booted over the network has none, and asks the
//! server for one. Boot loaders lose initrd files more often than they damage them, so a
//! missing one is named, with the file it comes in.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the files of `trust.img` and the token are unpacked.
const DIRECTORY: &str = "/netflash";
/// None of the files is larger than a certificate chain.
const FILE_MAX: u64 = 64 * 1024;

/// Whom to believe, where it is, and why it believes us.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// Certificates of the only authority, PEM.
    pub authority: Vec<u8>,
    /// The server's HTTPS address.
    pub server: SocketAddr,
    /// The one-time token, of a machine that was booted over the network.
    pub token: Option<String>,
}

/// Which file is missing or damaged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The boot loader did not pass a file on.
    #[error(
        "{path} is missing: {origin} did not arrive; check the initrd lines of the boot script"
    )]
    Missing { path: PathBuf, origin: &'static str },
    /// A file that cannot be what it should.
    #[error("{path} ({origin}) is damaged: {problem}")]
    Damaged {
        path: PathBuf,
        origin: &'static str,
        problem: String,
    },
}

impl Trust {
    /// Reads the files; `server` overrules the address, not the certificate.
    ///
    /// # Errors
    /// Names the first file that is missing or damaged.
    pub(crate) fn read(server: Option<SocketAddr>) -> Result<Trust, TrustError> {
        Trust::read_in(Path::new(DIRECTORY), server)
    }

    fn read_in(directory: &Path, server: Option<SocketAddr>) -> Result<Trust, TrustError> {
        let trust = "trust.img";
        let authority = read(&directory.join("ca.pem"), trust)?;
        let server = match server {
            Some(server) => server,
            None => {
                let path = directory.join("server");
                let text = text(&path, trust)?;
                text.parse().map_err(|_| TrustError::Damaged {
                    path,
                    origin: trust,
                    problem: format!("{:?} is no IP:PORT", netflash_pxe::plain(&text, 60)),
                })?
            }
        };
        Ok(Trust {
            authority,
            server,
            token: token(&directory.join("token"))?,
        })
    }
}

/// Removes the token from memory's file system once the server knows it: it opens nothing twice.
pub(crate) fn forget_token() {
    let _ = fs::remove_file(Path::new(DIRECTORY).join("token"));
}

fn token(path: &Path) -> Result<Option<String>, TrustError> {
    match path.exists() {
        true => Ok(Some(text(path, "token.img")?)),
        false => Ok(None),
    }
}

fn text(path: &Path, origin: &'static str) -> Result<String, TrustError> {
    let bytes = read(path, origin)?;
    match std::str::from_utf8(&bytes).map(str::trim) {
        Ok(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(TrustError::Damaged {
            path: path.to_owned(),
            origin,
            problem: "it holds no text".into(),
        }),
    }
}

fn read(path: &Path, origin: &'static str) -> Result<Vec<u8>, TrustError> {
    let missing = |_| TrustError::Missing {
        path: path.to_owned(),
        origin,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(missing)?;
    file.take(FILE_MAX)
        .read_to_end(&mut bytes)
        .map_err(missing)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in names {
            fs::write(directory.path().join(name), content).unwrap();
        }
        directory
    }

    #[test]
    fn all_three_files_make_trust() {
        let directory = files(&[
            ("ca.pem", b"pem"),
            ("server", b"10.77.0.1:8443\n"),
            ("token", b"abc\n"),
        ]);
        let trust = Trust::read_in(directory.path(), None).unwrap();
        assert_eq!(trust.server, "10.77.0.1:8443".parse().unwrap());
        assert_eq!(trust.token.as_deref(), Some("abc"));
    }

    #[test]
    fn a_missing_file_is_named_with_the_initrd_it_comes_in() {
        let directory = files(&[("token", b"abc")]);
        let error = Trust::read_in(directory.path(), None).unwrap_err();
        assert!(error.to_string().contains("trust.img did not arrive"));
    }

    #[test]
    fn the_server_may_have_an_ipv6_address() {
        let server = b"[fd77::1]:8443\n";
        let directory = files(&[("ca.pem", b"pem"), ("server", server)]);
        let trust = Trust::read_in(directory.path(), None).unwrap();
        assert_eq!(trust.server, "[fd77::1]:8443".parse().unwrap());
    }

    #[test]
    fn a_machine_from_a_stick_has_no_token() {
        let directory = files(&[("ca.pem", b"pem"), ("server", b"10.77.0.1:8443")]);
        let trust = Trust::read_in(directory.path(), None).unwrap();
        assert_eq!(trust.token, None);
    }

    #[test]
    fn damaged_files_are_errors() {
        let server: &[&[u8]] = &[
            b"",
            b"\0\xff",
            b"10.77.0.1",
            b"10.77.0.1:99999",
            b"a\x1b[2J",
        ];
        for content in server {
            let directory = files(&[("ca.pem", b"pem"), ("server", content), ("token", b"t")]);
            let error = Trust::read_in(directory.path(), None).unwrap_err();
            assert!(matches!(error, TrustError::Damaged { .. }));
        }
        let directory = files(&[
            ("ca.pem", b"pem"),
            ("server", b"10.0.0.1:1"),
            ("token", b""),
        ]);
        assert!(Trust::read_in(directory.path(), None).is_err());
    }
}
