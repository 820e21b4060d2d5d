//! The members of a tar archive (POSIX.1-1988 ustar, with the extensions for long names and large
//! files of GNU tar and POSIX.1-2001).

use crate::read_at::{Fields, ReadAt};
use crate::source::fault::Fault;
use crate::source::medium::Extract;

const BLOCK_BYTES: u64 = 512;
/// Members that are looked at; a machine has some ten.
const MEMBERS_MAX: usize = 1000;
/// Largest extended header.
const EXTENDED_BYTES_MAX: u64 = 64 << 10;

/// A file in the archive.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) content: Extract,
}

/// The archive's plain files.
pub(super) struct Archive {
    members: Vec<Member>,
}

impl Archive {
    /// Reads all headers.
    ///
    /// # Errors
    /// When one is damaged, or a file is not all there.
    pub(super) fn read(extract: &Extract) -> Result<Archive, Fault> {
        let mut members = Vec::new();
        let (mut at, mut long_name, mut long_size) = (0, None, None);
        loop {
            let mut block = [0; BLOCK_BYTES as usize];
            if at == extract.raw_bytes() {
                break;
            }
            let read = extract.read_exact_at(at, &mut block);
            read.map_err(|error| Fault::decoding(at, error))?;
            if block == [0; BLOCK_BYTES as usize] {
                break;
            }
            check(&block, at)?;
            let size = number(&block[124..136]).ok_or_else(|| Fault::at(at, "a file's size"))?;
            let size = long_size.take().unwrap_or(size);
            let content = extract.part(at + BLOCK_BYTES, size);
            let content =
                content.ok_or_else(|| Fault::at(at, "it ends too early: the file is cut short"))?;
            match block[156] {
                0 | b'0' | b'7' => members.push(Member {
                    name: long_name.take().unwrap_or_else(|| name(&block)),
                    content,
                }),
                b'L' => long_name = Some(extended(&content, at)?.trim_end_matches('\0').into()),
                b'x' => {
                    let records = extended(&content, at)?;
                    long_name = record(&records, "path").map(str::to_owned);
                    let size = record(&records, "size");
                    long_size = size.and_then(|size| size.parse().ok());
                }
                _ => (long_name, long_size) = (None, None),
            }
            if members.len() > MEMBERS_MAX {
                return Err(Fault::refuse("it has too many files to be a machine"));
            }
            let next = size.checked_next_multiple_of(BLOCK_BYTES);
            let next = next.and_then(|size| (at + BLOCK_BYTES).checked_add(size));
            // The padding of the last file may be missing.
            at = next.unwrap_or(u64::MAX).min(extract.raw_bytes());
        }
        Ok(Archive { members })
    }

    /// The first file whose name ends so.
    pub(super) fn ending(&self, ending: &str) -> Option<&Member> {
        let ends = |member: &&Member| member.name.to_ascii_lowercase().ends_with(ending);
        self.members.iter().find(ends)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// The sum of all bytes of a header, those of the sum taken for spaces.
fn check(block: &[u8; BLOCK_BYTES as usize], at: u64) -> Result<(), Fault> {
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    let own: u64 = block[148..156].iter().map(|&byte| u64::from(byte)).sum();
    match number(&block[148..156]) == Some(sum - own + 8 * u64::from(b' ')) {
        true => Ok(()),
        false => Err(Fault::at(at, "a damaged header of a file")),
    }
}

/// Octal digits, or the binary form of GNU tar.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        // The mark is the first byte; of a field of eight bytes, as the sum is, it stands among the number's own.
        let (high, low) = field.split_at(field.len().checked_sub(8)?);
        let zero = high.iter().skip(1).all(|&byte| byte == 0);
        let low = u64::from_be_bytes(low.try_into().expect("eight bytes"));
        let low = if high.is_empty() {
            low & (u64::MAX >> 8)
        } else {
            low
        };
        return zero.then_some(low);
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c| c == '\0' || c == ' ');
    u64::from_str_radix(text, 8).ok()
}

fn name(block: &[u8]) -> String {
    let fields = Fields(block);
    let (name, prefix) = (fields.text(0, 100), fields.text(345, 155));
    // GNU tar keeps times where POSIX has the prefix.
    let posix = fields.bytes(257, 6) == b"ustar\0" && !prefix.is_empty();
    let name = if posix {
        format!("{prefix}/{name}")
    } else {
        name
    };
    name.strip_prefix("./").map(str::to_owned).unwrap_or(name)
}

fn extended(content: &Extract, at: u64) -> Result<String, Fault> {
    if content.raw_bytes() > EXTENDED_BYTES_MAX {
        return Err(Fault::at(at, "an extended header larger than one can be"));
    }
    let mut bytes = vec![0; content.raw_bytes() as usize];
    content.read_exact_at(0, &mut bytes).map_err(Fault::Read)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of a record `25 path=disk1.vmdk`.
fn record<'a>(records: &'a str, key: &str) -> Option<&'a str> {
    records.lines().find_map(|line| {
        let (_, pair) = line.split_once(' ')?;
        pair.strip_prefix(key)?.strip_prefix('=')
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_binary_in_fields_of_either_length() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"      7 \0  "), Some(7));
        let long = [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1];
        assert_eq!(number(&long), Some((2 << 32) + 1));
        assert_eq!(number(&[0x80, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]), None);
        // Found by the fuzzer: the field of the sum has no more than eight bytes.
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(number(&[0x80; 7]), None);
        assert_eq!(number(b"nonsense"), None);
    }
}
