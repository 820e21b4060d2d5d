//! A disk of another program from a stranger: header, tables and maps of every format.
//!
//! Checksums are put right first, or nothing behind them would ever be reached. What opens must
//! be readable at any place, with an answer or an error.

#![no_main]

#[path = "../disk_sums.rs"]
mod disk_sums;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use libfuzzer_sys::fuzz_target;
use netflash_imager::{ImportOptions, Source};

/// Steps of a mebibyte that are unpacked: a file of a few bytes can hold a disk of zeros.
const STEPS_MAX: u32 = 8;
/// Where the disk is read, in sixteenths of its size.
const PLACES: u64 = 16;

fuzz_target!(|bytes: &[u8]| {
    let file = disk_sums::laid_out(bytes);
    let Some(source) = opened(&file) else {
        return;
    };
    let disk_bytes = source.raw_bytes().expect("a file is no stream");
    assert!(disk_bytes > 0);
    let mut buffer = vec![0; 70_000.min(disk_bytes as usize)];
    let last = disk_bytes - buffer.len() as u64;
    for place in 0..=PLACES {
        let offset = (u128::from(last) * u128::from(place) / u128::from(PLACES)) as u64;
        let _ = source.read_exact_at(offset, &mut buffer);
    }
    assert!(source.read_exact_at(last + 1, &mut buffer).is_err());
    assert!(source.read_exact_at(u64::MAX, &mut [0; 2]).is_err());
});

/// Opens the bytes as a file, with all that belongs to it in memory.
fn opened(pieces: &[(u64, Vec<u8>)]) -> Option<Source> {
    // SAFETY: the name is a C string, and the descriptor is nobody else's.
    let memory = unsafe { libc::memfd_create(c"source".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(memory >= 0);
    // SAFETY: as above.
    let file = unsafe { File::from_raw_fd(memory) };
    for (at, bytes) in pieces {
        file.write_all_at(bytes, *at).expect("memory");
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let options = ImportOptions {
        scratch: Path::new("/dev/shm").to_owned(),
        disk: None,
    };
    let stop = AtomicBool::new(false);
    let mut steps = 0;
    let mut observer = |_| {
        steps += 1;
        stop.store(steps > STEPS_MAX, Ordering::Relaxed);
    };
    // qcow2 goes to another program, whose fuzzing is not ours.
    let foreign = pieces[0].1.starts_with(b"QFI\xfb");
    let source = (!foreign).then(|| Source::import(&path, &options, &mut observer, &stop));
    source?.ok()
}
