//! Reading a raw disk at any place, whatever it is kept in.

use std::io;
use std::ops::Range;

/// A raw disk, or part of one.
pub(crate) trait ReadAt {
    /// Its size, bytes.
    fn raw_bytes(&self) -> u64;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the disk ends before the buffer does.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The same for whoever only looks what may be there: it proves nothing, so a witness forgets.
    ///
    /// # Errors
    /// As of [`ReadAt::read_exact_at`].
    fn peek_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(offset, buffer)
    }
}

impl ReadAt for &[u8] {
    fn raw_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let field = self.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(field.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// One partition of a disk, read as if it were a disk.
pub(crate) struct Slice<'a> {
    disk: &'a dyn ReadAt,
    range: Range<u64>,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(disk: &'a dyn ReadAt, range: Range<u64>) -> Slice<'a> {
        Slice { disk, range }
    }
}

impl ReadAt for Slice<'_> {
    fn raw_bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset
            .checked_add(buffer.len() as u64)
            .filter(|&end| end <= self.raw_bytes());
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.disk.read_exact_at(self.range.start + offset, buffer)
    }
}

/// The `N` bytes at `offset`; none when the disk ends before.
pub(crate) fn read_array<const N: usize>(
    disk: &dyn ReadAt,
    offset: u64,
) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match disk.read_exact_at(offset, &mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fields of an on-disk structure that was read whole; a field beyond it reads as zero.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(self, at: usize, count: usize) -> &'a [u8] {
        self.0
            .get(at..)
            .and_then(|rest| rest.get(..count))
            .unwrap_or_default()
    }

    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        self.bytes(at, N).try_into().unwrap_or([0; N])
    }

    pub(crate) fn u8(self, at: usize) -> u8 {
        self.array::<1>(at)[0]
    }

    pub(crate) fn u16(self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(crate) fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(crate) fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    /// Big-endian, as everything of XFS.
    pub(crate) fn be16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub(crate) fn be32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(crate) fn be64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// Text up to the first NUL or the end of the field, without spaces around it.
    pub(crate) fn text(self, at: usize, count: usize) -> String {
        let field = self.bytes(at, count);
        let end = field
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).trim().to_owned()
    }

    /// A UUID kept in the order it is printed in.
    pub(crate) fn uuid(self, at: usize) -> String {
        let hex: String = self
            .bytes(at, 16)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        match hex.len() {
            32 => [
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..],
            ]
            .join("-"),
            _ => String::new(),
        }
    }

    /// A GUID kept in the mixed order of EFI: the first three groups are little-endian.
    pub(crate) fn guid(self, at: usize) -> String {
        let tail = self
            .bytes(at + 8, 8)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        let (clock, node) = tail.split_at(tail.len().min(4));
        format!(
            "{:08x}-{:04x}-{:04x}-{clock}-{node}",
            self.u32(at),
            self.u16(at + 4),
            self.u16(at + 6)
        )
    }
}
