//! Which group and port each session of the server has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The part of a group that its Ethernet address carries (RFC 1112).
const MAC_BITS: u32 = (1 << 23) - 1;
/// Groups of one /8, such as the 239/8 of an organisation.
const HOST_BITS: u32 = (1 << 24) - 1;
/// The first port that is not reserved.
const PORT_MIN: u16 = 1024;

/// The part of an IPv6 group that its Ethernet address carries (RFC 2464).
const MAC_BITS_IPV6: u128 = u32::MAX as u128;

/// Whether switches take this group for one of 224.0.0.x: its Ethernet address is 01:00:5e:00:00:xx, which they
/// send to every port and often to their own processor.
fn is_flooded(group: Ipv4Addr) -> bool {
    u32::from(group) & MAC_BITS < 256
}

/// Group and port of the session in this slot, counted on from `first` within its network. Each session has a port of
/// its own: a socket bound to a port hears every group of that port.
pub(super) fn group_of(first: SocketAddr, slot: u32) -> SocketAddr {
    let group: IpAddr = match first.ip() {
        IpAddr::V4(first) => ipv4_group(first, slot).into(),
        IpAddr::V6(first) => ipv6_group(first, slot).into(),
    };
    let ports = u32::from(u16::MAX - PORT_MIN) + 1;
    let port = match first.port().checked_sub(PORT_MIN) {
        Some(above) => PORT_MIN + ((u32::from(above) + slot) % ports) as u16,
        // A reserved port was asked for: the next ones are likely to be free too.
        None => first.port().max(1) + slot as u16,
    };
    SocketAddr::new(group, port)
}

/// Within the /8; flooded groups are left out.
fn ipv4_group(first: Ipv4Addr, slot: u32) -> Ipv4Addr {
    let (network, host) = (u32::from(first) & !HOST_BITS, u32::from(first) & HOST_BITS);
    (0..=HOST_BITS)
        .map(|step| Ipv4Addr::from(network | (host + step) & HOST_BITS))
        .filter(|&group| !is_flooded(group))
        .nth(slot as usize)
        .expect("a /8 has more groups than there are slots")
}

/// Within the /96, so that each has an Ethernet address of its own.
fn ipv6_group(first: Ipv6Addr, slot: u32) -> Ipv6Addr {
    let first = u128::from(first);
    let host = (first + u128::from(slot)) & MAC_BITS_IPV6;
    Ipv6Addr::from(first & !MAC_BITS_IPV6 | host)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::session::SESSIONS_MAX;

    fn groups(first: &str) -> Vec<SocketAddr> {
        let first = first.parse().expect("an address");
        (0..SESSIONS_MAX as u32)
            .map(|slot| group_of(first, slot))
            .collect()
    }

    #[test]
    fn each_session_has_its_own_group_and_port() {
        for first in [
            "239.192.70.250:7070",
            "239.255.255.250:65530",
            "239.1.1.1:9",
            "[ff15::ffff:fff0]:9078",
        ] {
            let groups = groups(first);
            assert_eq!(groups[0].to_string(), first);
            let addresses: BTreeSet<_> = groups.iter().map(SocketAddr::ip).collect();
            let ports: BTreeSet<_> = groups.iter().map(|group| group.port()).collect();
            assert_eq!((addresses.len(), ports.len()), (64, 64));
            assert!(!ports.contains(&0));
        }
        assert_eq!(
            groups("[ff15::ffff:ffff]:9078")[1].to_string(),
            "[ff15::]:9079"
        );
        assert_eq!(
            groups("239.192.70.255:7070")[1].to_string(),
            "239.192.71.0:7071"
        );
    }

    #[test]
    fn no_session_is_flooded_or_leaves_its_network() {
        for first in [
            "239.255.255.250:1024",
            "239.127.255.250:9078",
            "239.0.0.0:9078",
        ] {
            for group in groups(first) {
                let IpAddr::V4(address) = group.ip() else {
                    panic!("{group} is of another family");
                };
                let [network, second, third, _] = address.octets();
                assert_eq!(network, 239);
                assert!(third > 0 || !matches!(second, 0 | 128), "{group}");
            }
        }
        assert_eq!(
            groups("239.127.255.255:9078")[1].to_string(),
            "239.128.1.0:9079"
        );
        assert_eq!(
            groups("239.255.255.255:9078")[1].to_string(),
            "239.0.1.0:9079"
        );
    }
}
