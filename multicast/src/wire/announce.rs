//! The announce: several times a second the sender says, signed, what the session is and what it is
//! about to send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::block::{BlockId, MAX_PREAMBLE_BYTES, ObjectId};
use crate::family::Family;
use crate::guard::guard;
use crate::keys::{SIGNATURE_BYTES, SigningKey, VerifyKey};
use crate::seal::{Cipher, Sealing};
use crate::sender::{MAX_SYMBOL_BYTES, MIN_SYMBOL_BYTES};

use super::WireError;
use super::head::AnnounceHead;
use super::read::Reader;

/// Most deficits in one announce.
pub const MAX_SERVED: usize = 64;
/// Most acknowledged machines in one announce.
pub const MAX_ACKED: usize = 32;

/// Stands for: where the announce comes from.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A block for which symbols are still to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Which block.
    pub block: BlockId,
    /// Symbols of it that come after the announce.
    pub symbols: u16,
}

/// The state of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Number of the session.
    pub session: u32,
    /// Sequence number of the next data datagram: everything before it was sent.
    pub sequence: u32,
    /// Counts announces from 1; an old one is not believed again.
    pub number: u32,
    /// Whether the payload flows.
    pub started: bool,
    /// Whether the session is over.
    pub ended: bool,
    /// Key of the signature.
    pub verify_key: VerifyKey,
    /// Where reports are taken; `None`: where the announce comes from. An IPv6 address of one link only has no
    /// scope on the wire: it means the link that the announce came by.
    pub reply_to: Option<SocketAddr>,
    /// What is being sent.
    pub object_id: ObjectId,
    /// Length of the preamble, 1 to [`MAX_PREAMBLE_BYTES`].
    pub preamble_bytes: u32,
    /// Bytes of every symbol of the session: even, [`MIN_SYMBOL_BYTES`] to [`MAX_SYMBOL_BYTES`].
    pub symbol_bytes: u16,
    /// A machine reports about once in this many milliseconds, at least 1.
    pub interval_millis: u16,
    /// Machines known that are not done.
    pub receivers: u16,
    /// Deficits about to be served, at most [`MAX_SERVED`].
    pub served: Vec<Served>,
    /// Machines whose DONE has arrived, at most [`MAX_ACKED`].
    pub acked: Vec<u64>,
}

impl Announce {
    /// Takes a datagram apart that is not sealed, and checks its signature by the key it names. Whether that key is
    /// to be believed is for the caller to say.
    ///
    /// # Errors
    /// A datagram of another form, a field out of range, or a wrong signature.
    pub fn parse(datagram: &[u8]) -> Result<Announce, WireError> {
        let announce = Announce::peek(datagram)?;
        announce.check_signature(datagram)?;
        Ok(announce)
    }

    /// Takes a datagram apart that is not sealed, without checking its signature: enough to see whether it is
    /// news, and to believe nothing.
    ///
    /// # Errors
    /// A datagram of another form, or a field out of range.
    pub fn peek(datagram: &[u8]) -> Result<Announce, WireError> {
        let (signed, _) = split_signature(datagram)?;
        let mut reader = Reader::new(signed);
        let head = AnnounceHead::read(&mut reader)?;
        if head.sealing.is_some() {
            return Err(WireError::Field { field: "flags" });
        }
        Announce::parse_body(&head, reader)
    }

    /// Takes a sealed datagram apart, without checking its signature.
    pub(crate) fn open(
        cipher: &Cipher,
        datagram: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<Announce, WireError> {
        let (signed, _) = split_signature(datagram)?;
        let mut reader = Reader::new(signed);
        let head = AnnounceHead::read(&mut reader)?;
        if head.sealing.is_none() {
            return Err(WireError::Field { field: "flags" });
        }
        let sealed = reader.rest();
        let clear = &signed[..signed.len() - sealed.len()];
        let body = cipher.open(head.number, clear, sealed, room);
        Announce::parse_body(&head, Reader::new(body.ok_or(WireError::Unopened)?))
    }

    /// Whether the whole datagram is signed with the key it names. Asked last, because it costs most.
    pub(crate) fn check_signature(&self, datagram: &[u8]) -> Result<(), WireError> {
        let (signed, signature) = split_signature(datagram)?;
        let genuine = || self.verify_key.verifies(signed, signature);
        if guard!("announce_signature", genuine()) {
            Ok(())
        } else {
            Err(WireError::Forged)
        }
    }

    fn parse_body(head: &AnnounceHead, mut reader: Reader<'_>) -> Result<Announce, WireError> {
        let mut announce = Announce {
            started: head.started,
            ended: head.ended,
            session: head.session,
            sequence: head.sequence,
            number: head.number,
            verify_key: head.verify_key,
            reply_to: read_address(head.reply_by, &mut reader)?,
            object_id: ObjectId(reader.array()?),
            preamble_bytes: reader.u32()?,
            symbol_bytes: reader.u16()?,
            interval_millis: reader.u16()?,
            receivers: reader.u16()?,
            served: Vec::new(),
            acked: Vec::new(),
        };
        let served = usize::from(reader.u8()?);
        let acked = usize::from(reader.u8()?);
        announce.check(served, acked)?;
        for _ in 0..served {
            let block = BlockId(reader.u32()?);
            announce.served.push(Served {
                block,
                symbols: reader.u16()?,
            });
        }
        for _ in 0..acked {
            announce.acked.push(reader.u64()?);
        }
        reader.end()?;
        Ok(announce)
    }

    fn check(&self, served: usize, acked: usize) -> Result<(), WireError> {
        let symbols = MIN_SYMBOL_BYTES..=MAX_SYMBOL_BYTES;
        let field = if !(1..=MAX_PREAMBLE_BYTES).contains(&self.preamble_bytes) {
            "preamble bytes"
        } else if !guard!("symbol_bytes", symbols.contains(&self.symbol_bytes))
            || !self.symbol_bytes.is_multiple_of(2)
        {
            "symbol bytes"
        } else if self.interval_millis == 0 {
            "interval"
        } else if served > MAX_SERVED {
            "served"
        } else if acked > MAX_ACKED {
            "acknowledged"
        } else {
            return Ok(());
        };
        Err(WireError::Field { field })
    }

    /// Appends the signed datagram to `out`, not sealed. More than the bounds allow is left out.
    pub fn pack(&self, key: &SigningKey, out: &mut Vec<u8>) {
        let from = out.len();
        self.head(None).append(out);
        self.append_body(out);
        sign(key, from, out);
    }

    /// Appends the datagram to `out`, sealed and signed. No two announces with one number may be.
    pub(crate) fn seal(
        &self,
        key: &SigningKey,
        sealing: Sealing,
        cipher: &Cipher,
        out: &mut Vec<u8>,
    ) {
        let from = out.len();
        self.head(Some(sealing)).append(out);
        let body = out.len();
        self.append_body(out);
        cipher.seal(self.number, out, from, body);
        sign(key, from, out);
    }

    fn head(&self, sealing: Option<Sealing>) -> AnnounceHead {
        AnnounceHead {
            started: self.started,
            ended: self.ended,
            session: self.session,
            sequence: self.sequence,
            number: self.number,
            verify_key: self.verify_key,
            reply_by: self
                .reply_to
                .map_or(Family::V4, |address| Family::of(&address)),
            sealing,
        }
    }

    fn append_body(&self, out: &mut Vec<u8>) {
        let served = &self.served[..self.served.len().min(MAX_SERVED)];
        let acked = &self.acked[..self.acked.len().min(MAX_ACKED)];
        let reply_to = self.reply_to.unwrap_or(NOWHERE);
        match reply_to.ip() {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
        out.extend_from_slice(&reply_to.port().to_be_bytes());
        out.extend_from_slice(&self.object_id.0);
        out.extend_from_slice(&self.preamble_bytes.to_be_bytes());
        out.extend_from_slice(&self.symbol_bytes.to_be_bytes());
        out.extend_from_slice(&self.interval_millis.to_be_bytes());
        out.extend_from_slice(&self.receivers.to_be_bytes());
        out.extend_from_slice(&[served.len() as u8, acked.len() as u8]);
        for Served { block, symbols } in served {
            out.extend_from_slice(&block.0.to_be_bytes());
            out.extend_from_slice(&symbols.to_be_bytes());
        }
        acked
            .iter()
            .for_each(|id| out.extend_from_slice(&id.to_be_bytes()));
    }
}

fn split_signature(datagram: &[u8]) -> Result<(&[u8], &[u8; SIGNATURE_BYTES]), WireError> {
    datagram.split_last_chunk().ok_or(WireError::Truncated)
}

fn sign(key: &SigningKey, from: usize, out: &mut Vec<u8>) {
    let signature = key.sign(&out[from..]);
    out.extend_from_slice(&signature);
}

fn read_address(family: Family, reader: &mut Reader<'_>) -> Result<Option<SocketAddr>, WireError> {
    let address: IpAddr = match family {
        Family::V4 => Ipv4Addr::from(reader.array()?).into(),
        Family::V6 => Ipv6Addr::from(reader.array()?).into(),
    };
    let address = SocketAddr::new(address, reader.u16()?);
    // There is one way to say "where this comes from", and it is the short one.
    match family {
        Family::V6 if address.ip().is_unspecified() => Err(WireError::Field {
            field: "reply address",
        }),
        _ => Ok(Some(address).filter(|address| *address != NOWHERE)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(key: &SigningKey) -> Announce {
        Announce {
            session: 7,
            sequence: 900,
            number: 3,
            started: true,
            ended: false,
            verify_key: key.verify_key(),
            reply_to: Some(SocketAddr::from(([192, 0, 2, 7], 4001))),
            object_id: ObjectId([9; 32]),
            preamble_bytes: 5000,
            symbol_bytes: 1452,
            interval_millis: 20,
            receivers: 8,
            served: vec![Served {
                block: BlockId(4),
                symbols: 12,
            }],
            acked: vec![u64::MAX, 1],
        }
    }

    #[test]
    fn an_announce_survives_the_wire() {
        let key = SigningKey::from_seed(&[1; 32]);
        let mut out = Vec::new();
        sample(&key).pack(&key, &mut out);
        assert_eq!(Announce::parse(&out), Ok(sample(&key)));
        assert_eq!(out.len(), 96 + 6 + 16 + 64);
    }

    #[test]
    fn an_ipv6_reply_address_is_longer_and_survives_too() {
        let key = SigningKey::from_seed(&[1; 32]);
        let mut out = Vec::new();
        let announce = Announce {
            reply_to: Some("[2001:db8::7]:4001".parse().expect("an address")),
            ..sample(&key)
        };
        announce.pack(&key, &mut out);
        assert_eq!(Announce::parse(&out), Ok(announce));
        assert_eq!(out.len(), 96 + 12 + 6 + 16 + 64);
    }

    #[test]
    fn nowhere_is_said_in_one_way() {
        let key = SigningKey::from_seed(&[1; 32]);
        let mut out = Vec::new();
        let announce = Announce {
            reply_to: Some("[::]:0".parse().expect("an address")),
            ..sample(&key)
        };
        announce.pack(&key, &mut out);
        let field = "reply address";
        assert_eq!(Announce::parse(&out), Err(WireError::Field { field }));
    }

    #[test]
    fn the_fullest_announce_fits_the_smallest_symbol_twice() {
        let key = SigningKey::from_seed(&[1; 32]);
        let served = vec![
            Served {
                block: BlockId(4),
                symbols: 12
            };
            500
        ];
        let full = Announce {
            served,
            acked: vec![5; 500],
            ..sample(&key)
        };
        let mut out = Vec::new();
        full.pack(&key, &mut out);
        assert_eq!(out.len(), 800);
        assert!(Announce::parse(&out).is_ok());
    }

    #[test]
    fn a_changed_announce_or_another_key_is_forged() {
        let key = SigningKey::from_seed(&[1; 32]);
        let mut out = Vec::new();
        sample(&key).pack(&SigningKey::from_seed(&[2; 32]), &mut out);
        assert_eq!(Announce::parse(&out), Err(WireError::Forged));
        out.clear();
        sample(&key).pack(&key, &mut out);
        out[9] ^= 1;
        assert_eq!(Announce::parse(&out), Err(WireError::Forged));
    }
}
