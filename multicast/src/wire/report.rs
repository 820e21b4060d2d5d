//! The report: what one machine lacks, and how it is doing. Unicast to the sender.

use crate::block::BlockId;
use crate::receiver::MAX_NAME_BYTES;
use crate::seal::Cipher;

use super::head::{ACKNOWLEDGE, PHASE, REPORT_HEAD_BYTES, ReportHead};
use super::read::{Reader, append_crc, split_crc};
use super::{SEALED, WireError};

/// Most runs in one report, so that it fits any datagram of MTU 1500.
pub const MAX_RUNS: usize = 130;
/// A deficit that says "all of it", whatever the number of symbols.
pub const WHOLE: u16 = u16::MAX;

/// How far a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is fetching the preamble.
    Joining,
    /// It has the preamble and is finding out what it lacks.
    Surveying,
    /// It lacks blocks.
    Receiving,
    /// It has every block and is making them final.
    Settling,
    /// It is done.
    Done,
    /// It gives up.
    Leaving,
}

const PHASES: [Phase; 6] = [
    Phase::Joining,
    Phase::Surveying,
    Phase::Receiving,
    Phase::Settling,
    Phase::Done,
    Phase::Leaving,
];

/// Neighbouring blocks that lack the same number of symbols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: BlockId,
    /// How many, at least 1.
    pub count: u32,
    /// Symbols each lacks, or [`WHOLE`]. Zero: nothing, but its verdict is not known yet.
    pub deficit: u16,
}

/// The state of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Session it belongs to.
    pub session: u32,
    /// How far the machine is.
    pub phase: Phase,
    /// Whether an announce shall acknowledge this report.
    pub acknowledge: bool,
    /// Number the server gave the machine; 0 without a server.
    pub machine: u32,
    /// Number of the newest announce the machine has heard.
    pub echo: u32,
    /// Deficits count what came before this sequence number.
    pub as_of: u32,
    /// Counts the reports of this machine from 1.
    pub number: u32,
    /// Number the machine drew.
    pub receiver: u64,
    /// Data datagrams sent while it listened, modulo 2^32.
    pub expected: u32,
    /// Of these, those that came, modulo 2^32.
    pub received: u32,
    /// Datagrams its socket dropped.
    pub overflow: u32,
    /// KiB waiting for its disk.
    pub backlog_kib: u32,
    /// Bytes of symbols it could use.
    pub useful_bytes: u64,
    /// Blocks it had to get at first.
    pub wanted_blocks: u32,
    /// Blocks of these it has.
    pub done_blocks: u32,
    /// The report tells all about the blocks from `window.0` to before `window.1`:
    /// those that no run names are not lacking.
    pub window: (BlockId, BlockId),
    /// What it lacks, ascending, at most [`MAX_RUNS`].
    pub runs: Vec<Run>,
    /// Its name, at most [`MAX_NAME_BYTES`] bytes.
    pub name: String,
}

impl Report {
    /// Takes a datagram apart that is not sealed, and checks its CRC32.
    ///
    /// # Errors
    /// A datagram of another form, damaged, or with a field out of range.
    pub fn parse(datagram: &[u8]) -> Result<Report, WireError> {
        let (body, intact) = split_crc(datagram)?;
        if !intact {
            return Err(WireError::Damaged);
        }
        let mut reader = Reader::new(body);
        let head = ReportHead::read(&mut reader)?;
        if head.flags & SEALED != 0 {
            return Err(WireError::Field { field: "flags" });
        }
        Report::parse_body(&head, reader)
    }

    /// Takes a sealed datagram apart.
    pub(crate) fn open(
        cipher: &Cipher,
        datagram: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<Report, WireError> {
        let head = ReportHead::peek(datagram)?;
        if head.flags & SEALED == 0 {
            return Err(WireError::Field { field: "flags" });
        }
        let (clear, sealed) = datagram.split_at(REPORT_HEAD_BYTES);
        let body = cipher.open(head.number, clear, sealed, room);
        Report::parse_body(&head, Reader::new(body.ok_or(WireError::Unopened)?))
    }

    fn parse_body(head: &ReportHead, mut reader: Reader<'_>) -> Result<Report, WireError> {
        let phase = PHASES.get(usize::from(head.flags & PHASE));
        let mut report = Report {
            phase: *phase.ok_or(WireError::Field { field: "phase" })?,
            acknowledge: head.flags & ACKNOWLEDGE != 0,
            session: head.session,
            machine: head.machine,
            number: head.number,
            receiver: head.receiver,
            as_of: reader.u32()?,
            echo: reader.u32()?,
            expected: reader.u32()?,
            received: reader.u32()?,
            overflow: reader.u32()?,
            backlog_kib: reader.u32()?,
            useful_bytes: reader.u64()?,
            wanted_blocks: reader.u32()?,
            done_blocks: reader.u32()?,
            window: (BlockId(reader.u32()?), BlockId(reader.u32()?)),
            runs: Vec::new(),
            name: String::new(),
        };
        let name = usize::from(reader.u8()?);
        let runs = usize::from(reader.u8()?);
        if name > MAX_NAME_BYTES {
            return Err(WireError::Field { field: "name" });
        }
        if runs > MAX_RUNS {
            return Err(WireError::Field { field: "runs" });
        }
        report.name = printable(reader.bytes(name)?);
        report.parse_runs(&mut reader, runs)?;
        reader.end()?;
        Ok(report)
    }

    fn parse_runs(&mut self, reader: &mut Reader<'_>, count: usize) -> Result<(), WireError> {
        let mut from = self.window.0.0;
        for _ in 0..count {
            let run = Run {
                first: BlockId(reader.u32()?),
                count: reader.u32()?,
                deficit: reader.u16()?,
            };
            let end = run.first.0.checked_add(run.count).unwrap_or(0);
            if run.count == 0 || run.first.0 < from || end > self.window.1.0 || end < run.first.0 {
                return Err(WireError::Field { field: "run" });
            }
            from = end;
            self.runs.push(run);
        }
        Ok(())
    }

    /// Appends the datagram to `out`, not sealed. More than the bounds allow is left out.
    pub fn pack(&self, out: &mut Vec<u8>) {
        let from = out.len();
        self.head(0).append(out);
        self.append_body(out);
        append_crc(out, from);
    }

    /// Appends the datagram to `out`, sealed. No two reports of one start of a machine may have one number.
    pub(crate) fn seal(&self, cipher: &Cipher, out: &mut Vec<u8>) {
        let from = out.len();
        self.head(SEALED).append(out);
        self.append_body(out);
        cipher.seal(self.number, out, from, from + REPORT_HEAD_BYTES);
    }

    fn head(&self, sealed: u8) -> ReportHead {
        ReportHead {
            flags: self.phase as u8 | (u8::from(self.acknowledge) * ACKNOWLEDGE) | sealed,
            session: self.session,
            machine: self.machine,
            number: self.number,
            receiver: self.receiver,
        }
    }

    fn append_body(&self, out: &mut Vec<u8>) {
        let name = &self.name.as_bytes()[..self.name.len().min(MAX_NAME_BYTES)];
        let runs = &self.runs[..self.runs.len().min(MAX_RUNS)];
        for count in [
            self.as_of,
            self.echo,
            self.expected,
            self.received,
            self.overflow,
            self.backlog_kib,
        ] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(&self.useful_bytes.to_be_bytes());
        for count in [
            self.wanted_blocks,
            self.done_blocks,
            self.window.0.0,
            self.window.1.0,
        ] {
            out.extend_from_slice(&count.to_be_bytes());
        }
        out.extend_from_slice(&[name.len() as u8, runs.len() as u8]);
        out.extend_from_slice(name);
        for run in runs {
            out.extend_from_slice(&run.first.0.to_be_bytes());
            out.extend_from_slice(&run.count.to_be_bytes());
            out.extend_from_slice(&run.deficit.to_be_bytes());
        }
    }
}

/// Text from a machine ends on terminals: nothing in it may steer one.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|letter| !letter.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        Report {
            session: 7,
            phase: Phase::Receiving,
            acknowledge: true,
            machine: 12,
            echo: 77,
            as_of: 1000,
            number: 5,
            receiver: 0xfeed,
            expected: 900,
            received: 890,
            overflow: 1,
            backlog_kib: 2048,
            useful_bytes: 1 << 33,
            wanted_blocks: 40,
            done_blocks: 3,
            window: (BlockId(0), BlockId(40)),
            runs: vec![
                Run {
                    first: BlockId(3),
                    count: 1,
                    deficit: 17,
                },
                Run {
                    first: BlockId(4),
                    count: 36,
                    deficit: WHOLE,
                },
            ],
            name: "lab3-01".into(),
        }
    }

    fn packed(report: &Report) -> Vec<u8> {
        let mut out = Vec::new();
        report.pack(&mut out);
        out
    }

    #[test]
    fn a_report_survives_the_wire() {
        assert_eq!(Report::parse(&packed(&sample())), Ok(sample()));
        assert_eq!(packed(&sample()).len(), 72 + 7 + 2 * 10 + 4);
    }

    #[test]
    fn runs_outside_the_window_or_out_of_order_are_refused() {
        let wrong = Err(WireError::Field { field: "run" });
        let run = |first, count| Run {
            first: BlockId(first),
            count,
            deficit: 1,
        };
        for runs in [
            vec![run(39, 2)],
            vec![run(5, 0)],
            vec![run(5, 2), run(6, 1)],
            vec![run(8, u32::MAX - 8)],
            vec![run(8, u32::MAX)],
        ] {
            assert_eq!(Report::parse(&packed(&Report { runs, ..sample() })), wrong);
        }
    }

    #[test]
    fn names_cannot_steer_a_terminal() {
        let report = Report {
            name: "a\x1b[2Jb\u{9b}c".into(),
            ..sample()
        };
        let parsed = Report::parse(&packed(&report)).map(|report| report.name);
        assert_eq!(parsed.as_deref(), Ok("a[2Jbc"));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let whole = packed(&sample());
        assert!((0..whole.len()).all(|length| Report::parse(&whole[..length]).is_err()));
    }
}
