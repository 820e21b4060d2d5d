//! What a person sees while a session runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use netflash_multicast::{Rate, SendEvent};
use netflash_pxe::plain;

use super::outcome::{is_done, machines, missing};
use crate::{cmd::transfer::percent, progress::StatusLine};

/// Characters of a reason; it may name a machine, which names itself.
const REASON_MAX: usize = 200;

/// What a person sees.
pub(super) struct View {
    line: StatusLine,
    group: SocketAddr,
    rate: Rate,
    blocks: u32,
    started: bool,
    /// Names of the machines it is for, if they were named.
    named: BTreeSet<String>,
    /// Names of the machines heard so far.
    names: BTreeMap<u64, String>,
}

impl View {
    pub(super) fn new(group: SocketAddr, rate: Rate, blocks: u32, named: BTreeSet<String>) -> View {
        View {
            line: StatusLine::new(),
            group,
            rate,
            blocks,
            started: false,
            named,
            names: BTreeMap::new(),
        }
    }

    /// Shows what happens.
    pub(super) fn show(&mut self, event: SendEvent) {
        match event {
            SendEvent::Open {
                interface,
                symbol_bytes,
                sealed,
                verify_key,
                ..
            } => self.line.say(&format!(
                "sending to {} from {interface} at {}, {symbol_bytes} bytes a symbol, \
                 {} key {verify_key}",
                self.group,
                match self.rate {
                    Rate::Fixed(bits) => megabits(bits),
                    Rate::Auto { .. } => "what the room takes".to_owned(),
                },
                if sealed {
                    "sealed, signed with"
                } else {
                    "signed with"
                },
            )),
            SendEvent::Rate(change) => self.line.say(&format!(
                "{} from now on: {}",
                megabits(change.bits),
                plain(&change.reason.to_string(), REASON_MAX)
            )),
            SendEvent::Joined { name, id } => {
                self.line.say(&format!("{name} joined"));
                self.names.insert(id, name);
            }
            SendEvent::Ready { .. } | SendEvent::Announced { .. } => {}
            SendEvent::Started { ready } => {
                self.started = true;
                self.line
                    .say(&format!("started with {}", machines(ready as usize)));
                let missing = missing(&self.named, &self.names);
                if !missing.is_empty() {
                    self.line
                        .say(&format!("not here yet: {}", missing.join(", ")));
                }
            }
            SendEvent::Done { id } => {
                let name = self.name_of(id);
                self.line.say(&format!("{name} is done"));
            }
            SendEvent::Lost { id, said_so } => {
                let (name, how) = (
                    self.name_of(id),
                    if said_so { "left" } else { "fell silent" },
                );
                self.line.say(&format!("{name} {how} before it was done"));
            }
            SendEvent::Progress {
                rate_bits,
                stats,
                receivers,
                blocks_left,
            } => {
                let done = receivers
                    .iter()
                    .filter(|receiver| is_done(receiver))
                    .count();
                let sent = percent(
                    u64::from(self.blocks.saturating_sub(blocks_left)),
                    u64::from(self.blocks),
                );
                if self.started {
                    self.line.show(&format!(
                        "{sent} % of the blocks are everywhere, {done} of {} done, {} repair symbols, {}",
                        machines(receivers.len()),
                        stats.repair_symbols,
                        megabits(rate_bits)
                    ));
                } else {
                    let missing = missing(&self.named, &self.names);
                    let heard = format!("waiting: {} heard", machines(receivers.len()));
                    self.line.show(&match missing.is_empty() {
                        true => heard,
                        false => format!("{heard}, not {}", missing.join(", ")),
                    });
                }
            }
        }
    }

    /// Nothing more is to be seen.
    pub(super) fn close(&mut self) {
        self.line.clear();
    }

    fn name_of(&self, id: u64) -> String {
        let known = self.names.get(&id).cloned();
        known.unwrap_or_else(|| format!("machine {id:016x}"))
    }
}

fn megabits(bits: u64) -> String {
    format!("{:.0} Mbit/s", bits as f64 / 1e6)
}
