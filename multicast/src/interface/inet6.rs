//! The IPv6 addresses of this machine, as the kernel lists them in `/proc/net/if_inet6`: with their flags, which
//! `getifaddrs` leaves out. An address that is still being tried (duplicate address detection, RFC 4862) cannot be used.

use std::{fs, io, net::Ipv6Addr};

/// Where the kernel lists them; it is absent where there is no IPv6.
const LIST: &str = "/proc/net/if_inet6";
/// `IFA_F_TEMPORARY`: it changes once in a while (RFC 8981).
const TEMPORARY: u8 = 0x01;
/// `IFA_F_DADFAILED`: somebody else has it.
const DUPLICATE: u8 = 0x08;
/// `IFA_F_DEPRECATED`: what is new should take another.
const DEPRECATED: u8 = 0x20;
/// `IFA_F_TENTATIVE`: whether somebody else has it is not known yet.
const TENTATIVE: u8 = 0x40;

/// An address that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inet6 {
    pub(super) name: String,
    pub(super) address: Ipv6Addr,
    /// What is best for a session comes first: an address that lasts, and one that routers carry.
    rank: (bool, bool, bool),
}

/// The usable addresses of all interfaces, for each the best first.
pub(super) fn list() -> io::Result<Vec<Inet6>> {
    match fs::read_to_string(LIST) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Vec<Inet6> {
    let mut found: Vec<Inet6> = text.lines().filter_map(parse_line).collect();
    // Stable: what is equal stays as the kernel has it.
    found.sort_by_key(|entry| entry.rank);
    found
}

/// Address, index, prefix length, scope and flags in hexadecimal digits, and the name.
fn parse_line(line: &str) -> Option<Inet6> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [address, _, _, _, flags, name] = fields[..] else {
        return None;
    };
    let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (flags & (TENTATIVE | DUPLICATE) == 0).then(|| Inet6 {
        name: name.to_owned(),
        address,
        rank: (
            flags & DEPRECATED != 0,
            address.is_unicast_link_local(),
            flags & TEMPORARY != 0,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasting_addresses_come_first_and_those_being_tried_not_at_all() {
        let text = "\
fe800000000000000000000000000001 02 40 20 80     eth0
20010db8000000000000000000000001 02 40 00 21     eth0
20010db8000000000000000000000002 02 40 00 01     eth0
20010db8000000000000000000000003 02 40 00 40     eth0
20010db8000000000000000000000004 02 40 00 c8     eth0
20010db8000000000000000000000005 02 40 00 00     eth0
00000000000000000000000000000001 01 80 10 80       lo
nonsense
zz 02 40 00 00 eth0
";
        let found: Vec<String> = parse(text)
            .iter()
            .map(|entry| format!("{} {}", entry.name, entry.address))
            .collect();
        let expected = [
            "eth0 2001:db8::5",
            "lo ::1",
            "eth0 2001:db8::2",
            "eth0 fe80::1",
            "eth0 2001:db8::1",
        ];
        assert_eq!(found, expected);
    }
}
