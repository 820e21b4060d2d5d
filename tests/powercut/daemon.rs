//! Disks with a will of their own, by `qemu-storage-daemon`, which offers them as files through FUSE: one writes down
//! what it is told (`blklogwrites`; what the writer flushes arrives as a flush), one is broken (`blkdebug`).
//!
//! The daemon of QEMU 7.2 reads the next request into the memory of the one it is working on. It never meets two at
//! once, because the kernel splits only what is longer than 1 MiB, and nobody here writes so much.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::journal::SECTOR;

/// How long the daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A disk offered by the daemon, as long as it lives.
pub(crate) struct DaemonDisk {
    daemon: Child,
    disk: PathBuf,
    log: PathBuf,
}

impl DaemonDisk {
    /// Records the disk whose content is in the file `backing`; working files go to `dir`.
    pub(crate) fn start(backing: &Path, dir: &Path) -> DaemonDisk {
        let log = dir.join("log");
        File::create(&log).expect("a working file");
        let logfile = format!("driver=file,node-name=logfile,filename={}", log.display());
        let recorder =
            "driver=blklogwrites,node-name=top,file=backing,log=logfile,log-sector-size=512";
        DaemonDisk::offer(
            backing,
            dir,
            &["--blockdev", &logfile, "--blockdev", recorder],
        )
    }

    /// The disk in the file `backing`, which fails to write the sector at byte `offset`.
    pub(crate) fn failing(backing: &Path, dir: &Path, offset: u64) -> DaemonDisk {
        let sector = offset / SECTOR as u64;
        let fault = format!(
            "driver=blkdebug,node-name=top,image=backing,inject-error.0.event=none,inject-error.0.iotype=write,\
             inject-error.0.errno=5,inject-error.0.once=off,inject-error.0.sector={sector}"
        );
        DaemonDisk::offer(backing, dir, &["--blockdev", &fault])
    }

    /// Offers the node `top`, built on the file `backing`, as a file.
    fn offer(backing: &Path, dir: &Path, nodes: &[&str]) -> DaemonDisk {
        assert!(Path::new("/dev/fuse").exists(), "needs FUSE: modprobe fuse");
        let disk = dir.join("disk");
        File::create(&disk).expect("a working file");
        let file = format!(
            "driver=file,node-name=backing,filename={}",
            backing.display()
        );
        let mountpoint = disk.display();
        let export =
            format!("type=fuse,id=export,node-name=top,mountpoint={mountpoint},writable=on");
        let daemon = Command::new("setpriv")
            // It ends with this test, also when the test is killed.
            .args([
                "--pdeathsig",
                "TERM",
                "qemu-storage-daemon",
                "--blockdev",
                &file,
            ])
            .args(nodes)
            .args(["--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .expect("needs setpriv (package util-linux)");
        let log = dir.join("log");
        let recording = DaemonDisk { daemon, disk, log };
        let bytes = fs::metadata(backing).expect("the backing file").len();
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&recording.disk).map_or(0, |meta| meta.len()) != bytes {
            assert!(
                Instant::now() < deadline,
                "qemu-storage-daemon (package qemu-system-common) offers no disk; run as root"
            );
            thread::sleep(Duration::from_millis(20));
        }
        recording
    }

    /// The disk, to be opened like any other.
    pub(crate) fn path(&self) -> &Path {
        &self.disk
    }

    /// Ends the daemon; gives the log of a recording disk.
    pub(crate) fn finish(mut self) -> PathBuf {
        self.end();
        self.log.clone()
    }

    fn end(&mut self) {
        let id = Pid::from_raw(i32::try_from(self.daemon.id()).expect("a process id"));
        // It closes the log on this signal; an error means that it is gone already.
        let _ = kill(id, Signal::SIGTERM);
        self.daemon.wait().expect("the daemon is our child");
    }
}

impl Drop for DaemonDisk {
    fn drop(&mut self) {
        self.end();
    }
}
