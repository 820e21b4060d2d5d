//! Compressed files, unpacked front to back: gzip, xz, bzip2 and zstd, with all their members.
//!
//! A file may be several streams one after another (`pigz`, `pbzip2`, `zstd -T` and plain `cat`
//! make such); they are taken to the last. What ends in the middle is an error, never a short disk.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use zstd::stream::read::Decoder as ZstdDecoder;

/// Compressed bytes read ahead.
const AHEAD_BYTES: usize = 256 << 10;
/// Memory an xz file may ask for, KiB: `xz -9` wants 65 MiB.
const XZ_MEMORY_KIB: u32 = 100 << 10;
/// Largest window of a zstd file, as a power of two: what `zstd -d` takes without being asked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Bzip2,
    Zstd,
}

impl Packing {
    pub(super) const ALL: [Packing; 4] =
        [Packing::Gzip, Packing::Xz, Packing::Bzip2, Packing::Zstd];

    /// What such a file begins with.
    pub(super) fn magic(self) -> &'static [u8] {
        match self {
            Packing::Gzip => &[0x1f, 0x8b, 0x08],
            Packing::Xz => b"\xfd7zXZ\0",
            Packing::Bzip2 => b"BZh",
            Packing::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }

    /// Its name for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Packing::Gzip => "gzip file",
            Packing::Xz => "xz file",
            Packing::Bzip2 => "bzip2 file",
            Packing::Zstd => "zstd file",
        }
    }

    /// The packing of what begins with `head`, if it is packed.
    pub(super) fn of(head: &[u8]) -> Option<Packing> {
        Packing::ALL
            .into_iter()
            .find(|packing| head.starts_with(packing.magic()))
    }

    /// What `reader` holds, unpacked.
    pub(super) fn unpack(
        self,
        reader: impl Read + Send + 'static,
    ) -> io::Result<Box<dyn Read + Send>> {
        let reader = BufReader::with_capacity(AHEAD_BYTES, reader);
        Ok(match self {
            Packing::Gzip => Box::new(Members::new(
                reader,
                self.magic(),
                GzDecoder::new,
                GzDecoder::into_inner,
            )),
            Packing::Bzip2 => Box::new(Members::new(
                reader,
                self.magic(),
                BzDecoder::new,
                BzDecoder::into_inner,
            )),
            Packing::Xz => Box::new(XzReader::new_mem_limit(reader, true, XZ_MEMORY_KIB)),
            Packing::Zstd => {
                let mut decoder = ZstdDecoder::with_buffer(reader)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }
}

/// Streams of one kind, one after another, as if they were one.
struct Members<R, D> {
    state: State<R, D>,
    magic: &'static [u8],
    open: fn(R) -> D,
    close: fn(D) -> R,
}

enum State<R, D> {
    Within(D),
    Between(R),
    End,
}

impl<R: BufRead, D: Read> Members<R, D> {
    fn new(reader: R, magic: &'static [u8], open: fn(R) -> D, close: fn(D) -> R) -> Members<R, D> {
        Members {
            state: State::Within(open(reader)),
            magic,
            open,
            close,
        }
    }

    /// Opens the next stream, if there is one. Zeros behind the last are padding, as of a tape.
    fn next(&mut self, mut reader: R) -> io::Result<State<R, D>> {
        loop {
            let ahead = reader.fill_buf()?;
            if ahead.is_empty() {
                return Ok(State::End);
            }
            let zeros = ahead.iter().take_while(|&&byte| byte == 0).count();
            if zeros == 0 {
                break;
            }
            reader.consume(zeros);
        }
        if reader.fill_buf()?.first() != self.magic.first() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "something else follows the compressed data",
            ));
        }
        Ok(State::Within((self.open)(reader)))
    }
}

impl<R: BufRead, D: Read> Read for Members<R, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            // An error leaves the end behind it.
            self.state = match std::mem::replace(&mut self.state, State::End) {
                State::End => return Ok(0),
                State::Between(reader) => self.next(reader)?,
                State::Within(mut decoder) => match decoder.read(buffer)? {
                    0 => State::Between((self.close)(decoder)),
                    count => {
                        self.state = State::Within(decoder);
                        return Ok(count);
                    }
                },
            };
        }
    }
}

/// Counts what is read through it.
pub(super) struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    /// The reader, and where its count can be seen.
    pub(super) fn new(inner: R) -> (Counted<R>, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            inner,
            count: Arc::clone(&count),
        };
        (counted, count)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
