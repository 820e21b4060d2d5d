//! Where a foreign image is unpacked: a sparse file that has no name, and so goes away at any end,
//! a killed program's included.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::source::ImportProgress;
use crate::source::fault::Fault;
use crate::source::medium::Extract;

/// Bytes unpacked at a time.
pub(super) const STEP_BYTES: usize = 1 << 20;
/// Zeros are skipped in units of this many bytes.
const HOLE_BYTES: usize = 4096;

/// What unpacking needs: a directory, somebody to tell, and leave to go on.
pub(super) struct Workshop<'a> {
    /// Where spool files are made.
    pub(super) scratch: &'a Path,
    /// Which disk of several is wanted, from 1.
    pub(super) disk: Option<u32>,
    /// Told how far unpacking is.
    pub(super) observer: &'a mut dyn FnMut(ImportProgress),
    /// Ends the work when set.
    pub(super) stop: &'a AtomicBool,
}

impl Workshop<'_> {
    pub(super) fn spool(&self) -> Result<Spool, Fault> {
        Spool::create(self.scratch).map_err(Fault::Spool)
    }

    /// Says that `read_bytes` of `total_bytes` of the source are done.
    pub(super) fn step(&mut self, read_bytes: u64, total_bytes: u64) -> Result<(), Fault> {
        (self.observer)(ImportProgress {
            read_bytes,
            total_bytes,
        });
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Fault::Interrupted),
            false => Ok(()),
        }
    }
}

/// A nameless sparse file that becomes a raw disk.
pub(super) struct Spool {
    file: File,
}

impl Spool {
    fn create(directory: &Path) -> io::Result<Spool> {
        let nameless = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_TMPFILE)
            .open(directory);
        let file = match nameless {
            Ok(file) => file,
            // Not every file system can; then it has a name for a moment.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let name = format!(".netflash-spool-{}.part", std::process::id());
                let path = directory.join(name);
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)?;
                fs::remove_file(path)?;
                file
            }
            Err(error) => return Err(error),
        };
        Ok(Spool { file })
    }

    /// Writes `bytes` at `offset`; zeros stay holes.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];
        let mut from = 0;
        while from < bytes.len() {
            let zero = |unit: &[u8]| unit == &ZEROS[..unit.len()];
            let mut units = bytes[from..].chunks(HOLE_BYTES);
            let skipped: usize = units
                .clone()
                .take_while(|unit| zero(unit))
                .map(<[u8]>::len)
                .sum();
            if skipped > 0 {
                from += skipped;
                continue;
            }
            let run: usize = units
                .by_ref()
                .take_while(|unit| !zero(unit))
                .map(<[u8]>::len)
                .sum();
            self.file
                .write_all_at(&bytes[from..from + run], offset + from as u64)
                .map_err(Fault::Spool)?;
            from += run;
        }
        Ok(())
    }

    /// Copies `reader` to `offset` and on, to its end; gives the number of bytes. `read_bytes`
    /// tells how much of the source, `total_bytes`, was needed.
    pub(super) fn fill(
        &self,
        offset: u64,
        reader: &mut dyn Read,
        read_bytes: &dyn Fn() -> u64,
        total_bytes: u64,
        workshop: &mut Workshop,
    ) -> Result<u64, Fault> {
        let mut buffer = vec![0; STEP_BYTES];
        let mut done = 0u64;
        loop {
            let count = read_full(reader, &mut buffer)
                .map_err(|error| Fault::decoding(read_bytes(), error))?;
            let bytes = &buffer[..count];
            let place = offset.checked_add(done).filter(|at| *at < i64::MAX as u64);
            let place = place.ok_or_else(|| Fault::refuse("it is larger than any disk"))?;
            self.write(place, bytes)?;
            done += count as u64;
            workshop.step(read_bytes(), total_bytes)?;
            if count < buffer.len() {
                return Ok(done);
            }
        }
    }

    /// The file, `bytes` long.
    pub(super) fn into_file(self, bytes: u64) -> Result<File, Fault> {
        self.file.set_len(bytes).map_err(Fault::Spool)?;
        Ok(self.file)
    }

    /// The disk, `bytes` long.
    pub(super) fn finish(self, bytes: u64) -> Result<Extract, Fault> {
        Ok(Extract::new(self.into_file(bytes)?, bytes))
    }
}

/// Fills `buffer` as far as `reader` goes.
pub(super) fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
