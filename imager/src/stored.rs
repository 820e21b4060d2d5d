//! Stored frames as a raw disk: one independent zstd frame for each mebibyte.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::manifest::FRAME_BYTES;
use crate::read_at::ReadAt;

/// Decompresses frames, one after another, never beyond the size a frame may have.
pub(crate) struct Unpacker {
    zstd: zstd::bulk::Decompressor<'static>,
}

impl Unpacker {
    pub(crate) fn new() -> io::Result<Unpacker> {
        Ok(Unpacker {
            zstd: zstd::bulk::Decompressor::new()?,
        })
    }

    /// Replaces the content of `raw` by what `stored` decompresses to, which must be exactly
    /// `raw_bytes` bytes.
    pub(crate) fn unpack(
        &mut self,
        stored: &[u8],
        raw_bytes: usize,
        raw: &mut Vec<u8>,
    ) -> io::Result<()> {
        raw.clear();
        raw.resize(raw_bytes, 0);
        let length = self.zstd.decompress_to_buffer(stored, raw.as_mut_slice())?;
        if length != raw_bytes {
            let reason = format!("frame decompresses to {length} bytes instead of {raw_bytes}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(())
    }
}

/// The raw disk that stored frames hold, read at any place. Keeps the frame last read.
pub(crate) struct StoredDisk<'a> {
    file: &'a File,
    // Where each frame begins in the file; one entry more than there are frames.
    offsets: &'a [u64],
    raw_bytes: u64,
    last: RefCell<Last>,
}

struct Last {
    frame: Option<u64>,
    stored: Vec<u8>,
    raw: Vec<u8>,
    unpacker: Unpacker,
}

impl<'a> StoredDisk<'a> {
    pub(crate) fn new(
        file: &'a File,
        offsets: &'a [u64],
        raw_bytes: u64,
    ) -> io::Result<StoredDisk<'a>> {
        let unpacker = Unpacker::new()?;
        let last = Last {
            frame: None,
            stored: Vec::new(),
            raw: Vec::new(),
            unpacker,
        };
        Ok(StoredDisk {
            file,
            offsets,
            raw_bytes,
            last: RefCell::new(last),
        })
    }

    fn load(&self, last: &mut Last, frame: u64) -> io::Result<()> {
        if last.frame == Some(frame) {
            return Ok(());
        }
        let (start, end) = (
            self.offsets[frame as usize],
            self.offsets[frame as usize + 1],
        );
        let raw_bytes =
            (self.raw_bytes - frame * u64::from(FRAME_BYTES)).min(u64::from(FRAME_BYTES));
        let Last {
            stored,
            raw,
            unpacker,
            ..
        } = last;
        stored.resize((end - start) as usize, 0);
        self.file.read_exact_at(stored, start)?;
        unpacker.unpack(stored, raw_bytes as usize, raw)?;
        last.frame = Some(frame);
        Ok(())
    }
}

impl ReadAt for StoredDisk<'_> {
    fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset
            .checked_add(buffer.len() as u64)
            .filter(|&end| end <= self.raw_bytes);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut last = self.last.borrow_mut();
        let mut filled = 0;
        while filled < buffer.len() {
            let place = offset + filled as u64;
            self.load(&mut last, place / u64::from(FRAME_BYTES))?;
            let available = &last.raw[(place % u64::from(FRAME_BYTES)) as usize..];
            let count = available.len().min(buffer.len() - filled);
            buffer[filled..filled + count].copy_from_slice(&available[..count]);
            filled += count;
        }
        Ok(())
    }
}
