//! `netflash appliance kexec`

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use netflash_appliance::pad;

use super::bound::{Bound, BoundArgs};
use crate::Exit;
use crate::base64::base64;

/// Print a script that starts the agent in place of a running Linux
///
/// For machines whose network boot does not work, over SSH. The script is all
/// that is needed: kernel and agent are in it, and no token. It needs root and
/// kexec-tools on the machine, and writes nothing to its disks. A machine with
/// Secure Boot takes the kernel only if it believes its signature.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  netflash appliance kexec | ssh root@lab1 sh")]
pub(super) struct KexecArgs {
    /// Write the script to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    bound: BoundArgs,
}

pub(super) fn run(args: &KexecArgs, dir: &Path) -> anyhow::Result<Exit> {
    let script = script(&args.bound.read(dir)?)?;
    match &args.out {
        Some(path) => {
            fs::write(path, script).with_context(|| format!("writing {}", path.display()))?;
        }
        None => {
            let mut out = io::stdout().lock();
            if out.is_terminal() {
                bail!("the script is megabytes long: pipe it to ssh, or give --out FILE");
            }
            out.write_all(script.as_bytes()).context("writing")?;
        }
    }
    Ok(Exit::Done)
}

/// The script: both files as base64, then what to do with them.
fn script(bound: &Bound) -> anyhow::Result<String> {
    // One quoted word of the shell: parameters with quotes are nobody's.
    ensure!(
        !bound.command_line.contains(['\'', '\n']),
        "the kernel parameters hold a quote"
    );
    let file = |name: &str| {
        let path = bound.appliance.join(name);
        fs::read(&path).with_context(|| {
            format!(
                "reading {}; netflash appliance build makes it",
                path.display()
            )
        })
    };
    let kernel = file("vmlinuz")?;
    let mut initrd = file("initramfs.img")?;
    pad(&mut initrd);
    initrd.extend(&bound.trust);
    Ok(format!(
        "{HEAD}unpack vmlinuz <<'END'\n{}END\nunpack initrd.img <<'END'\n{}END\nparameters='{}'\n{TAIL}",
        lines(&kernel),
        lines(&initrd),
        bound.command_line,
    ))
}

/// Everything is in a function or behind a check: a script that arrives in part does nothing.
const HEAD: &str = r#"#!/bin/sh
# netflash: starts the agent in place of the running system; written by
# netflash appliance kexec. It writes nothing to the disks of this machine.
set -eu
fail() { echo "netflash: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root"
command -v kexec >/dev/null || fail "kexec is missing: install kexec-tools"
work=$(mktemp -d "${TMPDIR:-/run}/netflash.XXXXXX") || fail "no room in ${TMPDIR:-/run}"
trap 'rm -rf "$work"' EXIT
unpack() { base64 -d >"$work/$1" || fail "no room for $1"; }
"#;

/// What systemd ends in order is better than what is cut off: file systems are clean then, for a capture too.
const TAIL: &str = r#"load() { kexec "$@" "$work/vmlinuz" --initrd="$work/initrd.img" --command-line="$parameters"; }
# Under Secure Boot only the newer system call is allowed; older kernels know only the other one.
load --kexec-file-syscall --load 2>/dev/null || load --load || fail "this kernel does not let itself be replaced"
echo "netflash: the agent starts now"
sync
if [ -d /run/systemd/system ]; then
    systemctl kexec
else
    # The answer gets out before the network goes.
    (sleep 1; kexec --exec) >/dev/null 2>&1 </dev/null &
fi
"#;

/// The text form of a file, in lines that no tool finds too long. A line is a whole number of base64's groups.
fn lines(bytes: &[u8]) -> String {
    const LINE_BYTES: usize = 57;
    let line = |bytes: &[u8]| base64(bytes) + "\n";
    bytes.chunks(LINE_BYTES).map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Bound, lines, script};

    #[test]
    fn long_files_become_many_lines() {
        let text = lines(&[0xff; 58]);
        assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [76, 4]);
    }

    /// Runs the script with a `kexec`, an `id` and a `sync` that only say what they were told.
    #[test]
    fn the_script_hands_kernel_and_agent_to_kexec() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::write(at("vmlinuz"), b"kernel").unwrap();
        std::fs::write(at("initramfs.img"), b"agent").unwrap();
        let bound = Bound {
            appliance: scratch.path().to_owned(),
            trust: b"trust".to_vec(),
            command_line: "console=ttyS0 a=b".to_owned(),
        };
        let text = script(&bound).unwrap();
        assert!(
            Command::new("sh")
                .arg("-n")
                .arg(write(&at("s"), &text))
                .status()
                .unwrap()
                .success()
        );

        let before = text
            .split("echo \"netflash: the agent starts")
            .next()
            .unwrap();
        let said = at("said");
        let fake = format!(
            "id() {{ echo 0; }}\nkexec() {{ echo \"$@\" >>{said}; cat \"$work/vmlinuz\" \"$work/initrd.img\" >>{said}; }}\n{before}",
            said = said.display()
        );
        let status = Command::new("sh")
            .arg(write(&at("s"), &fake))
            .env("TMPDIR", scratch.path())
            .status();
        assert!(status.unwrap().success());
        let said = std::fs::read_to_string(said).unwrap();
        assert!(said.starts_with("--kexec-file-syscall --load "), "{said}");
        assert!(
            said.contains("--command-line=console=ttyS0 a=b\n"),
            "{said}"
        );
        assert!(said.ends_with("kernelagent\0\0\0trust"), "{said}");
        let left = std::fs::read_dir(scratch.path()).unwrap();
        let left = left.filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("netflash.")
        });
        assert_eq!(left.count(), 0, "its files are left behind");
    }

    fn write(path: &std::path::Path, text: &str) -> std::path::PathBuf {
        std::fs::write(path, text).unwrap();
        path.to_owned()
    }

    #[test]
    fn a_quote_cannot_end_the_parameters() {
        let bound = Bound {
            appliance: "/".into(),
            trust: Vec::new(),
            command_line: "a'; rm -rf /; '".to_owned(),
        };
        assert!(script(&bound).is_err());
    }
}
