//! The pseudo file systems without which nothing can be seen.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// What is mounted where, in order.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", "mode=0755"),
    ("tmpfs", "/run", "mode=0755,size=16m"),
];

/// Mounts everything of the table; what is already there is left alone.
///
/// Returns the failures in words, since nobody can be told yet: consoles live in `/dev`.
pub(crate) fn mount_all() -> Vec<String> {
    let mut failures = Vec::new();
    for &(kind, target, options) in MOUNTS {
        // An initramfs without the directory is fine: it is made here.
        if !Path::new(target).is_dir()
            && let Err(error) = fs::create_dir_all(target)
        {
            failures.push(format!("creating {target}: {error}"));
            continue;
        }
        let flags = MsFlags::MS_NOSUID;
        match mount(Some(kind), target, Some(kind), flags, Some(options)) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => failures.push(format!("mounting {kind} on {target}: {error}")),
        }
    }
    failures
}
