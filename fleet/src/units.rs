//! Rates, durations and groups as people write them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use netflash_multicast::{Interface, Rate};

/// Group and port of a session when nothing else is said: in the organisation's own range (RFC 2365), and on an
/// Ethernet address that no switch floods as link-local.
pub const DEFAULT_GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 192, 78, 70), 9078);

/// What a group of IPv6 may be: transient (RFC 4291, RFC 3306), not of one source (RFC 4607), and heard outside of the
/// sender, anywhere from its link to the world.
const TRANSIENT: u16 = 0x0010;
const ONE_SOURCE: u16 = 0xff30;
const SCOPES: std::ops::RangeInclusive<u16> = 0x2..=0xe;

/// The word for a rate that the room sets.
const AUTO: &str = "auto";
/// Speed of a link that does not tell it.
const LINK_BITS: u64 = 1_000_000_000;
/// The part of a link that all sessions together take at most, in per cent.
const LINK_PERCENT: u64 = 97;

/// Bits per second, as `900M`, `2.5G`, `100k` or a bare number.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.chars().last() {
        Some('k' | 'K') => (&text[..text.len() - 1], 1e3),
        Some('M') => (&text[..text.len() - 1], 1e6),
        Some('G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    let number: f64 = number.parse().unwrap_or(f64::NAN);
    let bits = number * factor;
    if bits.is_finite() && (100e3..=1e12).contains(&bits) {
        Ok(bits as u64)
    } else {
        Err("expected bits per second from 100k to 1000G, such as 900M, or auto".to_owned())
    }
}

/// A rate as [`parse_rate`] takes it, or `auto`: as fast as the room takes it, on the link of `interface`.
pub(crate) fn rate_on(text: &str, interface: &Interface) -> Result<Rate, String> {
    if text != AUTO {
        return parse_rate(text).map(Rate::Fixed);
    }
    let link_bits = interface.link_bits_per_second().unwrap_or(LINK_BITS);
    Ok(Rate::Auto { link_bits })
}

/// The cap of all sessions together: `auto` is what `interface` carries, less a little for everybody else; none when
/// the link does not tell its speed.
pub(crate) fn total_on(text: &str, interface: &Interface) -> Result<Option<u64>, String> {
    if text != AUTO {
        return parse_rate(text).map(Some);
    }
    let link_bits = interface.link_bits_per_second();
    Ok(link_bits.map(|bits| bits / 100 * LINK_PERCENT))
}

/// Whether `text` is a rate or `auto`.
pub(crate) fn check_rate(text: &str) -> Result<(), String> {
    if text == AUTO {
        return Ok(());
    }
    parse_rate(text).map(drop)
}

/// A duration, as `500ms`, `60s`, `5m`, `2h` or bare seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let millis_each = match &text[digits.len()..] {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let whole: Option<u64> = digits.parse().ok();
    whole
        .zip(millis_each)
        .and_then(|(whole, each)| whole.checked_mul(each))
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a duration such as 60s, 500ms or 5m".to_owned())
}

/// Whether sessions may have this group: 224.0.0.x belongs to the protocols of a single network, and switches send
/// it everywhere.
pub(crate) fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_multicast() && address.octets()[..3] != [224, 0, 0],
        IpAddr::V6(address) => is_ipv6_group(address),
    }
}

/// Whether sessions may have this group of IPv6: somebody's own for a time, as `ff15::1`; those given out for ever
/// belong to other protocols.
fn is_ipv6_group(address: Ipv6Addr) -> bool {
    let head = address.segments()[0];
    let of_one_source = head & 0xfff0 == ONE_SOURCE && address.segments()[1] == 0;
    address.is_multicast()
        && head & TRANSIENT != 0
        && SCOPES.contains(&(head & 0xf))
        && !of_one_source
}

/// A multicast group with or without a port, `239.192.78.70:9078`, `ff15::1` or `[ff15::1]:9078`.
pub(crate) fn parse_group(text: &str) -> Result<SocketAddr, String> {
    let group = text.parse().or_else(|_| {
        let address = text.parse::<IpAddr>();
        address.map(|address| SocketAddr::new(address, DEFAULT_GROUP.port()))
    });
    let is_good = |group: &SocketAddr| is_group(group.ip());
    group.ok().filter(is_good).ok_or_else(|| {
        "expected a multicast group, 224.0.1.0 to 239.255.255.255[:port], or a transient one of \
         IPv6, such as [ff15::1]:port"
            .to_owned()
    })
}

/// As [`parse_group`], and of IPv4.
pub(crate) fn parse_ipv4_group(text: &str) -> Result<SocketAddrV4, String> {
    match parse_group(text)? {
        SocketAddr::V4(group) => Ok(group),
        SocketAddr::V6(_) => Err("expected a group of IPv4".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_has_a_unit_or_none() {
        assert_eq!(parse_rate("900M"), Ok(900_000_000));
        assert_eq!(parse_rate("2.5G"), Ok(2_500_000_000));
        assert_eq!(parse_rate("250000"), Ok(250_000));
        for wrong in ["", "M", "-5M", "1", "fast", "9e99G", "NaN"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn auto_is_a_rate_too() {
        assert_eq!(check_rate("auto"), Ok(()));
        assert_eq!(check_rate("1.5G"), Ok(()));
        assert!(check_rate("autos").is_err());
    }

    #[test]
    fn a_duration_has_a_unit_or_means_seconds() {
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "s", "1x", "99999999999999999999s", "-1s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_group_needs_no_port_but_must_be_multicast() {
        assert_eq!(
            parse_group("239.1.2.3").map(|group| group.port()),
            Ok(DEFAULT_GROUP.port())
        );
        assert_eq!(parse_group("239.1.2.3:5").map(|group| group.port()), Ok(5));
        assert!(parse_group("10.0.0.1").is_err());
        assert!(parse_group("224.0.0.251:5353").is_err());
        assert!(parse_group("room").is_err());
        assert!(parse_ipv4_group("ff15::1").is_err());
        assert!(parse_ipv4_group("239.1.2.3").is_ok());
    }

    #[test]
    fn a_group_of_ipv6_is_transient_and_leaves_the_machine() {
        for good in ["ff12::1", "ff15::efc0:4e46", "ff3e:40:2001:db8::8000:1"] {
            let port = parse_group(good).map(|group| group.port());
            assert_eq!(port, Ok(DEFAULT_GROUP.port()), "{good}");
            assert!(parse_group(&format!("[{good}]:5")).is_ok(), "{good}");
        }
        // One machine only, all nodes, mDNS, one source, reserved scopes, and no group at all.
        let bad = [
            "ff11::1",
            "ff02::1",
            "ff02::fb",
            "ff35::8000:1",
            "ff10::1",
            "ff1f::1",
            "fd00::1",
        ];
        for bad in bad {
            assert!(parse_group(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = (parse_rate(&text), parse_duration(&text), parse_group(&text));
        }
    }
}
