//! IGMP, byte for byte: versions 2 (RFC 2236) and 3 (RFC 3376), and the IPv4 header they travel in.
//!
//! The kernel joins groups and answers queriers; what is here is for the days on which that is not
//! enough: memberships told again without being asked, and queries where nobody asks.

use std::net::Ipv4Addr;
use std::time::Duration;

use thiserror::Error;

/// Protocol number in the IPv4 header.
pub(crate) const PROTOCOL: u8 = 2;
/// All systems of a network: where general queries go.
pub(crate) const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
/// All IGMPv3 routers of a network: where reports of version 3 go.
pub(crate) const ALL_V3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);

const QUERY: u8 = 0x11;
const REPORT_V1: u8 = 0x12;
const REPORT_V2: u8 = 0x16;
const LEAVE: u8 = 0x17;
const REPORT_V3: u8 = 0x22;

const HEADER_BYTES: usize = 8;
const QUERY_V3_BYTES: usize = 12;
const RECORD_BYTES: usize = 8;
const ADDRESS_BYTES: usize = 4;
/// Records of one report that are looked at: a datagram of 1500 bytes holds fewer.
const RECORDS_MAX: usize = 186;
/// IPv4 header with the Router Alert option, which IGMP requires.
const IP_HEADER_BYTES: usize = 24;
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// Internetwork control, as RFC 3376 asks for.
const TYPE_OF_SERVICE: u8 = 0xc0;

/// A message of IGMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Igmp {
    /// "Who listens to `group`?", or to anything when it is 0.0.0.0.
    Query {
        /// 1, 2 or 3.
        version: u8,
        /// The group, or 0.0.0.0 for all.
        group: Ipv4Addr,
        /// Longest time until the answer; in tenths of a second on the wire.
        response: Duration,
        /// How often the querier asks, in seconds; only version 3 says.
        interval: Duration,
    },
    /// "I listen to `group`", versions 1 and 2.
    Report {
        /// 1 or 2.
        version: u8,
        /// The group.
        group: Ipv4Addr,
    },
    /// "I listen to `group` no more."
    Leave {
        /// The group.
        group: Ipv4Addr,
    },
    /// "This is what I listen to", version 3.
    ReportV3 {
        /// One record for each group; at most 186 are taken.
        records: Vec<GroupRecord>,
    },
}

/// What a report of version 3 says of one group. Sources are not kept: nobody here filters by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// 1 to 6, see RFC 3376, 4.2.12; 2 is "everything but the sources named".
    pub kind: u8,
    /// The group.
    pub group: Ipv4Addr,
}

impl GroupRecord {
    /// "I listen to this group, whoever sends."
    pub const IS_EXCLUDE: u8 = 2;
}

/// Why bytes are no message of IGMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IgmpError {
    /// They end too early.
    #[error("truncated IGMP message")]
    Truncated,
    /// The checksum is wrong.
    #[error("IGMP message with a wrong checksum")]
    Damaged,
    /// A type that is not known.
    #[error("IGMP message of unknown type {0:#04x}")]
    Unknown(u8),
    /// The packet is no IPv4 packet with IGMP in it.
    #[error("no IGMP packet")]
    Foreign,
}

impl Igmp {
    /// Takes a message apart.
    ///
    /// # Errors
    /// See [`IgmpError`].
    pub fn parse(bytes: &[u8]) -> Result<Igmp, IgmpError> {
        if bytes.len() < HEADER_BYTES {
            return Err(IgmpError::Truncated);
        }
        if checksum(bytes) != 0 {
            return Err(IgmpError::Damaged);
        }
        let group = address(bytes, 4)?;
        match bytes[0] {
            QUERY => parse_query(bytes, group),
            REPORT_V1 => Ok(Igmp::Report { version: 1, group }),
            REPORT_V2 => Ok(Igmp::Report { version: 2, group }),
            LEAVE => Ok(Igmp::Leave { group }),
            REPORT_V3 => parse_report_v3(bytes),
            other => Err(IgmpError::Unknown(other)),
        }
    }

    /// The bytes of a message, checksum included.
    pub fn pack(&self) -> Vec<u8> {
        let mut bytes = match self {
            Igmp::Query {
                version,
                group,
                response,
                interval,
            } => {
                let tenths = response.as_millis() / 100;
                let code = match version {
                    1 => 0,
                    2 => u8::try_from(tenths).unwrap_or(u8::MAX),
                    _ => code_of(tenths),
                };
                let mut bytes = vec![QUERY, code, 0, 0];
                bytes.extend(group.octets());
                if *version >= 3 {
                    // Robustness 2, no sources.
                    bytes.extend([2, code_of(u128::from(interval.as_secs())), 0, 0]);
                }
                bytes
            }
            Igmp::Report { version, group } => {
                let kind = if *version == 1 { REPORT_V1 } else { REPORT_V2 };
                [&[kind, 0, 0, 0], &group.octets()[..]].concat()
            }
            Igmp::Leave { group } => [&[LEAVE, 0, 0, 0], &group.octets()[..]].concat(),
            Igmp::ReportV3 { records } => {
                let records = &records[..records.len().min(RECORDS_MAX)];
                let mut bytes = vec![REPORT_V3, 0, 0, 0, 0, 0, 0, records.len() as u8];
                for record in records {
                    bytes.extend([record.kind, 0, 0, 0]);
                    bytes.extend(record.group.octets());
                }
                bytes
            }
        };
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
        bytes
    }

    /// Where a message goes.
    pub fn destination(&self) -> Ipv4Addr {
        match self {
            Igmp::Query { group, .. } if group.is_unspecified() => ALL_SYSTEMS,
            Igmp::Query { group, .. } | Igmp::Report { group, .. } => *group,
            Igmp::Leave { .. } => Ipv4Addr::new(224, 0, 0, 2),
            Igmp::ReportV3 { .. } => ALL_V3_ROUTERS,
        }
    }

    /// The whole IPv4 packet, with a life of one hop and the Router Alert option.
    pub fn packet(&self, source: Ipv4Addr) -> Vec<u8> {
        let message = self.pack();
        // At most 1500: see RECORDS_MAX.
        let total = (IP_HEADER_BYTES + message.len()) as u16;
        let mut packet = vec![0x40 | (IP_HEADER_BYTES / 4) as u8, TYPE_OF_SERVICE];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 1, PROTOCOL, 0, 0]);
        packet.extend(source.octets());
        packet.extend(self.destination().octets());
        packet.extend(ROUTER_ALERT);
        let sum = checksum(&packet).to_be_bytes();
        packet[10..12].copy_from_slice(&sum);
        packet.extend(message);
        packet
    }

    /// Takes an IPv4 packet apart: who sent it, and what.
    ///
    /// # Errors
    /// See [`IgmpError`].
    pub fn parse_packet(packet: &[u8]) -> Result<(Ipv4Addr, Igmp), IgmpError> {
        let first = *packet.first().ok_or(IgmpError::Truncated)?;
        let header = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header < 20 || packet.get(9) != Some(&PROTOCOL) {
            return Err(IgmpError::Foreign);
        }
        let total = usize::from(u16::from_be_bytes(array(packet, 2)?));
        let message = packet.get(header..total).ok_or(IgmpError::Truncated)?;
        Ok((address(packet, 12)?, Igmp::parse(message)?))
    }
}

fn parse_query(bytes: &[u8], group: Ipv4Addr) -> Result<Igmp, IgmpError> {
    let code = bytes[1];
    let tenths = |count: u32| Duration::from_millis(u64::from(count) * 100);
    // RFC 3376, 7.1: the length tells version 3 from the others, a code of 0 tells version 1.
    let (version, response, interval) = match bytes.get(9) {
        Some(&interval) if bytes.len() >= QUERY_V3_BYTES => {
            let interval = Duration::from_secs(u64::from(value_of(interval)));
            (3, tenths(value_of(code)), interval)
        }
        _ if code == 0 => (1, tenths(100), Duration::ZERO),
        _ => (2, tenths(u32::from(code)), Duration::ZERO),
    };
    Ok(Igmp::Query {
        version,
        group,
        response,
        interval,
    })
}

fn parse_report_v3(bytes: &[u8]) -> Result<Igmp, IgmpError> {
    let count = usize::from(u16::from_be_bytes(array(bytes, 6)?)).min(RECORDS_MAX);
    let mut records = Vec::new();
    let mut at = HEADER_BYTES;
    for _ in 0..count {
        let [kind, auxiliary, high, low] = array(bytes, at)?;
        let group = address(bytes, at + 4)?;
        records.push(GroupRecord { kind, group });
        let sources = usize::from(u16::from_be_bytes([high, low]));
        at += RECORD_BYTES + (sources + usize::from(auxiliary)) * ADDRESS_BYTES;
        if at > bytes.len() {
            return Err(IgmpError::Truncated);
        }
    }
    Ok(Igmp::ReportV3 { records })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], IgmpError> {
    let part = bytes.get(at..).and_then(<[u8]>::first_chunk::<N>);
    part.copied().ok_or(IgmpError::Truncated)
}

fn address(bytes: &[u8], at: usize) -> Result<Ipv4Addr, IgmpError> {
    array::<ADDRESS_BYTES>(bytes, at).map(Ipv4Addr::from)
}

/// The internet checksum; 0 over bytes that contain their own.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// RFC 3376, 4.1.1: below 128 the value itself, above a mantissa of four bits and an exponent of three.
fn value_of(code: u8) -> u32 {
    if code < 128 {
        return u32::from(code);
    }
    let (exponent, mantissa) = (code >> 4 & 7, code & 0x0f);
    u32::from(mantissa | 0x10) << (exponent + 3)
}

/// The largest code whose value is not above `value`.
fn code_of(value: u128) -> u8 {
    let fits = |code: &u8| u128::from(value_of(*code)) <= value;
    (0..=u8::MAX).rev().find(fits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 192, 78, 70);

    fn any_address() -> impl Strategy<Value = Ipv4Addr> {
        any::<u32>().prop_map(Ipv4Addr::from)
    }

    fn any_message() -> impl Strategy<Value = Igmp> {
        let seconds = (1_u64..128).prop_map(Duration::from_secs);
        let query = (1_u8..=3, any_address(), 1_u64..128, seconds).prop_map(
            |(version, group, tenths, interval)| Igmp::Query {
                version,
                group,
                response: match version {
                    1 => Duration::from_secs(10),
                    _ => Duration::from_millis(tenths * 100),
                },
                interval: if version == 3 {
                    interval
                } else {
                    Duration::ZERO
                },
            },
        );
        let record =
            (1_u8..=6, any_address()).prop_map(|(kind, group)| GroupRecord { kind, group });
        let records = proptest::collection::vec(record, 0..RECORDS_MAX);
        prop_oneof![
            query,
            (1_u8..=2, any_address()).prop_map(|(version, group)| Igmp::Report { version, group }),
            any_address().prop_map(|group| Igmp::Leave { group }),
            records.prop_map(|records| Igmp::ReportV3 { records }),
        ]
    }

    proptest! {
        #[test]
        fn a_message_survives_the_wire(message in any_message(), source in any_address()) {
            prop_assert_eq!(Igmp::parse(&message.pack()), Ok(message.clone()));
            let packet = message.packet(source);
            prop_assert_eq!(checksum(&packet[..IP_HEADER_BYTES]), 0);
            prop_assert_eq!(Igmp::parse_packet(&packet), Ok((source, message)));
        }

        #[test]
        fn a_flipped_bit_is_noticed(message in any_message(), at in any::<usize>()) {
            let mut bytes = message.pack();
            let at = at % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            prop_assert_eq!(Igmp::parse(&bytes), Err(IgmpError::Damaged));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (Igmp::parse(&bytes), Igmp::parse_packet(&bytes));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_standards() {
        let group = GROUP;
        let report = Igmp::Report { version: 2, group };
        assert_eq!(report.pack(), [0x16, 0, 0xab, 0xf8, 239, 192, 78, 70]);
        let kind = GroupRecord::IS_EXCLUDE;
        let records = vec![GroupRecord { kind, group }];
        let report = Igmp::ReportV3 { records }.pack();
        assert_eq!(report[..8], [0x22, 0, 0x9d, 0xf7, 0, 0, 0, 1]);
        let query = Igmp::Query {
            version: 3,
            group: Ipv4Addr::UNSPECIFIED,
            response: Duration::from_secs(10),
            interval: Duration::from_secs(125),
        };
        assert_eq!(
            query.pack(),
            [0x11, 100, 0xec, 0x1e, 0, 0, 0, 0, 2, 125, 0, 0]
        );
    }

    #[test]
    fn long_times_have_a_code_of_their_own() {
        assert_eq!(value_of(0x8f), (0x0f | 0x10) << 3);
        assert_eq!(value_of(code_of(127)), 127);
        assert_eq!(value_of(code_of(1024)), 1024);
        assert_eq!(code_of(u128::MAX), u8::MAX);
    }
}
