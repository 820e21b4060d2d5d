//! A disk of another program from a stranger: header, tables and maps of every format.
//!
//! Checksums are put right first, or nothing behind them would ever be reached. What opens must
//! be readable at any place, with an answer or an error. With `NETFLASH_VALID` set, what does not
//! open is a fault: so the seeds are checked.

#![no_main]

#[path = "../bound.rs"]
mod bound;
#[path = "../disk_sums.rs"]
mod disk_sums;

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libfuzzer_sys::fuzz_target;
use netflash_imager::{ImportOptions, Source, SourceError, refuse_qcow2_header};

/// Steps of a mebibyte that are unpacked: a file of a few bytes can hold a disk of zeros.
const STEPS_MAX: u32 = 8;
/// Where the disk is read, in sixteenths of its size.
const PLACES: u64 = 16;
/// What may be allocated: buffers, and the largest dictionary an xz file may ask for (100 MiB), or
/// the largest block of partclone (16 MiB), and a multiple of the file.
const ALLOWED_BYTES: usize = 24 << 20;
const ALLOWED_XZ_BYTES: usize = 104 << 20;
const ALLOWED_TIMES: usize = 16;

static VALID: LazyLock<bool> = LazyLock::new(|| std::env::var_os("NETFLASH_VALID").is_some());

fuzz_target!(|bytes: &[u8]| {
    let packed = bytes.starts_with(b"\xfd7zXZ\0") || bytes.starts_with(&[disk_sums::DIRECTORY]);
    let allowed = ALLOWED_TIMES * bytes.len();
    let constant = if packed { ALLOWED_XZ_BYTES } else { ALLOWED_BYTES };
    if let Some(files) = disk_sums::directory(bytes) {
        let directory = Directory::make(&files);
        bound::within(constant + allowed, || read(import(&directory.0)));
        return;
    }
    let file = disk_sums::laid_out(bytes);
    let Some((_, head)) = file.first() else {
        return;
    };
    // What follows is the work of another program, whose fuzzing is not ours.
    if head.starts_with(b"QFI\xfb") {
        let refused = refuse_qcow2_header(head);
        assert!(!*VALID || refused.is_ok(), "{refused:?}");
        return;
    }
    let memory = in_memory(&file);
    let path = PathBuf::from(format!("/proc/self/fd/{}", memory.as_raw_fd()));
    bound::within(constant + allowed, || read(import(&path)));
});

/// Reads here and there, also where nothing is.
fn read(opened: Result<Source, SourceError>) {
    let source = match opened {
        Ok(source) => source,
        Err(error) => {
            assert!(!*VALID, "{error}");
            return;
        }
    };
    let disk_bytes = source.raw_bytes().expect("a file is no stream");
    assert!(disk_bytes > 0);
    let mut buffer = vec![0; 70_000.min(disk_bytes as usize)];
    let last = disk_bytes - buffer.len() as u64;
    for place in 0..=PLACES {
        let offset = (u128::from(last) * u128::from(place) / u128::from(PLACES)) as u64;
        let found = source.read_exact_at(offset, &mut buffer);
        assert!(!*VALID || found.is_ok(), "{found:?}");
    }
    assert!(source.read_exact_at(last + 1, &mut buffer).is_err());
    assert!(source.read_exact_at(u64::MAX, &mut [0; 2]).is_err());
}

fn import(path: &Path) -> Result<Source, SourceError> {
    let options = ImportOptions {
        scratch: Path::new("/dev/shm").to_owned(),
        disk: None,
    };
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    let mut observer = |_| {
        steps += 1;
        stop.store(steps > STEPS_MAX && !*VALID, Ordering::Relaxed);
    };
    Source::import(path, &options, &mut observer, &stop)
}

/// The bytes as a file that has no name.
fn in_memory(pieces: &[(u64, Vec<u8>)]) -> File {
    // SAFETY: the name is a C string, and the descriptor is nobody else's.
    let memory = unsafe { libc::memfd_create(c"source".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(memory >= 0);
    // SAFETY: as above.
    let file = unsafe { File::from_raw_fd(memory) };
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at).expect("memory");
    }
    file
}

/// A directory of files, which goes away.
struct Directory(PathBuf);

impl Directory {
    fn make(files: &[(String, Vec<u8>)]) -> Directory {
        let path = PathBuf::from(format!("/dev/shm/netflash-fuzz-{}", std::process::id()));
        fs::create_dir_all(&path).expect("memory");
        let directory = Directory(path);
        for (name, content) in files {
            // A name may be empty, or that of a directory: then it is no file.
            let _ = fs::write(directory.0.join(name), content);
        }
        directory
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
