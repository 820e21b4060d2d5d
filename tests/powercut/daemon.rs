//! A disk that writes down what it is told: `qemu-storage-daemon` with the `blklogwrites` driver, which offers the
//! disk as a file through FUSE. What is flushed by the writer arrives as a flush.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long the daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A recording disk.
pub struct RecordingDisk {
    daemon: Child,
    disk: PathBuf,
    log: PathBuf,
}

impl RecordingDisk {
    /// Records the disk whose content is in the file `backing`; working files go to `dir`.
    pub fn start(backing: &Path, dir: &Path) -> RecordingDisk {
        assert!(Path::new("/dev/fuse").exists(), "needs FUSE: modprobe fuse");
        let (disk, log) = (dir.join("disk"), dir.join("log"));
        for path in [&disk, &log] {
            File::create(path).expect("a working file");
        }
        let file = |node: &str, path: &Path| {
            format!("driver=file,node-name={node},filename={}", path.display())
        };
        let export = format!(
            "type=fuse,id=export,node-name=recorder,mountpoint={},writable=on",
            disk.display()
        );
        let daemon = Command::new("setpriv")
            // It ends with this test, also when the test is killed.
            .args(["--pdeathsig", "TERM", "qemu-storage-daemon"])
            .args(["--blockdev", &file("backing", backing)])
            .args(["--blockdev", &file("logfile", &log)])
            .args(["--blockdev", "driver=blklogwrites,node-name=recorder,file=backing,log=logfile,log-sector-size=512"])
            .args(["--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .expect("needs setpriv (package util-linux)");
        let recording = RecordingDisk { daemon, disk, log };
        let bytes = fs::metadata(backing).expect("the backing file").len();
        let deadline = Instant::now() + PATIENCE;
        while fs::metadata(&recording.disk).map_or(0, |meta| meta.len()) != bytes {
            assert!(
                Instant::now() < deadline,
                "qemu-storage-daemon does not offer the disk; run as root"
            );
            thread::sleep(Duration::from_millis(20));
        }
        recording
    }

    /// The disk, to be opened like any other.
    pub fn path(&self) -> &Path {
        &self.disk
    }

    /// Ends the recording; gives the log.
    pub fn finish(mut self) -> PathBuf {
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

impl Drop for RecordingDisk {
    fn drop(&mut self) {
        self.end();
    }
}
