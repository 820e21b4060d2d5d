//! Somebody else's DHCP server: busybox' `udhcpd`, whose leases may be as short as one likes.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

/// A running DHCP server. It ends with this value, and answers nobody any more.
pub(crate) struct Lender {
    process: Child,
}

/// What it lends.
pub(crate) struct Terms<'a> {
    /// The namespace it runs in, and its card there.
    pub(crate) place: (&'a str, &'a str),
    /// First and last address.
    pub(crate) range: (&'a str, &'a str),
    /// How long.
    pub(crate) seconds: u32,
    /// More lines of its configuration.
    pub(crate) more: &'a str,
}

impl Lender {
    /// Starts it; its files are in `directory`.
    pub(crate) fn start(directory: &Path, terms: &Terms<'_>) -> Result<Lender> {
        let (namespace, card) = terms.place;
        let (first, last) = terms.range;
        let file = |ending: &str| directory.join(format!("lender-{namespace}.{ending}"));
        fs::write(file("leases"), "").context("making room for leases")?;
        fs::write(
            file("conf"),
            format!(
                "start {first}\nend {last}\ninterface {card}\nlease_file {}\npidfile {}\n\
                 min_lease 10\noption lease {}\noption subnet 255.255.255.0\n{}\n",
                file("leases").display(),
                file("pid").display(),
                terms.seconds,
                terms.more
            ),
        )
        .context("writing the lender's configuration")?;
        let log = fs::File::create(file("log")).context("creating the lender's log")?;
        let process = Command::new("ip")
            .args(["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL"])
            .args(["busybox", "udhcpd", "-f"])
            .arg(file("conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the lender's log")?)
            .stderr(log)
            .spawn()
            .context("starting udhcpd (package busybox-static)")?;
        Ok(Lender { process })
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
