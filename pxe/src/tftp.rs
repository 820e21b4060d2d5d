//! TFTP for firmware that can do nothing better: what a server hears and says.
//!
//! Only reading, only whole bytes (mode `octet`). RFC 1350, its option negotiation (RFC 2347), `blksize` (RFC 2348),
//! `timeout` and `tsize` (RFC 2349) and `windowsize` (RFC 7440). [`TftpTransfer`] is one file on its way.

mod transfer;

pub use transfer::{TftpOutcome, TftpTransfer, TftpTransmit};

/// Longest path that is asked for, in bytes.
const PATH_BYTES_MAX: usize = 255;
/// Most options in a request; more are nobody we know.
const OPTIONS_MAX: usize = 16;
/// Longest error message that is kept, in characters.
const MESSAGE_MAX: usize = 120;

/// Block size without option, in bytes (RFC 1350 section 2).
const BLOCK_BYTES_DEFAULT: u16 = 512;
/// Bounds of `blksize` in bytes (RFC 2348).
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 8..=65_464;
/// Largest block that is agreed to: a datagram of it is one packet at the usual MTU of 1500.
const BLOCK_BYTES_MAX: u16 = 1468;
/// Most blocks under way: more would overrun the few receive buffers of firmware.
const WINDOW_BLOCKS_MAX: u16 = 32;

const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TftpHeard {
    /// It wants a file.
    Read(TftpRead),
    /// It wants to write, or to read in a mode that changes bytes.
    Unfit(&'static str),
    /// It has everything up to this block, modulo 2¹⁶.
    Acknowledged(u16),
    /// It gives up. Firmware says so too when it only asked for a file's size.
    Abort {
        /// Its error code (RFC 1350 section 5, RFC 2347: 8).
        code: u16,
        /// Its words, fit to be shown.
        message: String,
    },
}

/// A request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TftpRead {
    /// The file's path as it was asked for: printable ASCII, at most 255 bytes.
    pub path: String,
    /// `blksize`: bytes in a block, as agreed to.
    pub block_bytes: Option<u16>,
    /// `tsize`: it wants to know the size.
    pub wants_size: bool,
    /// `timeout`: seconds before a repetition, 1 to 255.
    pub timeout_seconds: Option<u8>,
    /// `windowsize`: blocks under way, as agreed to.
    pub window_blocks: Option<u16>,
}

/// Why a server does not send a file (RFC 1350 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TftpRefusal {
    /// Nothing is known by this path.
    NotFound,
    /// Nobody writes here.
    Illegal,
    /// Anything else: reading failed, too many others.
    Failed,
}

impl TftpHeard {
    /// Understand a datagram; `None` is nonsense, which is not worth an answer.
    pub fn parse(datagram: &[u8]) -> Option<TftpHeard> {
        let (code, rest) = number(datagram)?;
        match code {
            READ => read_request(rest),
            WRITE => Some(TftpHeard::Unfit("nobody writes here")),
            ACKNOWLEDGE => Some(TftpHeard::Acknowledged(number(rest)?.0)),
            ERROR => {
                let (code, text) = number(rest)?;
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                let message = crate::plain(&String::from_utf8_lossy(text), MESSAGE_MAX);
                Some(TftpHeard::Abort { code, message })
            }
            _ => None,
        }
    }
}

impl TftpRefusal {
    /// The datagram that says so.
    pub fn render(self, message: &str) -> Vec<u8> {
        let code: u16 = match self {
            TftpRefusal::Failed => 0,
            TftpRefusal::NotFound => 1,
            TftpRefusal::Illegal => 4,
        };
        let mut datagram = ERROR.to_be_bytes().to_vec();
        datagram.extend(code.to_be_bytes());
        datagram.extend(crate::plain(message, MESSAGE_MAX).bytes());
        datagram.push(0);
        datagram
    }
}

/// The datagram that carries a block.
pub fn tftp_data(number: u16, content: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(4 + content.len());
    datagram.extend(DATA.to_be_bytes());
    datagram.extend(number.to_be_bytes());
    datagram.extend(content);
    datagram
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn read_request(body: &[u8]) -> Option<TftpHeard> {
    // Every string is ended by a zero, the last one too.
    let body = body.strip_suffix(&[0])?;
    let mut strings = body.split(|&byte| byte == 0);
    let path = strings.next()?;
    let printable = path.iter().all(|byte| (b' '..=b'~').contains(byte));
    if path.is_empty() || path.len() > PATH_BYTES_MAX || !printable {
        return None;
    }
    let mode = strings.next()?;
    if !mode.eq_ignore_ascii_case(b"octet") {
        return Some(TftpHeard::Unfit("only mode octet is served"));
    }
    let mut read = TftpRead {
        path: String::from_utf8_lossy(path).into_owned(),
        block_bytes: None,
        wants_size: false,
        timeout_seconds: None,
        window_blocks: None,
    };
    for _ in 0..OPTIONS_MAX {
        let Some(name) = strings.next() else {
            return Some(TftpHeard::Read(read));
        };
        read.take(&name.to_ascii_lowercase(), strings.next()?)?;
    }
    None
}

impl TftpRead {
    /// An option that is not known, or whose value is out of its range, is as if it were not there (RFC 2347); one
    /// that comes twice makes the request malformed.
    fn take(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        let value = decimal(value);
        let is_new = match name {
            b"blksize" => {
                let agreed = value.filter(|bytes| BLOCK_BYTES.contains(bytes));
                replace(
                    &mut self.block_bytes,
                    agreed.map(|b| at_most(b, BLOCK_BYTES_MAX)),
                )
            }
            b"tsize" => !std::mem::replace(&mut self.wants_size, value.is_some()),
            b"timeout" => {
                let seconds = value.and_then(|seconds| u8::try_from(seconds).ok());
                replace(
                    &mut self.timeout_seconds,
                    seconds.filter(|&seconds| seconds > 0),
                )
            }
            b"windowsize" => {
                let agreed = value.filter(|blocks| (1..=65_535).contains(blocks));
                replace(
                    &mut self.window_blocks,
                    agreed.map(|b| at_most(b, WINDOW_BLOCKS_MAX)),
                )
            }
            _ => true,
        };
        is_new.then_some(())
    }
}

/// Whether nothing was there before.
fn replace<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    let is_new = place.is_none();
    *place = value;
    is_new
}

fn at_most(value: u32, limit: u16) -> u16 {
    u16::try_from(value).map_or(limit, |value| value.min(limit))
}

fn decimal(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits
        .then(|| std::str::from_utf8(text).ok()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{TftpHeard, TftpRead, TftpRefusal};

    fn read(text: &str) -> Option<TftpHeard> {
        let mut datagram = vec![0, 1];
        datagram.extend(text.bytes());
        TftpHeard::parse(&datagram)
    }

    fn options(text: &str) -> TftpRead {
        match read(&format!("a\0octet\0{text}")) {
            Some(TftpHeard::Read(read)) => read,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_firmware_asks_is_understood() {
        // EDK2, after its first request for the size.
        let asked = options("tsize\x000\0blksize\x001468\0windowsize\x004\0");
        assert_eq!(asked.path, "a");
        assert_eq!(asked.block_bytes, Some(1468));
        assert_eq!(asked.window_blocks, Some(4));
        assert!(asked.wants_size);
        let plain = options("");
        assert_eq!((plain.block_bytes, plain.wants_size), (None, false));
    }

    #[test]
    fn large_wishes_are_cut_and_senseless_ones_ignored() {
        let asked = options("BLKSIZE\x0065464\0WindowSize\x0065535\0timeout\x00255\0");
        assert_eq!(asked.block_bytes, Some(1468));
        assert_eq!(asked.window_blocks, Some(32));
        assert_eq!(asked.timeout_seconds, Some(255));
        let asked =
            options("blksize\x007\0windowsize\x000\0timeout\x00256\0multicast\0\0tsize\0-1\0");
        assert_eq!(asked.block_bytes, None);
        assert_eq!(asked.window_blocks, None);
        assert_eq!(asked.timeout_seconds, None);
        assert!(!asked.wants_size);
    }

    #[test]
    fn malformed_requests_are_ignored() {
        for text in [
            "",
            "\0octet\0",
            "a",
            "a\0octet",
            "a\0octet\0blksize\0",
            "a\0octet\0blksize\x00512\0blksize\x00512\0",
            "a\nb\0octet\0",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(read(&format!("{}\0octet\0", "a".repeat(256))), None);
        let many = "x\x001\0".repeat(17);
        assert_eq!(read(&format!("a\0octet\0{many}")), None);
    }

    #[test]
    fn nobody_writes_and_no_byte_is_changed() {
        let write = TftpHeard::parse(b"\0\x02a\0octet\0");
        assert!(matches!(write, Some(TftpHeard::Unfit(_))));
        assert!(matches!(read("a\0netascii\0"), Some(TftpHeard::Unfit(_))));
    }

    #[test]
    fn a_refusal_is_read_as_one() {
        let heard = TftpHeard::parse(&TftpRefusal::NotFound.render("no such\nfile"));
        let Some(TftpHeard::Abort { code: 1, message }) = heard else {
            panic!("{heard:?}");
        };
        assert!(message.starts_with("no such") && !message.contains('\n'));
    }

    proptest! {
        #[test]
        fn no_datagram_breaks_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(TftpHeard::Read(read)) = TftpHeard::parse(&bytes) {
                prop_assert!(read.path.len() <= 255 && !read.path.contains('\0'));
                prop_assert!(read.block_bytes.is_none_or(|bytes| (8..=1468).contains(&bytes)));
                prop_assert!(read.window_blocks.is_none_or(|blocks| (1..=32).contains(&blocks)));
            }
        }
    }
}
