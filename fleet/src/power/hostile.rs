//! Everything a device may say, for fuzzing.

use super::http::AnswerReader;
use super::{amt, ipmi, redfish, snmp};

/// Read bytes as every kind of answer that a power device may give; the first one says where the connection is cut.
/// Nothing comes of it but that it ends.
pub fn read_as_device(bytes: &[u8]) {
    let (cut, bytes) = bytes
        .split_first()
        .map_or((0, bytes), |(cut, rest)| (usize::from(*cut), rest));
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    let mut reader = AnswerReader::new();
    let fed = reader.feed(first).and_then(|_| reader.feed(second));
    if let Ok(answer) = fed.and_then(|_| reader.finish()) {
        redfish::read_as_document(&answer.body);
    }
    redfish::read_as_document(bytes);
    amt::read_as_answer(&String::from_utf8_lossy(bytes));
    ipmi::read_as_output(&String::from_utf8_lossy(bytes));
    snmp::read_as_output(&String::from_utf8_lossy(bytes));
}
