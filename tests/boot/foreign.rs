//! DHCP servers of others, in a namespace of their own or in that of our server.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use tests::lab::{sh, wait_until};

use crate::stage::{Stage, text};

/// The server answers within this time.
const STARTS: Duration = Duration::from_secs(20);

/// ISC dhcpd.
pub(crate) struct Dhcpd {
    log: PathBuf,
    process: Child,
}

impl Dhcpd {
    /// Starts one at 10.77.0.2, in the new namespace `foreign`. `subnet` and `global` are added to its configuration.
    pub(crate) fn elsewhere(stage: &Stage, subnet: &str, global: &str) -> Result<Dhcpd> {
        host("foreign", Some("10.77.0.2/24"))?;
        Dhcpd::start(stage, "foreign", subnet, global)
    }

    /// Starts one in a namespace that is there.
    pub(crate) fn start(
        stage: &Stage,
        namespace: &str,
        subnet: &str,
        global: &str,
    ) -> Result<Dhcpd> {
        let (conf, leases) = (stage.path("dhcpd.conf"), stage.path("dhcpd.leases"));
        let log = stage.path("dhcpd.log");
        fs::write(&conf, configuration(subnet) + global)?;
        fs::write(&leases, "")?;
        let said = fs::File::create(&log)?;
        let process = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(["setpriv", "--pdeathsig", "KILL"])
            .args(["dhcpd", "-d", "-4", "--no-pid", "-cf"])
            .arg(&conf)
            .arg("-lf")
            .arg(&leases)
            .arg("eth0")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("starting dhcpd (package isc-dhcp-server)")?;
        let mut dhcpd = Dhcpd { log, process };
        wait_until("dhcpd to listen", STARTS, || {
            anyhow::ensure!(
                dhcpd.process.try_wait()?.is_none(),
                "dhcpd ended: {}",
                dhcpd.said()
            );
            Ok(dhcpd.said().contains("Server starting service"))
        })?;
        Ok(dhcpd)
    }

    /// What it wrote so far.
    pub(crate) fn said(&self) -> String {
        text(&self.log)
    }
}

impl Drop for Dhcpd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A configuration of dhcpd for the room's network; `subnet` is added to that.
pub(crate) fn configuration(subnet: &str) -> String {
    format!(
        "authoritative;\ndefault-lease-time 600;\nmax-lease-time 600;\nping-check false;\n\
         subnet 10.77.0.0 netmask 255.255.255.0 {{\n  range 10.77.0.160 10.77.0.200;\n{subnet}}}\n"
    )
}

/// A namespace with a card `eth0` at the room's bridge.
pub(crate) fn host(name: &str, address: Option<&str>) -> Result<()> {
    sh(&format!("ip netns add {name}"))?;
    sh(&format!(
        "ip link add p-{name} type veth peer name eth0 netns {name}"
    ))?;
    sh(&format!("ip link set p-{name} master br0 up"))?;
    sh(&format!("ip -n {name} link set lo up"))?;
    sh(&format!("ip -n {name} link set eth0 up"))?;
    if let Some(address) = address {
        sh(&format!("ip -n {name} addr add {address} brd + dev eth0"))?;
    }
    Ok(())
}

/// The hardware address of the card of a namespace.
pub(crate) fn mac_of(namespace: &str) -> Result<String> {
    let mac = sh(&format!(
        "ip netns exec {namespace} cat /sys/class/net/eth0/address"
    ))?;
    Ok(mac.trim().to_owned())
}

/// An address for a machine that is up: what busybox's client is told.
pub(crate) fn lease(namespace: &str) -> Result<String> {
    let asked = Command::new("ip")
        .args(["netns", "exec", namespace, "busybox", "udhcpc"])
        .args(["-i", "eth0", "-f", "-q", "-n", "-s", "/bin/true"])
        .output()
        .context("starting busybox (package busybox-static)")?;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    anyhow::ensure!(asked.status.success(), "udhcpc: {said}");
    let obtained = said.lines().find(|line| line.contains("obtained"));
    let obtained = obtained.with_context(|| said.clone())?;
    // What is left of it differs from second to second.
    let told = obtained.split(", lease time").next();
    Ok(told.unwrap_or(obtained).to_owned())
}

/// A dnsmasq in a namespace, which does nothing yet but what it is told. It ends with the test.
pub(crate) fn dnsmasq_in(namespace: &str) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL"])
        .args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"])
        .args(["--user=root", "--port=0", "--log-facility=-"]);
    command
}
