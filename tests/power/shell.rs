//! SSH against Debian's own server, behind which a script plays the operating system.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::{sh, wait_until};

use crate::desk::Desk;

/// How long sshd may take until it listens.
const STARTS: Duration = Duration::from_secs(20);

/// A host with sshd, which a script can take away and bring back.
struct Host {
    directory: PathBuf,
    port: u16,
}

impl Host {
    fn start(directory: &Path) -> Result<Host> {
        fs::create_dir_all(directory)?;
        // Where sshd keeps nothing, and wants to find it.
        fs::create_dir_all("/run/sshd").context("needs root: sudo ./scripts/test")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = directory.display();
        for name in ["host", "user", "other"] {
            keygen(directory, name)?;
        }
        let public = |name: &str| fs::read_to_string(directory.join(format!("{name}.pub")));
        fs::write(directory.join("authorized"), public("user")?)?;
        let known = |key: String| format!("[127.0.0.1]:{port} {key}");
        fs::write(directory.join("known"), known(public("host")?))?;
        fs::write(directory.join("known-other"), known(public("other")?))?;
        fs::write(directory.join("boot"), "first\n")?;
        fs::write(directory.join("sshd.conf"), config(directory, port))?;
        let system = directory.join("system");
        fs::write(&system, script(directory))?;
        fs::set_permissions(&system, fs::Permissions::from_mode(0o755))?;
        let host = Host {
            directory: directory.to_owned(),
            port,
        };
        sh(&format!("/usr/sbin/sshd -f {at}/sshd.conf"))?;
        wait_until("sshd to listen", STARTS, || Ok(host.pid().is_some()))?;
        Ok(host)
    }

    fn pid(&self) -> Option<String> {
        let pid = fs::read_to_string(self.directory.join("sshd.pid")).ok()?;
        Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty())
    }

    fn heard(&self) -> String {
        fs::read_to_string(self.directory.join("heard")).unwrap_or_default()
    }

    fn profile(&self, name: &str, key: &str, known: &str) -> String {
        let at = self.directory.display();
        format!(
            "[power.{name}]\ndriver = \"ssh\"\nkey = \"{at}/{key}\"\nknown_hosts = \"{at}/{known}\"\ndeadline_seconds = 30\n"
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = sh(&format!("kill {pid}"));
        }
    }
}

fn keygen(directory: &Path, name: &str) -> Result<()> {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(directory.join(name))
        .output()
        .context("starting ssh-keygen: run ./scripts/setup")?;
    ensure!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(())
}

fn config(directory: &Path, port: u16) -> String {
    let at = directory.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {at}/host\nPidFile {at}/sshd.pid\n\
         AuthorizedKeysFile {at}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nForceCommand {at}/system\n"
    )
}

/// Plays the operating system: it knows three commands.
fn script(directory: &Path) -> String {
    let at = directory.display();
    format!(
        "#!/bin/sh\n\
         echo \"$SSH_ORIGINAL_COMMAND\" >> {at}/heard\n\
         case \"$SSH_ORIGINAL_COMMAND\" in\n\
         'cat /proc/sys/kernel/random/boot_id') cat {at}/boot ;;\n\
         'systemctl --no-block poweroff') kill $(cat {at}/sshd.pid) ;;\n\
         'systemctl --no-block reboot')\n\
           kill $(cat {at}/sshd.pid)\n\
           (sleep 1; echo second > {at}/boot; /usr/sbin/sshd -f {at}/sshd.conf) > /dev/null 2>&1 & ;;\n\
         *) exit 9 ;;\n\
         esac\n"
    )
}

#[test]
fn an_operating_system_restarts_and_switches_off_by_a_key() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let host = Host::start(scratch.path())?;
    let desk = Desk::open(&host.profile("os", "user", "known"))?;
    desk.add("a", 1, &[&format!("os:127.0.0.1:{}", host.port)])?;
    assert_eq!(desk.power(&["status", "a"])?["state"], "on");
    let reset = desk.power(&["reset", "a"])?;
    assert_eq!(reset["state"], "on", "{reset}");
    assert_eq!(
        fs::read_to_string(scratch.path().join("boot"))?,
        "second\n",
        "it waited for that"
    );
    let cycle = desk.power(&["cycle", "a"])?;
    assert_eq!(
        cycle["failure"], "unsupported",
        "it could not be switched on again: {cycle}"
    );
    let off = desk.power(&["off", "a"])?;
    assert_eq!(off["state"], "off", "{off}");
    assert_eq!(
        desk.power(&["status", "a"])?["failure"],
        "unreachable",
        "silence is not off"
    );
    assert_eq!(desk.power(&["on", "a"])?["failure"], "unreachable");
    assert!(host.heard().contains("poweroff") && !host.heard().contains("true"));
    Ok(())
}

#[test]
fn a_foreign_key_and_a_foreign_host_have_their_words() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let host = Host::start(scratch.path())?;
    let profiles = [
        host.profile("key", "other", "known"),
        host.profile("host", "user", "known-other"),
        host.profile("good", "user", "known"),
    ];
    let desk = Desk::open(&profiles.concat())?;
    for (number, name) in ["key", "host", "good"].into_iter().enumerate() {
        desk.add(
            name,
            number as u8,
            &[&format!("{name}:127.0.0.1:{}", host.port)],
        )?;
    }
    assert_eq!(desk.power(&["off", "key"])?["failure"], "wrong-password");
    assert_eq!(desk.power(&["off", "host"])?["failure"], "tls-mismatch");
    assert_eq!(host.heard(), "", "nothing was asked of a stranger");
    assert_eq!(desk.power(&["status", "good"])?["state"], "on");
    Ok(())
}
