//! `netflash doctor`: does multicast pass here, and if not, why?

use std::{net::SocketAddrV4, time::Duration};

use anyhow::Context;
use clap::Args;
use netflash_multicast::{Family, Interface, InterfaceChoice, examine, probe};
use serde_json::json;

use super::show;
use crate::{
    Exit,
    doctor::{Finding, Level, LinkFacts, findings},
    interrupt::stop_on_signal,
    units::{DEFAULT_GROUP, parse_duration, parse_ipv4_group},
};

/// Find out whether multicast passes, from whom, and what to do if it does not
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  netflash doctor --iface eth0
  netflash doctor --iface eth0 --send      at one end, while the other listens
  netflash doctor --for 130s --json        long enough to hear any querier")]
pub(crate) struct DoctorArgs {
    /// Interface to look at, by name or address; needed when there are several
    #[arg(long, value_name = "IF", default_value = "auto")]
    iface: String,
    /// Multicast group and port of the session
    #[arg(long, value_name = "ADDR[:PORT]", default_value_t = DEFAULT_GROUP, value_parser = parse_ipv4_group)]
    group: SocketAddrV4,
    /// How long to listen, or to send
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    span: Duration,
    /// Send probes for a doctor at the other end instead of listening
    #[arg(long)]
    send: bool,
    /// Routers that probes may pass, plus one
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=255))]
    ttl: u32,
}

/// Listens and says what it found, or sends probes. Something bad found is exit code 1.
pub(crate) fn run(args: &DoctorArgs, json: bool) -> anyhow::Result<Exit> {
    let interface = Interface::choose(&args.iface.parse::<InterfaceChoice>()?, Family::V4)?;
    let stop = stop_on_signal()?;
    let (group, span) = (args.group, args.span);
    if args.send {
        let sent = probe(&interface, group, args.ttl, span, &stop);
        let (probes, largest) =
            sent.with_context(|| format!("sending to {group} from {interface}"))?;
        let result = json!({ "probes": probes, "largest_bytes": largest });
        show(json, &result, || {
            format!("{probes} probes sent to {group} from {interface}, up to {largest} bytes\n")
        })?;
        return Ok(Exit::Done);
    }
    eprintln!(
        "listening to {group} at {interface} for {} s",
        span.as_secs()
    );
    let before = LinkFacts::read(&interface);
    let heard = examine(&interface, group, span, &stop);
    let heard = heard.with_context(|| format!("listening to {group} at {interface}"))?;
    let after = LinkFacts::read(&interface);
    let found = findings(&before, &after, &heard, group, span);
    let sessions: Vec<_> = heard
        .sessions
        .iter()
        .map(|((sender, session), heard)| {
            json!({
                "sender": sender, "session": format!("{session:08x}"), "announces": heard.announces,
                "datagrams": heard.datagrams, "missing": heard.missing, "gaps": heard.gaps,
            })
        })
        .collect();
    let result = json!({
        "interface": after, "group": group, "sessions": sessions, "queriers": heard.queriers,
        "foreign": heard.foreign, "largest_bytes": heard.largest_bytes, "findings": found,
    });
    show(json, &result, || text(&found))?;
    let bad = found.iter().any(|one| one.level == Level::Bad);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

fn text(found: &[Finding]) -> String {
    let mut text = String::new();
    for Finding {
        level,
        found,
        advice,
    } in found
    {
        let mark = match level {
            Level::Fine => "ok  ",
            Level::Note => "note",
            Level::Bad => "BAD ",
        };
        text += &format!("{mark}  {found}\n");
        if !advice.is_empty() {
            text += &format!("      -> {advice}\n");
        }
    }
    text
}
