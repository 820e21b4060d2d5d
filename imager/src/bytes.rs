//! Little-endian fields in a byte slice that may be hostile: every read names what it wanted and
//! where, and nothing is allocated that the slice does not hold.

use thiserror::Error;

/// Why some bytes are not what they claim to be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("at byte {offset}: {reason}")]
pub struct Malformed {
    /// Offset of the offending field in the bytes given.
    pub offset: u64,
    /// What is wrong there, in words.
    pub reason: String,
}

/// Reads fields one after another.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }

    /// An error about the field that begins `back` bytes before the present position.
    pub(crate) fn refuse(&self, back: usize, reason: impl Into<String>) -> Malformed {
        Malformed {
            offset: self.position.saturating_sub(back) as u64,
            reason: reason.into(),
        }
    }

    pub(crate) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.position..];
        let Some(field) = rest.get(..count) else {
            return Err(self.refuse(
                0,
                format!("{what}: {count} bytes wanted, {} left", rest.len()),
            ));
        };
        self.position += count;
        Ok(field)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Malformed> {
        let field = self.take(N, what)?;
        Ok(field
            .try_into()
            .expect("take returns as many bytes as asked"))
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u16(&mut self, what: &str) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A LEB128 number in its shortest form.
    pub(crate) fn varint(&mut self, what: &str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for index in 0..10 {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                return Err(self.refuse(10, format!("{what}: number above 64 bits")));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(
                        self.refuse(index + 1, format!("{what}: number not in shortest form"))
                    );
                }
                return Ok(value);
            }
        }
        Err(self.refuse(10, format!("{what}: number above 64 bits")))
    }

    /// UTF-8 text of at most `longest` bytes, after its length in 16 bits.
    pub(crate) fn text(&mut self, longest: usize, what: &str) -> Result<String, Malformed> {
        let length = usize::from(self.u16(what)?);
        if length > longest {
            return Err(self.refuse(2, format!("{what}: {length} bytes, the limit is {longest}")));
        }
        let field = self.take(length, what)?;
        let text = std::str::from_utf8(field)
            .map_err(|_| self.refuse(length, format!("{what}: not UTF-8")))?;
        Ok(text.to_owned())
    }

    /// Fails unless everything was read.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.refuse(0, format!("{left} bytes too many"))),
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }
}

/// Writes fields one after another; the mirror of [`Reader`].
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Writer {
        self.raw(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Writer {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Writer {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Writer {
        self.raw(&value.to_le_bytes())
    }

    pub(crate) fn varint(&mut self, mut value: u64) -> &mut Writer {
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    /// Text, cut at a character boundary to at most `longest` bytes.
    pub(crate) fn text(&mut self, text: &str, longest: usize) -> &mut Writer {
        let mut length = text.len().min(longest);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        self.u16(length as u16).raw(&text.as_bytes()[..length])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(number in any::<u64>(), text in "\\PC{0,40}") {
            let mut writer = Writer::default();
            writer.varint(number).text(&text, 200).u64(number).u16(7);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint("n"), Ok(number));
            prop_assert_eq!(reader.text(200, "t"), Ok(text));
            prop_assert_eq!(reader.u64("n"), Ok(number));
            prop_assert_eq!(reader.u16("n"), Ok(7));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn any_bytes_give_a_number_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..16)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.varint("n") {
                let mut writer = Writer::default();
                writer.varint(number);
                prop_assert_eq!(&writer.finish()[..], &bytes[..bytes.len() - reader.left()]);
            }
        }
    }

    #[test]
    fn an_error_says_where_and_what() {
        let mut reader = Reader::new(&[1, 2, 3]);
        reader.u8("first").unwrap();
        let error = reader.u32("second").unwrap_err();
        assert_eq!(
            error.to_string(),
            "at byte 1: second: 4 bytes wanted, 2 left"
        );
    }
}
