//! What gives addresses of IPv6: a dnsmasq that announces a network, and may lend addresses in it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

/// A running router of the room's server namespace. It ends with this value.
pub(crate) struct Router {
    process: Child,
}

impl Router {
    /// Machines make their addresses themselves (SLAAC).
    pub(crate) fn announce(directory: &Path, network: &str) -> Result<Router> {
        Router::start(directory, "announces", &format!("{network},ra-only,64"))
    }

    /// Machines ask for their addresses (DHCPv6); who announces says so, and offers no others.
    pub(crate) fn lend(directory: &Path, first: &str, last: &str) -> Result<Router> {
        Router::start(directory, "lends", &format!("{first},{last},64,10m"))
    }

    fn start(directory: &Path, name: &str, range: &str) -> Result<Router> {
        let file = |ending: &str| directory.join(format!("router-{name}.{ending}"));
        let log = fs::File::create(file("log")).context("creating the router's log")?;
        let process = Command::new("ip")
            .args(["netns", "exec", "server", "setpriv", "--pdeathsig", "KILL"])
            .args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"])
            .args(["--user=root", "--group=root", "--port=0", "--log-dhcp"])
            .args(["--log-facility=-", "--interface=eth0", "--bind-interfaces"])
            .args(["--enable-ra", "--ra-param=eth0,4"])
            .arg(format!("--dhcp-range={range}"))
            .arg(format!("--dhcp-leasefile={}", file("leases").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("sharing the router's log")?)
            .stderr(log)
            .spawn()
            .context("starting dnsmasq (package dnsmasq-base)")?;
        Ok(Router { process })
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended on its own.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
