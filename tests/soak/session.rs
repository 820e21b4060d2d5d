//! A session of the soak: what it sends, where, and under which secret.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tests::{
    lab::sh,
    net::{Payload, Program},
};

/// One image to one group.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: &'static str,
    pub(crate) payload: Payload,
    group: &'static str,
    rate: &'static str,
    key: Option<PathBuf>,
}

impl Session {
    pub(crate) fn new(
        name: &'static str,
        group: &'static str,
        mebibytes: usize,
        rate: &'static str,
        sealed: bool,
        directory: &Path,
    ) -> Result<Session> {
        let directory = directory.join(name);
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        let key = directory.join("key");
        if sealed {
            fs::write(
                &key,
                format!("the secret of the session {name}, told to nobody"),
            )?;
        }
        Ok(Session {
            name,
            payload: Payload::random(&directory, mebibytes)?,
            group,
            rate,
            key: Some(key).filter(|_| sealed),
        })
    }

    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let mut words: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
        words.extend(["--group".to_owned(), self.group.to_owned()]);
        if let Some(key) = &self.key {
            words.extend(["--key-file".to_owned(), key.display().to_string()]);
        }
        words
    }

    /// The sender; the payload flows when the first machine is ready.
    pub(crate) fn send(&self, namespace: &str) -> Result<Program> {
        let words = self.arguments(&["--receivers", "1", "--rate", self.rate]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.payload.send(namespace, &words)
    }

    pub(crate) fn receive(&self, namespace: &str, disk: &Path) -> Result<Program> {
        let words = self.arguments(&[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.payload.receive(namespace, disk, &words)
    }

    /// Datagrams that carry the payload once, about.
    pub(crate) fn symbols(&self) -> u64 {
        self.payload.bytes / 1440
    }
}

/// Lets only so many data datagrams a second reach this namespace.
pub(crate) fn starve(namespace: &str, datagrams: u64) -> Result<()> {
    let rules = format!(
        "table bridge starve_{namespace} {{\nchain forward {{\ntype filter hook forward priority -10; policy accept;\n\
         oifname \"p-{namespace}\" meta length > 1000 limit rate over {datagrams}/second drop\n}}\n}}\n"
    );
    let directory = tempfile::tempdir().context("making room for the rules")?;
    let path = directory.path().join("starve.nft");
    fs::write(&path, rules).context("writing the rules")?;
    sh(&format!("nft -f {}", path.display())).map(drop)
}

/// Takes the limit away again.
pub(crate) fn feed(namespace: &str) -> Result<()> {
    sh(&format!("nft delete table bridge starve_{namespace}")).map(drop)
}
