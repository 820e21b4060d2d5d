//! Taking fields off a datagram.

use super::WireError;

/// What is left of a datagram.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(WireError::Truncated)?;
        self.0 = left;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, left) = self.0.split_first_chunk().ok_or(WireError::Truncated)?;
        self.0 = left;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(WireError::TooLong)
        }
    }
}

/// Splits the CRC32 off the end and compares it.
pub(super) fn split_crc(datagram: &[u8]) -> Result<(&[u8], bool), WireError> {
    let (body, crc) = datagram.split_last_chunk().ok_or(WireError::Truncated)?;
    Ok((body, crc32fast::hash(body) == u32::from_be_bytes(*crc)))
}

/// Appends the CRC32 of everything from `from` on.
pub(super) fn append_crc(out: &mut Vec<u8>, from: usize) {
    let crc = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&crc.to_be_bytes());
}
