//! HTTP/1.1 as devices speak it: one request, one answer, read byte by byte as it comes (RFC 9112).
//!
//! ```text
//!            head complete                     all bytes, last chunk, or closed
//!   Head ──────────────────▶ Sized | Chunked | UntilClose ──────────────▶ Over
//!     └── too long, no HTTP ──▶ error      └── too long, no size ──▶ error
//! ```
//!
//! No socket is in here: bytes are fed, an answer comes out. Management controllers send chunks of any size, cut
//! anywhere, answer before they have read everything, and close when they like.

/// Longest head of an answer, in bytes.
const HEAD_MAX: usize = 32 << 10;
/// Longest body, in bytes.
const BODY_MAX: usize = 4 << 20;
/// Longest line with the size of a chunk, in bytes.
const SIZE_LINE_MAX: usize = 256;

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HttpError {
    /// The first line is not that of an HTTP answer.
    #[error("it is no HTTP: {0:?}")]
    Status(String),
    /// A line of the head, or the size of a chunk, makes no sense.
    #[error("it makes no sense: {0:?}")]
    Line(String),
    /// Longer than anything a device has to say.
    #[error("its {what} is longer than {max} bytes")]
    Long {
        /// Which part.
        what: &'static str,
        /// What is accepted.
        max: usize,
    },
    /// The connection was closed before the end.
    #[error("it was cut off after {0} bytes")]
    Cut(usize),
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status code, 100 to 599.
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    /// The body, without the marks of its chunks.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, whatever its case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// Whether the connection can take another request.
    pub(crate) fn keeps_open(&self) -> bool {
        let close = self.header("connection");
        !close.is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Sized(usize),
    /// Bytes of the present chunk still to come; 0: its size is to come.
    Chunk(usize),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailer,
    UntilClose,
    Over,
}

/// Reads one answer.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    stage: Stage,
    /// Received and not yet understood.
    pending: Vec<u8>,
    answer: Answer,
    received: usize,
}

impl AnswerReader {
    /// A reader for the answer to one request.
    pub(crate) fn new() -> AnswerReader {
        AnswerReader {
            stage: Stage::Head,
            pending: Vec::new(),
            answer: Answer::default(),
            received: 0,
        }
    }

    /// Whether not one byte has come yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.received == 0
    }

    /// Take bytes as they come; `true` when the answer is complete. What follows it is dropped.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<bool, HttpError> {
        self.received += bytes.len();
        self.pending.extend_from_slice(bytes);
        while self.step()? {}
        Ok(self.stage == Stage::Over)
    }

    /// The answer; an error when the connection was closed before its end.
    pub(crate) fn finish(self) -> Result<Answer, HttpError> {
        match self.stage {
            Stage::Over | Stage::UntilClose => Ok(self.answer),
            _ => Err(HttpError::Cut(self.received)),
        }
    }

    /// One step; `false` when more bytes are needed, or none.
    fn step(&mut self) -> Result<bool, HttpError> {
        match self.stage {
            Stage::Head => {
                let Some(head) = self.take_head()? else {
                    return Ok(false);
                };
                self.read_head(&head)?;
            }
            Stage::Sized(left) | Stage::Chunk(left) if left > 0 => {
                if self.pending.is_empty() {
                    return Ok(false);
                }
                let taken = left.min(self.pending.len());
                self.take_body(taken)?;
                self.stage = match self.stage {
                    Stage::Sized(_) if taken == left => Stage::Over,
                    Stage::Sized(_) => Stage::Sized(left - taken),
                    _ if taken == left => Stage::ChunkEnd,
                    _ => Stage::Chunk(left - taken),
                };
            }
            Stage::Sized(_) | Stage::Over => {
                self.stage = Stage::Over;
                self.pending.clear();
                return Ok(false);
            }
            Stage::Chunk(_) => {
                let Some(line) = self.take_line(SIZE_LINE_MAX, "chunk size")? else {
                    return Ok(false);
                };
                let digits = line.split(';').next().unwrap_or_default().trim();
                let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
                let size = usize::from_str_radix(digits, 16).ok().filter(|_| plain);
                match size.ok_or_else(|| HttpError::Line(line.clone()))? {
                    0 => self.stage = Stage::Trailer,
                    size if size > BODY_MAX => return Err(too_long()),
                    size => self.stage = Stage::Chunk(size),
                }
            }
            Stage::ChunkEnd => {
                let Some(line) = self.take_line(SIZE_LINE_MAX, "chunk size")? else {
                    return Ok(false);
                };
                if !line.is_empty() {
                    return Err(HttpError::Line(line));
                }
                self.stage = Stage::Chunk(0);
            }
            Stage::Trailer => {
                let Some(line) = self.take_line(HEAD_MAX, "trailer")? else {
                    return Ok(false);
                };
                if line.is_empty() {
                    self.stage = Stage::Over;
                }
            }
            Stage::UntilClose => {
                self.take_body(self.pending.len())?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_body(&mut self, length: usize) -> Result<(), HttpError> {
        if self.answer.body.len() + length > BODY_MAX {
            return Err(too_long());
        }
        self.answer.body.extend(self.pending.drain(..length));
        Ok(())
    }

    /// The head, without the empty line behind it.
    fn take_head(&mut self) -> Result<Option<String>, HttpError> {
        let end = self.pending.windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) if end <= HEAD_MAX => {
                let head: Vec<u8> = self.pending.drain(..end + 4).collect();
                Ok(Some(String::from_utf8_lossy(&head[..end]).into_owned()))
            }
            None if self.pending.len() <= HEAD_MAX => {
                // What is no HTTP from its first bytes on need not be read to its end.
                let start = &self.pending[..self.pending.len().min(5)];
                if !b"HTTP/".starts_with(start) && start != b"HTTP/" {
                    return Err(HttpError::Status(shown(&self.pending)));
                }
                Ok(None)
            }
            _ => Err(HttpError::Long {
                what: "head",
                max: HEAD_MAX,
            }),
        }
    }

    /// A line without its end.
    fn take_line(&mut self, max: usize, what: &'static str) -> Result<Option<String>, HttpError> {
        let end = self.pending.iter().take(max).position(|b| *b == b'\n');
        match end {
            Some(end) => {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let text = String::from_utf8_lossy(&line);
                Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            None if self.pending.len() < max => Ok(None),
            None => Err(HttpError::Long { what, max }),
        }
    }

    fn read_head(&mut self, head: &str) -> Result<(), HttpError> {
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status = parse_status(first);
        let status = status.ok_or_else(|| HttpError::Status(shown(first.as_bytes())))?;
        let mut headers = Vec::new();
        for line in lines {
            let colon = line.split_once(':');
            let (name, value) = colon.ok_or_else(|| HttpError::Line(line.to_owned()))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        if (100..200).contains(&status) {
            // "Continue" and the like: the answer is still to come.
            return Ok(());
        }
        self.answer.status = status;
        self.answer.headers = headers;
        let chunked = self.answer.header("transfer-encoding");
        let chunked = chunked.is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        self.stage = if status == 204 || status == 304 {
            Stage::Over
        } else if chunked {
            Stage::Chunk(0)
        } else if let Some(length) = self.answer.header("content-length") {
            let length: usize = length
                .parse()
                .map_err(|_| HttpError::Line(length.to_owned()))?;
            if length > BODY_MAX {
                return Err(too_long());
            }
            Stage::Sized(length)
        } else {
            Stage::UntilClose
        };
        Ok(())
    }
}

/// `HTTP/1.1 200 OK` (RFC 9112, section 4).
fn parse_status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.")?;
    let code = rest.split(' ').nth(1)?;
    let status = code.parse().ok().filter(|_| code.len() == 3)?;
    (100..600).contains(&status).then_some(status)
}

fn too_long() -> HttpError {
    HttpError::Long {
        what: "body",
        max: BODY_MAX,
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    use super::{Answer, AnswerReader, BODY_MAX, HttpError};

    fn read(bytes: &[u8]) -> Result<Answer, HttpError> {
        let mut reader = AnswerReader::new();
        reader.feed(bytes)?;
        reader.finish()
    }

    const CHUNKED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\n\
        Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n2;x=y\r\n\xc3\xa4\r\n0\r\nEnd: 1\r\n\r\n";

    #[test]
    fn an_answer_is_the_same_wherever_it_is_cut() {
        let whole = read(CHUNKED).unwrap();
        assert_eq!(
            (whole.status, whole.body.as_slice()),
            (200, "abcä".as_bytes())
        );
        for cut in 1..CHUNKED.len() {
            let mut reader = AnswerReader::new();
            assert!(!reader.feed(&CHUNKED[..cut]).unwrap(), "complete at {cut}");
            assert!(reader.feed(&CHUNKED[cut..]).unwrap());
            assert_eq!(reader.finish().unwrap(), whole);
        }
    }

    #[test]
    fn an_answer_that_was_cut_off_is_an_error() {
        for cut in 0..CHUNKED.len() {
            assert_eq!(read(&CHUNKED[..cut]), Err(HttpError::Cut(cut)));
        }
        let short = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc");
        assert!(matches!(short, Err(HttpError::Cut(_))));
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection() {
        let answer = read(b"HTTP/1.0 404 Not Found\r\nConnection: Close\r\n\r\nno").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (404, &b"no"[..]));
        assert!(!answer.keeps_open());
        assert!(
            read(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap()
                .keeps_open()
        );
    }

    #[test]
    fn what_is_no_http_is_told_at_once() {
        for garbage in [
            &b"SSH-2.0-OpenSSH"[..],
            b"\x16\x03\x01",
            b"HTTP/2 200\r\n\r\n",
            b"<html>",
        ] {
            assert!(
                matches!(read(garbage), Err(HttpError::Status(_))),
                "{garbage:?}"
            );
        }
        let bad = [
            &b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
        ];
        for bytes in bad {
            assert!(matches!(
                read(bytes),
                Err(HttpError::Line(_) | HttpError::Cut(_))
            ));
        }
    }

    #[test]
    fn nothing_is_longer_than_its_bound() {
        let long = |bytes: &[u8]| matches!(read(bytes), Err(HttpError::Long { .. }));
        assert!(long(
            format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(40 << 10)).as_bytes()
        ));
        assert!(long(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"));
        assert!(long(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"
        ));
        let many = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 5 << 20]].concat();
        assert!(long(&many));
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_answer_or_an_error(
            head in "(HTTP/1\\.[01] [0-9]{1,4} x\r\n)?([A-Za-z-]{1,20}: ?[a-z0-9]{0,12}\r\n){0,4}(Transfer-Encoding: chunked\r\n)?(\r\n)?",
            body in vec(any::<u8>(), 0..300),
            cut in 0_usize..400,
        ) {
            let bytes = [head.as_bytes(), &body].concat();
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut reader = AnswerReader::new();
            let fed = reader.feed(first).and_then(|_| reader.feed(second));
            if let Ok(answer) = fed.and_then(|_| reader.finish()) {
                assert!((100..600).contains(&answer.status) && answer.body.len() <= BODY_MAX);
            }
        }
    }
}
