//! Sealing what the sender says, and opening what it hears.

use crate::guard::guard;
use crate::keys::{SigningKey, VerifyKey};
use crate::seal::{Binding, GroupKeys, Member, ReportSecret, SenderSeal};
use crate::wire::{Announce, Data, Report, ReportHead, WireError, is_sealed};

/// A sender with a key, or one without.
#[derive(Debug)]
pub(super) struct Seals {
    keys: Option<Keys>,
    /// What a report is opened into.
    room: Vec<u8>,
}

#[derive(Debug)]
struct Keys {
    binding: Binding,
    group: GroupKeys,
    report_secret: ReportSecret,
    sequence_max: u32,
}

impl Seals {
    pub(super) fn new(seal: Option<SenderSeal>, session: u32, sender: VerifyKey) -> Seals {
        let keys = seal.map(|seal| {
            let binding = Binding {
                session,
                sealing: seal.sealing,
                sender,
            };
            Keys {
                binding,
                group: GroupKeys::new(&seal.key, &binding),
                report_secret: seal.report_secret,
                sequence_max: seal.sequence_max,
            }
        });
        Seals {
            keys,
            room: Vec::new(),
        }
    }

    /// Whether `number` is one that must not seal any more: soon they would begin again, under the same key.
    pub(super) fn is_spent(&self, number: u32) -> bool {
        let spent = |keys: &Keys| !guard!("nonce_end", number < keys.sequence_max);
        self.keys.as_ref().is_some_and(spent)
    }

    pub(super) fn data(&self, data: &Data<'_>, out: &mut Vec<u8>) {
        match &self.keys {
            Some(keys) => data.seal(&keys.group.data, out),
            None => data.pack(out),
        }
    }

    pub(super) fn announce(&self, announce: &Announce, key: &SigningKey, out: &mut Vec<u8>) {
        match &self.keys {
            Some(keys) => announce.seal(key, keys.binding.sealing, &keys.group.announce, out),
            None => announce.pack(key, out),
        }
    }

    /// A report in `datagram`. In a sealed session its machine is called by the name that only it and this sender
    /// can compute, so that no machine can speak of another.
    pub(super) fn report(&mut self, datagram: &[u8]) -> Result<Report, WireError> {
        let Some(keys) = &self.keys else {
            return Report::parse(datagram);
        };
        if !is_sealed(datagram) {
            return if guard!("unsealed_report", false) {
                Report::parse(datagram)
            } else {
                Err(WireError::Unopened)
            };
        }
        let head = ReportHead::peek(datagram)?;
        let key = keys.report_secret.key_of(head.machine);
        let member = Member::new(&key, &keys.binding, head.receiver);
        let mut report = Report::open(&member.cipher, datagram, &mut self.room)?;
        report.receiver = member.name;
        Ok(report)
    }
}
