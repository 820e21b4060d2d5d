//! What is wrong with multicast here, and what to do: facts in, findings out.

use std::fs;
use std::net::{IpAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use netflash_multicast::{Examination, HeardSession, Interface};
use serde::Serialize;

/// Queriers ask this often by default: less is too short to hear one for sure.
const QUERY_INTERVAL: Duration = Duration::from_secs(125);
/// Runs of missing datagrams longer than this on average are bursts.
const BURST_MIN: f64 = 3.0;
/// A loss that repair hides without much cost, in per cent.
const LOSS_FINE: f64 = 0.1;
/// A loss that costs rate, in per cent.
const LOSS_BAD: f64 = 10.0;

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Fine,
    /// Nothing that must be mended.
    Note,
    /// It will go badly.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How serious it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What to do; empty when nothing is to be done.
    pub(crate) advice: String,
}

/// What the kernel says of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LinkFacts {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    /// Whether there is a signal; unknown for interfaces that have none.
    pub(crate) carrier: Option<bool>,
    pub(crate) bits_per_second: Option<u64>,
    pub(crate) mtu: Option<u64>,
    /// 1 drops what comes from an address that is not reached this way.
    pub(crate) rp_filter: Option<u64>,
    /// Multicast packets that came so far.
    pub(crate) multicast_packets: Option<u64>,
}

impl LinkFacts {
    /// Asks the kernel.
    pub(crate) fn read(interface: &Interface) -> LinkFacts {
        let name = interface.name();
        let link = Path::new("/sys/class/net").join(name);
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let filter = |of: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/{of}/rp_filter");
            number(Path::new(&path))
        };
        LinkFacts {
            name: name.to_owned(),
            address: interface.address(),
            carrier: number(&link.join("carrier")).map(|carrier| carrier == 1),
            bits_per_second: interface.link_bits_per_second(),
            mtu: number(&link.join("mtu")),
            // The kernel takes the stricter of the two.
            rp_filter: filter(name).max(filter("all")),
            multicast_packets: number(&link.join("statistics/multicast")),
        }
    }
}

/// Everything that is to be said after `span` of listening to `group`; `before` are the facts at its beginning.
pub(crate) fn findings(
    before: &LinkFacts,
    after: &LinkFacts,
    heard: &Examination,
    group: SocketAddrV4,
    span: Duration,
) -> Vec<Finding> {
    let mut all = Vec::new();
    link(after, &mut all);
    let came = heard.sessions.len() + heard.probes.len() > 0;
    if !came {
        let packets = after.multicast_packets.zip(before.multicast_packets);
        let reach = packets.map(|(after, before)| after.saturating_sub(before));
        nothing(after, reach, group, span, &mut all);
    }
    for (&(sender, session), heard) in &heard.sessions {
        one_session(
            &format!("session {session:08x} of {sender}"),
            heard,
            &mut all,
        );
    }
    for (sender, (count, largest)) in &heard.probes {
        let found = format!("{count} probes of {sender}, the largest of {largest} bytes");
        let whole = after.mtu.is_none_or(|mtu| *largest as u64 >= mtu);
        all.push(match whole {
            true => finding(Level::Fine, found, ""),
            false => finding(
                Level::Bad,
                format!("{found}, less than the MTU here"),
                "lower the MTU at the sender, or look for a device between that cuts large packets",
            ),
        });
    }
    duplicates(heard, &mut all);
    igmp(heard, span, &mut all);
    if heard.overflow > 0 {
        all.push(finding(
            Level::Note,
            format!(
                "{} datagrams were dropped here for want of time",
                heard.overflow
            ),
            "this machine is busy; raise net.core.rmem_max or run as root",
        ));
    }
    all
}

fn finding(level: Level, found: impl Into<String>, advice: &str) -> Finding {
    Finding {
        level,
        found: found.into(),
        advice: advice.to_owned(),
    }
}

fn link(facts: &LinkFacts, all: &mut Vec<Finding>) {
    let speed = facts
        .bits_per_second
        .map_or("unknown speed".to_owned(), |bits| {
            format!("{} Mbit/s", bits / 1_000_000)
        });
    let mtu = facts
        .mtu
        .map_or(String::new(), |mtu| format!(", MTU {mtu}"));
    let (name, address) = (&facts.name, facts.address);
    all.push(match facts.carrier {
        Some(false) => finding(
            Level::Bad,
            format!("{name} has no signal"),
            "look at the cable",
        ),
        _ => finding(Level::Fine, format!("{name} ({address}), {speed}{mtu}"), ""),
    });
    if facts
        .bits_per_second
        .is_some_and(|bits| bits < 1_000_000_000)
    {
        all.push(finding(
            Level::Note,
            format!("{name} runs at {speed}"),
            "one slow port makes a flooding switch drop for all; is it the cable?",
        ));
    }
}

fn nothing(
    facts: &LinkFacts,
    reach: Option<u64>,
    group: SocketAddrV4,
    span: Duration,
    all: &mut Vec<Finding>,
) {
    let found = format!("nothing heard on {group} for {} s", span.as_secs());
    // More than the odd query or service announcement.
    let reaches = reach.is_some_and(|packets| packets > span.as_secs() * 2);
    let advice = match (reaches, facts.rp_filter) {
        (true, Some(1)) => {
            "multicast reaches the card: rp_filter=1 drops senders that are routed elsewhere; \
             set net.ipv4.conf.all.rp_filter=2, and look at the firewall"
        }
        (true, _) => "multicast reaches the card but not the program: look at the firewall (UDP)",
        (false, _) => {
            "does anybody send (netflash doctor --send there)? Then it is the switch: IGMP \
             snooping, storm control, or another VLAN"
        }
    };
    all.push(finding(Level::Bad, found, advice));
}

fn one_session(name: &str, heard: &HeardSession, all: &mut Vec<Finding>) {
    if heard.announces == 0 {
        all.push(finding(
            Level::Bad,
            format!("{name}: data without announces"),
            "small datagrams are lost, or the sender is another program",
        ));
    }
    if heard.datagrams == 0 {
        all.push(match heard.flows {
            true => finding(
                Level::Note,
                format!("{name}: {} announces and no data", heard.announces),
                "if the sender is sending now, large or fast multicast is filtered; else nobody lacks anything",
            ),
            false => finding(Level::Fine, format!("{name}: waits for its machines"), ""),
        });
        return;
    }
    let sent = heard.datagrams + heard.missing;
    let loss = 100.0 * heard.missing as f64 / sent as f64;
    let run = heard.missing as f64 / heard.gaps.max(1) as f64;
    let pattern = match run >= BURST_MIN {
        true => format!("in bursts of {run:.0}"),
        false => "one by one".to_owned(),
    };
    let found = format!("{name}: {} datagrams, {loss:.2} % lost", heard.datagrams);
    all.push(if loss <= LOSS_FINE {
        finding(Level::Fine, found, "")
    } else if run >= BURST_MIN {
        let advice = "a buffer overflows: lower --rate, or look for a slower port of the switch";
        let level = if loss > LOSS_BAD {
            Level::Bad
        } else {
            Level::Note
        };
        finding(level, format!("{found} {pattern}"), advice)
    } else if loss > LOSS_BAD {
        let advice = "cable, port or radio; repair hides it, at the price of time";
        finding(Level::Bad, format!("{found} {pattern}"), advice)
    } else {
        finding(Level::Note, format!("{found} {pattern}"), "repair hides it")
    });
}

fn duplicates(heard: &Examination, all: &mut Vec<Finding>) {
    let senders: Vec<String> = heard
        .sessions
        .keys()
        .map(|(sender, session)| format!("{sender} ({session:08x})"))
        .collect();
    if senders.len() > 1 {
        all.push(finding(
            Level::Bad,
            format!("{} sessions on one group: {}", senders.len(), senders.join(", ")),
            "give each its own --group; machines that were told no session join whichever they hear first",
        ));
    }
}

fn igmp(heard: &Examination, span: Duration, all: &mut Vec<Finding>) {
    if let Some(reason) = &heard.deaf {
        let found = format!("IGMP cannot be listened to: {reason}");
        return all.push(finding(Level::Note, found, "run it as root"));
    }
    for (querier, version) in &heard.queriers {
        all.push(finding(
            Level::Fine,
            format!("IGMPv{version} querier {querier}"),
            "",
        ));
    }
    if !heard.queriers.is_empty() {
        return;
    }
    let found = format!("no IGMP querier heard for {} s", span.as_secs());
    all.push(match span > QUERY_INTERVAL {
        true => finding(
            Level::Bad,
            found,
            "a switch that snoops IGMP would forget this machine after some minutes: switch its \
             querier on, or set multicast.querier = \"auto\" at the server",
        ),
        false => finding(
            Level::Note,
            found,
            "they ask every 125 s: listen longer (--for 130s) to be sure",
        ),
    });
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn facts() -> LinkFacts {
        LinkFacts {
            name: "eth0".to_owned(),
            address: [10, 0, 0, 2].into(),
            carrier: Some(true),
            bits_per_second: Some(1_000_000_000),
            mtu: Some(1500),
            rp_filter: Some(0),
            multicast_packets: Some(0),
        }
    }

    fn sender(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 5000)
    }

    fn said(after: &LinkFacts, heard: &Examination, span: Duration) -> String {
        let group = SocketAddrV4::new(Ipv4Addr::new(239, 1, 1, 1), 9078);
        let all = findings(&facts(), after, heard, group, span);
        let bad = all.iter().filter(|one| one.level > Level::Fine);
        bad.map(|one| format!("{}: {}\n", one.found, one.advice))
            .collect()
    }

    fn session(datagrams: u64, missing: u64, gaps: u64) -> Examination {
        let heard = HeardSession {
            announces: 100,
            datagrams,
            missing,
            gaps,
            flows: true,
        };
        let mut found = Examination::default();
        found.sessions.insert((sender(1), 7), heard);
        found.queriers.insert(*sender(1).ip(), 3);
        found
    }

    #[test]
    fn a_good_network_gives_nothing_to_do() {
        assert_eq!(said(&facts(), &session(10_000, 1, 1), SPAN), "");
    }

    #[test]
    fn nothing_heard_is_told_apart_by_what_reaches_the_card() {
        let heard = Examination::default();
        assert!(said(&facts(), &heard, SPAN).contains("it is the switch"));
        let reached = LinkFacts {
            multicast_packets: Some(5_000),
            ..facts()
        };
        assert!(said(&reached, &heard, SPAN).contains("firewall (UDP)"));
        let strict = LinkFacts {
            rp_filter: Some(1),
            ..reached
        };
        assert!(said(&strict, &heard, SPAN).contains("rp_filter=2"));
    }

    #[test]
    fn bursts_and_single_losses_have_different_causes() {
        assert!(said(&facts(), &session(9_000, 1_000, 20), SPAN).contains("a buffer overflows"));
        assert!(said(&facts(), &session(9_500, 500, 490), SPAN).contains("repair hides it"));
        assert!(said(&facts(), &session(5_000, 5_000, 2_500), SPAN).contains("cable, port"));
    }

    #[test]
    fn two_sessions_on_one_group_are_named() {
        let mut heard = session(100, 0, 0);
        heard
            .sessions
            .insert((sender(9), 8), HeardSession::default());
        assert!(said(&facts(), &heard, SPAN).contains("2 sessions on one group: 10.0.0.1:5000"));
    }

    #[test]
    fn a_missing_querier_is_only_sure_after_its_interval() {
        let mut heard = session(100, 0, 0);
        heard.queriers.clear();
        assert!(said(&facts(), &heard, SPAN).contains("listen longer"));
        assert!(said(&facts(), &heard, QUERY_INTERVAL * 2).contains("would forget this machine"));
    }

    #[test]
    fn a_path_that_cuts_large_packets_is_seen_by_the_probes() {
        let mut heard = session(100, 0, 0);
        heard.probes.insert(*sender(1).ip(), (10, 1400));
        assert!(said(&facts(), &heard, SPAN).contains("less than the MTU here"));
        heard.probes.insert(*sender(1).ip(), (10, 1500));
        assert_eq!(said(&facts(), &heard, SPAN), "");
    }
}
