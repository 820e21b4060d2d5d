//! The messages of DHCPv6 that one address needs (RFC 8415, sections 8 and 21), to and from bytes.

use std::net::Ipv6Addr;
use std::time::Duration;

use netflash_pxe::Mac;

use super::Lease;

/// Options: client and server, the association with its address, what we ask for, time, and what became of it.
const CLIENT: u16 = 1;
const SERVER: u16 = 2;
const ASSOCIATION: u16 = 3;
const ADDRESS: u16 = 5;
const REQUESTED: u16 = 6;
const ELAPSED: u16 = 8;
const STATUS: u16 = 13;
/// `SOL_MAX_RT`: who solicits must ask for it.
const SOLICIT_MAX: u16 = 82;
/// Longest name of a server (DUID), in bytes.
const NAME_MAX: usize = 130;
/// Messages of a server: an offer, and an answer.
const ADVERTISE: u8 = 2;
const REPLY: u8 = 7;

/// What we say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Solicit = 1,
    Request = 3,
    Renew = 5,
    Rebind = 6,
}

/// A message of ours.
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    pub(super) transaction: u32,
    pub(super) own: &'a [u8],
    pub(super) server: Option<&'a [u8]>,
    pub(super) association: u32,
    pub(super) wish: Option<Ipv6Addr>,
    pub(super) elapsed: Duration,
}

/// A message of a server, as far as it is about our address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// An offer.
    Advertise(Lease),
    /// The address is ours.
    Granted(Lease),
    /// There is no address, or no more: from the server of this name.
    Refused(Vec<u8>),
}

/// The machine's name (DUID): by its UUID (RFC 6355), as firmware and iPXE do, else by the card's address.
pub(super) fn own_name(mac: Mac, uuid: Option<[u8; 16]>) -> Vec<u8> {
    match uuid {
        Some(uuid) => [&[0, 4], &uuid[..]].concat(),
        None => [&[0, 3, 0, 1], &mac.0[..]].concat(),
    }
}

impl Message<'_> {
    pub(super) fn pack(&self) -> Vec<u8> {
        let [_, transaction @ ..] = self.transaction.to_be_bytes();
        let mut out = vec![self.kind as u8];
        out.extend(transaction);
        option(&mut out, CLIENT, self.own);
        if let Some(server) = self.server {
            option(&mut out, SERVER, server);
        }
        let hundredths = u16::try_from(self.elapsed.as_millis() / 10).unwrap_or(u16::MAX);
        option(&mut out, ELAPSED, &hundredths.to_be_bytes());
        option(&mut out, REQUESTED, &SOLICIT_MAX.to_be_bytes());
        // The times are the server's to say.
        let mut association = [self.association.to_be_bytes(), [0; 4], [0; 4]].concat();
        if let Some(wish) = self.wish {
            let address = [&wish.octets()[..], &[0; 8]].concat();
            option(&mut association, ADDRESS, &address);
        }
        option(&mut out, ASSOCIATION, &association);
        out
    }
}

impl Reply {
    /// A message for this client and transaction; nothing when it is not, or is damaged.
    pub(super) fn read(
        bytes: &[u8],
        transaction: u32,
        own: &[u8],
        association: u32,
    ) -> Option<Reply> {
        let ([kind, named @ ..], rest) = bytes.split_first_chunk::<4>()?;
        if *named != transaction.to_be_bytes()[1..] {
            return None;
        }
        let (mut for_us, mut server, mut refused, mut found) = (false, None, false, None);
        for (code, value) in options(rest)? {
            match code {
                CLIENT => for_us = value == own,
                SERVER if value.len() <= NAME_MAX => server = Some(value.to_vec()),
                STATUS => refused |= is_refusal(value),
                ASSOCIATION if value.starts_with(&association.to_be_bytes()) => {
                    found = Some(Granted::read(value)?);
                }
                _ => {}
            }
        }
        let server = server.filter(|_| for_us)?;
        let granted = found.filter(|found| !refused && !found.refused);
        let lease = granted.and_then(|found| {
            let (address, seconds) = found.address?;
            Some(Lease {
                address,
                server: server.clone(),
                seconds,
                renew: found.renew,
                rebind: found.rebind,
            })
        });
        match (*kind, lease) {
            (ADVERTISE, Some(lease)) => Some(Reply::Advertise(lease)),
            (REPLY, Some(lease)) => Some(Reply::Granted(lease)),
            (REPLY, None) => Some(Reply::Refused(server)),
            _ => None,
        }
    }
}

/// The association as a server fills it in.
struct Granted {
    renew: u32,
    rebind: u32,
    address: Option<(Ipv6Addr, u32)>,
    refused: bool,
}

impl Granted {
    fn read(value: &[u8]) -> Option<Granted> {
        let (head, rest) = value.split_at_checked(12)?;
        let mut granted = Granted {
            renew: number(head, 4)?,
            rebind: number(head, 8)?,
            address: None,
            refused: false,
        };
        for (code, value) in options(rest)? {
            match code {
                STATUS => granted.refused |= is_refusal(value),
                ADDRESS if granted.address.is_none() => {
                    let (address, rest) = value.split_first_chunk::<16>()?;
                    let address = Ipv6Addr::from(*address);
                    // Preferred life first, which is the shorter one. None left: it is being taken away.
                    let seconds = number(rest, 4)?;
                    let usable =
                        seconds > 0 && !address.is_unspecified() && !address.is_multicast();
                    granted.address = usable.then_some((address, seconds));
                }
                _ => {}
            }
        }
        Some(granted)
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_be_bytes());
    // What we write is short: names of at most 130 bytes, and an address.
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
}

/// The options of a message; nothing when one is longer than what is there.
fn options(mut rest: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let ([a, b, c, d], behind) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*c, *d]));
        let (value, behind) = behind.split_at_checked(length)?;
        found.push((u16::from_be_bytes([*a, *b]), value));
        rest = behind;
    }
    Some(found)
}

/// A status of zero is success; one too short to be read is none.
fn is_refusal(value: &[u8]) -> bool {
    !value.starts_with(&[0, 0])
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
