//! DHCP on an isolated network: a dnsmasq that lives and dies with the server.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::config::DhcpConfig;
use crate::data_dir::DataDir;
use crate::sys::die_with_us;

/// How often the child is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Pause before a dead child is started again.
const RESTART: Duration = Duration::from_secs(2);
/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(3);

/// How dnsmasq ends when it cannot have a port or an interface, by its manual.
const NETWORK_TROUBLE: i32 = 2;
/// What that usually means.
const NETWORK_HINT: &str = "UDP port 67 is taken, or the interface is not there; beside \
    another DHCP server on this host set dhcp.mode = \"proxy\"";

/// A running dnsmasq. It ends when this is dropped.
pub(super) struct Dnsmasq {
    stop: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Dnsmasq {
    /// Write its configuration, prepare its TFTP directory and start it. `http` is where iPXE goes on.
    pub(super) fn start(
        dir: &DataDir,
        dhcp: &DhcpConfig,
        http: SocketAddrV4,
    ) -> anyhow::Result<Dnsmasq> {
        let text = configuration(dir, dhcp, http);
        dir.write("dnsmasq.conf", 0o644, text.as_bytes())?;
        let path = dir.path("dnsmasq.conf");
        let first = spawn(&path)?;
        let stop = Arc::new(AtomicBool::new(false));
        let keeper = {
            let stop = Arc::clone(&stop);
            thread::Builder::new()
                .name("dnsmasq".to_owned())
                .spawn(move || keep(first, &path, &stop))
                .context("starting a thread")?
        };
        log::info!(
            "dnsmasq interface={} mode={:?} range={:?} state=started",
            dhcp.interface,
            dhcp.mode,
            dhcp.range
        );
        Ok(Dnsmasq {
            stop,
            keeper: Some(keeper),
        })
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            // Its thread cannot panic in a way that leaves the child: the child also ends when we do.
            let _ = keeper.join();
        }
    }
}

fn spawn(conf: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new("dnsmasq");
    command
        .arg("--keep-in-foreground")
        .arg(format!("--conf-file={}", conf.display()))
        .stdin(Stdio::null());
    die_with_us(&mut command);
    command
        .spawn()
        .context("starting dnsmasq; it is in the package dnsmasq-base")
}

/// Watch the child, start it again when it dies, end it when told.
fn keep(first: Child, conf: &Path, stop: &AtomicBool) {
    let mut child = Some(first);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let died = match &mut child {
            Some(running) => match running.try_wait() {
                Ok(None) => continue,
                Ok(Some(status)) if status.code() == Some(NETWORK_TROUBLE) => {
                    NETWORK_HINT.to_owned()
                }
                Ok(Some(status)) => status.to_string(),
                Err(error) => error.to_string(),
            },
            None => "not started".to_owned(),
        };
        log::warn!("dnsmasq state=dead status={died:?}; it is started again");
        child = None;
        thread::sleep(RESTART);
        if !stop.load(Ordering::Relaxed) {
            match spawn(conf) {
                Ok(again) => child = Some(again),
                Err(error) => log::error!("dnsmasq {error:#}"),
            }
        }
    }
    if let Some(mut child) = child {
        end(&mut child);
    }
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    for _ in 0..FAREWELL.as_millis() / LOOK.as_millis() {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn configuration(dir: &DataDir, dhcp: &DhcpConfig, http: SocketAddrV4) -> String {
    let mut lines = vec![
        "# Written by netflash serve at each start.".to_owned(),
        "port=0".to_owned(),
        "log-facility=-".to_owned(),
        format!("interface={}", dhcp.interface),
        "bind-interfaces".to_owned(),
    ];
    if let Some(range) = dhcp.range {
        lines.extend(own_dhcp(dir, dhcp, range, http));
    }
    if log::log_enabled!(log::Level::Debug) {
        lines.push("log-dhcp".to_owned());
    }
    if geteuid().is_root() {
        // Another user could not enter a private data directory, where leases and boot files are.
        lines.push("user=root".to_owned());
        lines.push("group=root".to_owned());
    }
    lines.join("\n") + "\n"
}

/// Addresses, and a boot file for each kind of client.
fn own_dhcp(
    dir: &DataDir,
    dhcp: &DhcpConfig,
    [first, last]: [Ipv4Addr; 2],
    http: SocketAddrV4,
) -> Vec<String> {
    let tftp = http.ip();
    let DhcpConfig {
        netmask,
        uefi_loader,
        bios_loader,
        ..
    } = dhcp;
    let mut lines = vec![
        "dhcp-authoritative".to_owned(),
        format!("dhcp-range={first},{last},{netmask},1h"),
        format!("dhcp-leasefile={}", dir.path("dnsmasq.leases").display()),
        // The address was never used on an isolated network; asking for it first costs three seconds a boot.
        "no-ping".to_owned(),
        // Without router advertisements iPXE waits 15 s and more for IPv6.
        "enable-ra".to_owned(),
        "dhcp-range=fd6e:6674::,ra-only,64".to_owned(),
        // A client that is iPXE already must not load iPXE again.
        "dhcp-match=set:ipxe,175".to_owned(),
        "dhcp-userclass=set:ipxe,iPXE".to_owned(),
        "dhcp-match=set:efi,option:client-arch,7".to_owned(),
        "dhcp-match=set:efi,option:client-arch,9".to_owned(),
        "dhcp-match=set:http,option:client-arch,16".to_owned(),
        format!("dhcp-boot=tag:ipxe,http://{http}/boot/start.ipxe"),
        format!("dhcp-boot=tag:!ipxe,tag:efi,{uefi_loader},,{tftp}"),
        format!("dhcp-boot=tag:!ipxe,tag:!efi,tag:!http,{bios_loader},,{tftp}"),
    ];
    if dhcp.http_boot {
        lines.push("dhcp-option-force=tag:!ipxe,tag:http,60,HTTPClient".to_owned());
        lines.push(format!(
            "dhcp-boot=tag:!ipxe,tag:http,http://{http}/boot/{uefi_loader}"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::configuration;
    use crate::config::DhcpConfig;
    use crate::data_dir::DataDir;

    fn written(settings: &str) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let dir = DataDir::open(scratch.path()).unwrap();
        let dhcp: DhcpConfig = toml::from_str(settings).unwrap();
        configuration(&dir, &dhcp, "10.77.0.1:8080".parse().unwrap())
    }

    #[test]
    fn ipxe_is_never_sent_to_ipxe_again() {
        let text =
            written("interface = 'lab0'\nrange = ['10.77.0.50', '10.77.0.60']\nhttp_boot = true");
        let boots = || text.lines().filter(|line| line.starts_with("dhcp-boot="));
        assert!(boots().count() >= 4, "{text}");
        for line in boots() {
            assert!(
                line.contains("tag:!ipxe") || line.ends_with("start.ipxe"),
                "{line}"
            );
        }
    }
}
