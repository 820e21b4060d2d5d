//! Which group and port each session of the server has.

use std::net::{Ipv4Addr, SocketAddrV4};

/// The part of a group that its Ethernet address carries (RFC 1112).
const MAC_BITS: u32 = (1 << 23) - 1;
/// Groups of one /8, such as the 239/8 of an organisation.
const HOST_BITS: u32 = (1 << 24) - 1;
/// The first port that is not reserved.
const PORT_MIN: u16 = 1024;

/// Whether switches take this group for one of 224.0.0.x: its Ethernet address is 01:00:5e:00:00:xx, which they
/// send to every port and often to their own processor.
fn is_flooded(group: Ipv4Addr) -> bool {
    u32::from(group) & MAC_BITS < 256
}

/// Group and port of the session in this slot, counted on from `first` within its /8. Flooded groups are left out,
/// and each session has a port of its own: a socket bound to a port hears every group of that port.
pub(super) fn group_of(first: SocketAddrV4, slot: u32) -> SocketAddrV4 {
    let (network, host) = (
        u32::from(*first.ip()) & !HOST_BITS,
        u32::from(*first.ip()) & HOST_BITS,
    );
    let group = (0..=HOST_BITS)
        .map(|step| Ipv4Addr::from(network | (host + step) & HOST_BITS))
        .filter(|&group| !is_flooded(group))
        .nth(slot as usize)
        .expect("a /8 has more groups than there are slots");
    let ports = u32::from(u16::MAX - PORT_MIN) + 1;
    let port = match first.port().checked_sub(PORT_MIN) {
        Some(above) => PORT_MIN + ((u32::from(above) + slot) % ports) as u16,
        // A reserved port was asked for: the next ones are likely to be free too.
        None => first.port().max(1) + slot as u16,
    };
    SocketAddrV4::new(group, port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::session::SESSIONS_MAX;

    fn groups(first: &str) -> Vec<SocketAddrV4> {
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
        ] {
            let groups = groups(first);
            assert_eq!(groups[0].to_string(), first);
            let addresses: BTreeSet<_> = groups.iter().map(|group| *group.ip()).collect();
            let ports: BTreeSet<_> = groups.iter().map(|group| group.port()).collect();
            assert_eq!((addresses.len(), ports.len()), (64, 64));
            assert!(!ports.contains(&0));
        }
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
                let [network, second, third, _] = group.ip().octets();
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
