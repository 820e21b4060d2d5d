//! SSH against Debian's own server, behind which a script plays the operating system.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::{sh, wait_until};

use crate::desk::Desk;

/// How long sshd may take until it listens.
const STARTS: Duration = Duration::from_secs(20);

/// A host with sshd, which a script can take away and bring back.
pub(crate) struct Host {
    directory: PathBuf,
    address: SocketAddr,
}

impl Host {
    /// A host at an address of this machine. `act` is what it does: cases of a shell's `case` over what is asked.
    pub(crate) fn start(directory: &Path, address: &str, act: &str) -> Result<Host> {
        fs::create_dir_all(directory)?;
        // Where sshd keeps nothing, and wants to find it.
        fs::create_dir_all("/run/sshd").context("needs root: sudo ./scripts/test")?;
        let address = TcpListener::bind((address, 0))?.local_addr()?;
        let at = directory.display();
        for name in ["host", "user", "other"] {
            keygen(directory, name)?;
        }
        let public = |name: &str| fs::read_to_string(directory.join(format!("{name}.pub")));
        fs::write(directory.join("authorized"), public("user")?)?;
        let known = |key: String| format!("[{}]:{} {key}", address.ip(), address.port());
        fs::write(directory.join("known"), known(public("host")?))?;
        fs::write(directory.join("known-other"), known(public("other")?))?;
        fs::write(directory.join("boot"), "first\n")?;
        fs::write(directory.join("sshd.conf"), config(directory, address))?;
        let system = directory.join("system");
        fs::write(&system, script(directory, act))?;
        fs::set_permissions(&system, fs::Permissions::from_mode(0o755))?;
        let host = Host {
            directory: directory.to_owned(),
            address,
        };
        sh(&format!("/usr/sbin/sshd -f {at}/sshd.conf"))?;
        wait_until("sshd to listen", STARTS, || Ok(host.pid().is_some()))?;
        Ok(host)
    }

    fn pid(&self) -> Option<String> {
        let pid = fs::read_to_string(self.directory.join("sshd.pid")).ok()?;
        Some(pid.trim().to_owned()).filter(|pid| !pid.is_empty())
    }

    /// Ends sshd: nothing listens until it is started again.
    pub(crate) fn end(&self) -> Result<()> {
        let pid = self.pid().context("sshd is gone already")?;
        sh(&format!("kill {pid}"))?;
        wait_until("sshd to end", STARTS, || Ok(self.pid().is_none()))
    }

    fn heard(&self) -> String {
        fs::read_to_string(self.directory.join("heard")).unwrap_or_default()
    }

    /// Its power setting under a profile.
    pub(crate) fn power(&self, profile: &str) -> String {
        format!("{profile}:{}", self.address)
    }

    pub(crate) fn profile(&self, name: &str, key: &str, known: &str) -> String {
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

/// A key pair without a passphrase: NAME and NAME.pub.
pub(crate) fn keygen(directory: &Path, name: &str) -> Result<()> {
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

fn config(directory: &Path, address: SocketAddr) -> String {
    let (at, ip, port) = (directory.display(), address.ip(), address.port());
    format!(
        "ListenAddress {ip}\nPort {port}\nHostKey {at}/host\nPidFile {at}/sshd.pid\n\
         AuthorizedKeysFile {at}/authorized\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nForceCommand {at}/system\n"
    )
}

/// Plays the operating system: it knows three commands. `$at` is its directory.
const PLAY: &str = "\
'cat /proc/sys/kernel/random/boot_id') cat $at/boot ;;
'systemctl --no-block poweroff') kill $(cat $at/sshd.pid) ;;
'systemctl --no-block reboot')
  kill $(cat $at/sshd.pid)
  (sleep 1; echo second > $at/boot; /usr/sbin/sshd -f $at/sshd.conf) > /dev/null 2>&1 & ;;";

fn script(directory: &Path, act: &str) -> String {
    let at = directory.display();
    format!(
        "#!/bin/sh\nat={at}\necho \"$SSH_ORIGINAL_COMMAND\" >> $at/heard\n\
         case \"$SSH_ORIGINAL_COMMAND\" in\n{act}\n*) exit 9 ;;\nesac\n"
    )
}

#[test]
fn an_operating_system_restarts_and_switches_off_by_a_key() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let host = Host::start(scratch.path(), "127.0.0.1", PLAY)?;
    let desk = Desk::open(&host.profile("os", "user", "known"))?;
    desk.add("a", 1, &[&host.power("os")])?;
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
fn what_is_no_ssh_has_its_word_and_the_neighbour_is_unharmed() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let host = Host::start(scratch.path(), "127.0.0.1", PLAY)?;
    let desk = Desk::open(&host.profile("os", "user", "known"))?;
    // Takes connections and says nothing; says something else; is not there.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let other = TcpListener::bind("127.0.0.1:0")?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let (silent_at, other_at) = (silent.local_addr()?, other.local_addr()?);
    thread::spawn(move || {
        for stream in other.incoming().flatten() {
            // The client may hang up first.
            let _ = (&stream).write_all(b"SSH-1.0-old\r\n");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = std::io::copy(&mut &stream, &mut std::io::sink());
        }
    });
    desk.add("good", 1, &[&host.power("os")])?;
    for (number, (name, place)) in (2..).zip([
        ("silent", silent_at),
        ("other", other_at),
        ("closed", closed),
    ]) {
        desk.add(name, number, &[&format!("os:{place}")])?;
    }
    let words = desk.words("status")?;
    for (name, expected) in [
        ("good", "on"),
        ("silent", "timed-out"),
        ("other", "garbage"),
        ("closed", "unreachable"),
    ] {
        assert_eq!(words[name], expected, "{name}");
    }
    drop(silent);
    Ok(())
}

#[test]
fn a_foreign_key_and_a_foreign_host_have_their_words() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let host = Host::start(scratch.path(), "127.0.0.1", PLAY)?;
    let profiles = [
        host.profile("key", "other", "known"),
        host.profile("host", "user", "known-other"),
        host.profile("good", "user", "known"),
    ];
    let desk = Desk::open(&profiles.concat())?;
    for (number, name) in ["key", "host", "good"].into_iter().enumerate() {
        desk.add(name, number as u8, &[&host.power(name)])?;
    }
    assert_eq!(desk.power(&["off", "key"])?["failure"], "wrong-password");
    assert_eq!(desk.power(&["off", "host"])?["failure"], "tls-mismatch");
    assert_eq!(host.heard(), "", "nothing was asked of a stranger");
    assert_eq!(desk.power(&["status", "good"])?["state"], "on");
    Ok(())
}
