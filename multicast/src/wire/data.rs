//! The data datagram: one symbol of one block.

use crate::block::BlockId;
use crate::guard::guard;
use crate::seal::{Cipher, TAG_BYTES};

use super::read::{Reader, append_crc, split_crc};
use super::{Kind, SEALED, WireError};

const HEADER_BYTES: usize = 16;

/// Bytes that a data datagram has beside its symbol: header and CRC32.
pub const DATA_OVERHEAD: usize = HEADER_BYTES + 4;
/// The same of a sealed one: header and tag.
pub const SEALED_OVERHEAD: usize = HEADER_BYTES + TAG_BYTES;

/// One symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Session it belongs to.
    pub session: u32,
    /// One more than that of the data datagram before, modulo 2^32.
    pub sequence: u32,
    /// Block it belongs to.
    pub block: BlockId,
    /// Below k: that source symbol. From k on: that symbol of the repair stream.
    pub symbol: u16,
    /// The symbol itself.
    pub bytes: &'a [u8],
}

impl<'a> Data<'a> {
    /// Takes a datagram apart that is not sealed, and checks its CRC32.
    pub fn parse(datagram: &'a [u8]) -> Result<Data<'a>, WireError> {
        let (body, intact) = split_crc(datagram)?;
        if !guard!("crc", intact) {
            return Err(WireError::Damaged);
        }
        Data::parse_head(body, 0)
    }

    /// Takes a sealed datagram apart, with `room` for what was sealed in it.
    pub(crate) fn open(
        cipher: &Cipher,
        datagram: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<Data<'a>, WireError> {
        let sealed = Data::parse_head(datagram, SEALED)?;
        let (head, body) = (&datagram[..HEADER_BYTES], sealed.bytes);
        let length = body.len().saturating_sub(TAG_BYTES);
        let intact = cipher.open(sealed.sequence, head, body, room).is_some();
        if !guard!("sealed_data", intact) {
            return Err(WireError::Unopened);
        }
        let bytes = room.get(..length).ok_or(WireError::Truncated)?;
        Ok(Data { bytes, ..sealed })
    }

    /// The header, and all that follows it. `flags` are those that must be set; others come with a meaning
    /// that this version does not know.
    fn parse_head(body: &'a [u8], flags: u8) -> Result<Data<'a>, WireError> {
        let mut reader = Reader::new(body);
        if reader.u8()? != Kind::Data.first_byte() {
            return Err(WireError::Foreign { first: body[0] });
        }
        if reader.u8()? != flags {
            return Err(WireError::Field { field: "flags" });
        }
        Ok(Data {
            session: reader.u32()?,
            sequence: reader.u32()?,
            block: BlockId(reader.u32()?),
            symbol: reader.u16()?,
            bytes: reader.rest(),
        })
    }

    /// Appends the datagram to `out`, not sealed.
    pub fn pack(&self, out: &mut Vec<u8>) {
        let from = out.len();
        self.append(0, out);
        append_crc(out, from);
    }

    /// Appends the datagram to `out`, sealed. No two datagrams with one sequence number may be.
    pub(crate) fn seal(&self, cipher: &Cipher, out: &mut Vec<u8>) {
        let from = out.len();
        self.append(SEALED, out);
        cipher.seal(self.sequence, out, from, from + HEADER_BYTES);
    }

    fn append(&self, flags: u8, out: &mut Vec<u8>) {
        out.extend_from_slice(&[Kind::Data.first_byte(), flags]);
        out.extend_from_slice(&self.session.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.block.0.to_be_bytes());
        out.extend_from_slice(&self.symbol.to_be_bytes());
        out.extend_from_slice(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let (session, sequence) = (0x0102_0304, 0x0506_0708);
        Data {
            session,
            sequence,
            block: BlockId(0x0a0b_0c0d),
            symbol: 0x0e0f,
            bytes,
        }
        .pack(&mut out);
        out
    }

    #[test]
    fn the_header_is_sixteen_bytes_as_documented() {
        let datagram = packed(&[0xee; 6]);
        let header = [
            0x11, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f,
        ];
        assert_eq!(datagram[..16], header);
        assert_eq!(datagram.len(), 6 + DATA_OVERHEAD);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let datagram = packed(&[0x5a; 32]);
        assert_eq!(Data::parse(&datagram).map(|data| data.bytes.len()), Ok(32));
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Data::parse(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let datagram = packed(&[0x5a; 32]);
        assert!((0..datagram.len()).all(|length| Data::parse(&datagram[..length]).is_err()));
    }
}
