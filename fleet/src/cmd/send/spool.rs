//! Standard input becomes an image first: receivers must know the whole before it begins.
//!
//! ```text
//!   raw bytes      --seal-->  stdin.img.zst --open--> Image     the name is removed at once:
//!   sealed image   --copy-->                                    nothing is left, however we end
//! ```

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::SystemTime,
};

use anyhow::Context;
use netflash_imager::{Image, SealOptions, SealProgress, Source, seal};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::progress::StatusLine;

/// zstd level of what is spooled: faster than most networks.
const LEVEL: i32 = 1;
/// What every zstd file, and so every image, begins with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// How soon a stop is noticed while the input says nothing, in milliseconds.
const NAP_MILLIS: u16 = 100;
/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Reads standard input to its end into a file of `directory`, and opens that as an image.
///
/// # Errors
/// When it cannot be read or is nothing that can be sent, when the directory is full, when `stop` was set.
pub(super) fn spool(directory: Option<&Path>, stop: &Arc<AtomicBool>) -> anyhow::Result<Image> {
    let directory = directory.map_or_else(std::env::temp_dir, Path::to_owned);
    let room = tempfile::tempdir_in(&directory).with_context(|| {
        format!(
            "making room for standard input in {} (choose another place with --spool)",
            directory.display()
        )
    })?;
    let input = Stoppable {
        input: io::stdin(),
        stop: Arc::clone(stop),
    };
    // The directory goes when this returns; the open file lives on without a name.
    spool_from(input, &room.path().join("stdin.img.zst"), stop)
}

fn spool_from(
    mut input: impl Read + Send + 'static,
    path: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Image> {
    let mut head = Vec::new();
    let count = ZSTD_MAGIC.len() as u64;
    let read = input.by_ref().take(count).read_to_end(&mut head);
    read.context("reading standard input")?;
    let sealed = head == ZSTD_MAGIC;
    let whole = io::Cursor::new(head).chain(input);
    if sealed {
        copy(whole, path).context("copying standard input")?;
        return Image::open(path).context(
            "standard input is a zstd file, but not a whole image; pipe the raw disk (zstd -dc) or an image made by \
             `netflash image create`",
        );
    }
    let source = Source::stream(whole).context("reading standard input")?;
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let options = SealOptions {
        used_only: false,
        whole: Default::default(),
        only: None,
        level: LEVEL,
        note: String::new(),
        parent: None,
        created: created.unwrap_or_default().as_secs(),
        threads: thread::available_parallelism().map_or(1, usize::from),
    };
    let mut line = StatusLine::new();
    let mut show = |progress: SealProgress| line.show(&progress_text(progress.raw_bytes));
    seal(source, path, &options, &mut show, stop).context("sealing standard input")?;
    Image::open(path).context("opening what was made of standard input")
}

/// Copies a sealed image as it is.
fn copy(mut input: impl Read, path: &Path) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut line = StatusLine::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    loop {
        let count = input.read(&mut buffer)?;
        if count == 0 {
            return file.flush();
        }
        file.write_all(&buffer[..count])?;
        copied += count as u64;
        line.show(&progress_text(copied));
    }
}

fn progress_text(bytes: u64) -> String {
    format!("reading standard input: {:.1} MB", bytes as f64 / 1e6)
}

/// An input that a signal ends although it says nothing.
struct Stoppable<I> {
    input: I,
    stop: Arc<AtomicBool>,
}

impl<I: Read + AsFd> Read for Stoppable<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            let mut ready = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::from(NAP_MILLIS)) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.input.read(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The images named on the command line, `-` being standard input, all opened before the first is sent: a missing
/// one is noticed now and not in an hour.
pub(super) fn open_all(
    paths: &[PathBuf],
    directory: Option<&Path>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Vec<Arc<Image>>> {
    let open = |path: &PathBuf| match path == Path::new("-") {
        true => spool(directory, stop),
        false => Image::open(path).with_context(|| {
            let shown = path.display();
            format!("opening {shown} (an image is made with `netflash image create SRC {shown}`)")
        }),
    };
    paths.iter().map(|path| open(path).map(Arc::new)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn spooled(bytes: Vec<u8>, directory: &Path) -> anyhow::Result<Image> {
        let path = directory.join("spooled");
        spool_from(io::Cursor::new(bytes), &path, &AtomicBool::new(false))
    }

    #[test]
    fn raw_bytes_become_an_image_and_an_image_stays_itself() {
        let directory = tempfile::tempdir().expect("a directory");
        let raw: Vec<u8> = (0..3_000_001_u32).map(|at| (at >> 8) as u8).collect();
        let made = spooled(raw.clone(), directory.path()).expect("raw bytes are a disk");
        assert_eq!(made.manifest().raw_bytes(), raw.len() as u64);
        let sealed = std::fs::read(directory.path().join("spooled")).expect("it is there");
        let other = tempfile::tempdir().expect("a directory");
        let copied = spooled(sealed, other.path()).expect("an image is an image");
        assert_eq!(copied.id(), made.id());
    }

    #[test]
    fn a_zstd_file_that_is_no_image_is_refused_with_advice() {
        let directory = tempfile::tempdir().expect("a directory");
        let bytes = [&ZSTD_MAGIC[..], b"and no more"].concat();
        let error = spooled(bytes, directory.path()).expect_err("no image");
        assert!(format!("{error:#}").contains("zstd -dc"), "{error:#}");
    }

    #[test]
    fn a_silent_input_can_be_stopped() {
        let (ours, theirs) = UnixStream::pair().expect("two ends");
        let stop = Arc::new(AtomicBool::new(true));
        let mut input = Stoppable { input: ours, stop };
        let error = input.read(&mut [0; 8]).expect_err("stopped");
        assert_eq!(error.to_string(), "interrupted");
        drop(theirs);
    }
}
