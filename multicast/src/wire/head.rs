//! What a datagram says in the clear although it is sealed: enough to find the key that opens the rest.

use crate::family::Family;
use crate::keys::VerifyKey;
use crate::seal::{Binding, Salt, Sealing, Suite};

use super::read::Reader;
use super::{Kind, SEALED, WireError};

/// The payload flows.
pub(super) const STARTED: u8 = 1;
/// The session is over.
pub(super) const ENDED: u8 = 2;
/// Reports are taken at an IPv6 address: the field is 12 bytes longer.
pub(super) const REPLY_BY_IPV6: u8 = 4;
/// Lower bits of a report's second byte: how far the machine is.
pub(super) const PHASE: u8 = 0x0f;
/// The machine asks for an acknowledgement.
pub(super) const ACKNOWLEDGE: u8 = 0x40;
/// Bytes of a report that stay in the clear.
pub(super) const REPORT_HEAD_BYTES: usize = 22;

/// The beginning of an announce: whose it is, and whether it is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AnnounceHead {
    pub(crate) started: bool,
    pub(crate) ended: bool,
    pub(crate) session: u32,
    pub(crate) sequence: u32,
    pub(crate) number: u32,
    pub(crate) verify_key: VerifyKey,
    /// Of which length the address is where reports are taken.
    pub(crate) reply_by: Family,
    /// How the rest is sealed, if it is.
    pub(crate) sealing: Option<Sealing>,
}

impl AnnounceHead {
    /// The head of a datagram.
    pub(crate) fn peek(datagram: &[u8]) -> Result<AnnounceHead, WireError> {
        AnnounceHead::read(&mut Reader::new(datagram))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<AnnounceHead, WireError> {
        let first = reader.u8()?;
        if first != Kind::Announce.first_byte() {
            return Err(WireError::Foreign { first });
        }
        let flags = reader.u8()?;
        if flags & !(STARTED | ENDED | REPLY_BY_IPV6 | SEALED) != 0 {
            return Err(WireError::Field { field: "flags" });
        }
        let mut head = AnnounceHead {
            started: flags & STARTED != 0,
            ended: flags & ENDED != 0,
            session: reader.u32()?,
            sequence: reader.u32()?,
            number: reader.u32()?,
            verify_key: VerifyKey(reader.array()?),
            reply_by: match flags & REPLY_BY_IPV6 {
                0 => Family::V4,
                _ => Family::V6,
            },
            sealing: None,
        };
        if flags & SEALED != 0 {
            let suite =
                Suite::from_number(reader.u8()?).ok_or(WireError::Field { field: "suite" })?;
            let salt = Salt(reader.array()?);
            head.sealing = Some(Sealing { suite, salt });
        }
        Ok(head)
    }

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let flags = u8::from(self.started) * STARTED
            + u8::from(self.ended) * ENDED
            + u8::from(self.reply_by == Family::V6) * REPLY_BY_IPV6
            + u8::from(self.sealing.is_some()) * SEALED;
        out.extend_from_slice(&[Kind::Announce.first_byte(), flags]);
        out.extend_from_slice(&self.session.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.verify_key.0);
        if let Some(sealing) = &self.sealing {
            out.push(sealing.suite as u8);
            out.extend_from_slice(&sealing.salt.0);
        }
    }

    /// What the keys of this sender are bound to, if it seals.
    pub(crate) fn binding(&self) -> Option<Binding> {
        self.sealing.map(|sealing| Binding {
            session: self.session,
            sealing,
            sender: self.verify_key,
        })
    }
}

/// The beginning of a report: whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReportHead {
    pub(crate) flags: u8,
    pub(crate) session: u32,
    pub(crate) machine: u32,
    pub(crate) number: u32,
    pub(crate) receiver: u64,
}

impl ReportHead {
    /// The head of a datagram.
    pub(crate) fn peek(datagram: &[u8]) -> Result<ReportHead, WireError> {
        ReportHead::read(&mut Reader::new(datagram))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<ReportHead, WireError> {
        let first = reader.u8()?;
        if first != Kind::Report.first_byte() {
            return Err(WireError::Foreign { first });
        }
        let flags = reader.u8()?;
        if flags & !(PHASE | ACKNOWLEDGE | SEALED) != 0 {
            return Err(WireError::Field { field: "flags" });
        }
        Ok(ReportHead {
            flags,
            session: reader.u32()?,
            machine: reader.u32()?,
            number: reader.u32()?,
            receiver: reader.u64()?,
        })
    }

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[Kind::Report.first_byte(), self.flags]);
        out.extend_from_slice(&self.session.to_be_bytes());
        out.extend_from_slice(&self.machine.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.receiver.to_be_bytes());
    }
}
