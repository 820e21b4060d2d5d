//! The session a receiver belongs to: what the announces say, and how many datagrams were lost.

use std::net::SocketAddr;
use std::time::Duration;

use crate::block::{BlockId, ObjectId};
use crate::clock::Instant;
use crate::guard::guard;
use crate::keys::VerifyKey;
use crate::wire::{Announce, AnnounceHead, Data, MAX_SERVED, Report, Served, WireError, ahead};

use super::config::ReceiverConfig;
use super::seals::Seals;

/// A sequence number further ahead than this is not believed without an announce.
const MAX_JUMP: i32 = 1 << 20;
/// Datagrams that may overtake an announce.
const MAX_OVERTAKING: i32 = 1 << 12;
/// A promise to serve a deficit holds for so many report intervals, at least `PROMISE_MIN`.
const PROMISE_INTERVALS: u32 = 2;
const PROMISE_MIN: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u32,
    /// Where reports go.
    pub(super) sender: SocketAddr,
    /// Where announces come from, and with them data.
    source: SocketAddr,
    /// Number of this machine, as announces acknowledge it.
    name: u64,
    /// Whether an announce has acknowledged this machine. In a session that is not sealed it need not.
    pub(super) welcome: bool,
    seals: Option<Seals>,
    pub(super) verify_key: VerifyKey,
    pub(super) object_id: ObjectId,
    pub(super) preamble_bytes: u32,
    pub(super) symbol_bytes: u16,
    pub(super) interval: Duration,
    /// Machines that the sender knows and that are not done.
    pub(super) room: u32,
    /// Whether the payload flows.
    pub(super) started: bool,
    /// When the sender was heard last.
    pub(super) heard: Instant,
    number: u32,
    served: Vec<Served>,
    promised: Instant,
    tally: Tally,
}

impl Session {
    /// Whether a machine of this `config` may join the session of an announce.
    pub(super) fn fits(config: &ReceiverConfig, announce: &Announce) -> bool {
        let object = config
            .object_id
            .is_none_or(|object| object == announce.object_id);
        guard!("expected_object", object) && !announce.ended
    }

    /// The same, as far as the head of an announce says it.
    pub(super) fn may_fit(config: &ReceiverConfig, head: &AnnounceHead) -> bool {
        let session = config.session.is_none_or(|session| session == head.session);
        let key = config.verify_key.is_none_or(|key| key == head.verify_key);
        guard!("expected_session", session) && guard!("expected_key", key)
    }

    /// The session of an announce that was verified, and whether it acknowledges this machine.
    pub(super) fn join(
        now: Instant,
        from: SocketAddr,
        announce: Announce,
        seals: Option<Seals>,
        number: u64,
    ) -> (Session, bool) {
        let name = seals.as_ref().map_or(number, Seals::name);
        let acked = announce.acked.contains(&name);
        let session = Session {
            id: announce.session,
            sender: reply_address(from, &announce),
            source: from,
            name,
            welcome: seals.is_none(),
            seals,
            verify_key: announce.verify_key,
            object_id: announce.object_id,
            preamble_bytes: announce.preamble_bytes,
            symbol_bytes: announce.symbol_bytes,
            interval: Duration::from_millis(u64::from(announce.interval_millis)),
            room: u32::from(announce.receivers),
            started: announce.started,
            heard: now,
            number: announce.number,
            served: announce.served,
            promised: now,
            tally: Tally {
                next: announce.sequence,
                expected: 0,
                received: 0,
                doubted: None,
            },
        };
        (session, acked)
    }

    /// Reads an announce, without checking its signature; `None` when it does not continue this session.
    pub(super) fn read(
        &self,
        head: &AnnounceHead,
        datagram: &[u8],
        room: &mut Vec<u8>,
    ) -> Result<Option<Announce>, WireError> {
        let ours = head.session == self.id
            && guard!("announce_key", head.verify_key == self.verify_key)
            && ahead(head.number, self.number) > 0;
        let announce = match &self.seals {
            _ if !ours => return Ok(None),
            Some(seals) if seals.are_of(head) => seals.announce(datagram, room)?,
            Some(_) => return Ok(None),
            None => Announce::peek(datagram)?,
        };
        let continues = announce.object_id == self.object_id
            && announce.preamble_bytes == self.preamble_bytes
            && announce.symbol_bytes == self.symbol_bytes;
        Ok(Some(announce).filter(|_| continues))
    }

    /// Takes a data datagram apart, if it can be one of this session.
    pub(super) fn open<'a>(
        &self,
        from: SocketAddr,
        datagram: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Option<Data<'a>> {
        match &self.seals {
            Some(seals) => seals.data(datagram, room).ok(),
            // An address can be forged, but a stray session of the same number is kept out.
            None if from == self.source => Data::parse(datagram).ok(),
            None => None,
        }
    }

    /// Appends the datagram of a report to `out`. Its number is used once.
    pub(super) fn pack(&self, report: Report, out: &mut Vec<u8>) {
        match &self.seals {
            Some(seals) => seals.report(report, out),
            None => report.pack(out),
        }
    }

    /// Takes a verified announce that continues the session; whether it acknowledges this machine.
    pub(super) fn update(&mut self, now: Instant, from: SocketAddr, announce: Announce) -> bool {
        self.sender = reply_address(from, &announce);
        self.source = from;
        self.heard = now;
        self.started = announce.started;
        self.number = announce.number;
        self.interval = Duration::from_millis(u64::from(announce.interval_millis));
        self.room = u32::from(announce.receivers);
        self.served = announce.served;
        self.promised = now;
        self.tally.reach(announce.sequence);
        announce.acked.contains(&self.name)
    }

    /// A data datagram of the session came.
    pub(super) fn count(&mut self, sequence: u32) {
        self.tally.count(sequence);
    }

    /// Whether the sender has promised to send `deficit` symbols of `block`, so that asking is idle.
    pub(super) fn promises(&self, now: Instant, block: BlockId, deficit: u16) -> bool {
        let holds = (self.interval * PROMISE_INTERVALS).max(PROMISE_MIN);
        let enough = |served: &Served| served.block == block && served.symbols >= deficit;
        now.since(self.promised) < holds && self.served.iter().any(enough)
    }

    /// Number of the newest announce.
    pub(super) fn echo(&self) -> u32 {
        self.number
    }

    /// Whether the last announce leaves `deficit` symbols of `block` unpromised. Nothing is known of blocks beyond the
    /// end of a full list.
    pub(super) fn leaves(&self, block: BlockId, deficit: u16) -> bool {
        match self.served.iter().find(|served| served.block == block) {
            Some(served) => served.symbols < deficit,
            None => self.started && self.served.len() < MAX_SERVED,
        }
    }

    /// Sequence number before which everything counts.
    pub(super) fn as_of(&self) -> u32 {
        self.tally.next
    }

    /// Datagrams sent and datagrams that came.
    pub(super) fn traffic(&self) -> (u32, u32) {
        (self.tally.expected, self.tally.received)
    }

    /// What was sent since `then` (see [`traffic`](Session::traffic)) and did not come is no loss: nobody waited for it.
    pub(super) fn forgive_since(&mut self, then: (u32, u32)) {
        let came = self.tally.received.wrapping_sub(then.1);
        self.tally.expected = then.0.wrapping_add(came);
    }
}

/// Where reports go: what the sender signs counts, for whoever repeats its announce has another address.
fn reply_address(from: SocketAddr, announce: &Announce) -> SocketAddr {
    match announce.reply_to {
        Some(address) if !guard!("reply_address", false) => address,
        _ => from,
    }
}

/// Counting by sequence numbers.
#[derive(Debug)]
struct Tally {
    next: u32,
    expected: u32,
    received: u32,
    /// What `next` was when an announce last said less.
    doubted: Option<u32>,
}

impl Tally {
    fn count(&mut self, sequence: u32) {
        let gap = ahead(sequence, self.next);
        if !guard!("sequence_jump", gap <= MAX_JUMP) {
            return;
        }
        if gap >= 0 {
            self.expected = self.expected.wrapping_add(gap as u32 + 1);
            self.next = sequence.wrapping_add(1);
        }
        self.received = self.received.wrapping_add(1);
    }

    /// The sender itself says, signed, that `next` is the next sequence number. A forged datagram may
    /// have led the count astray; an honest one may have overtaken the announce.
    fn reach(&mut self, next: u32) {
        let gap = ahead(next, self.next);
        if gap > 0 {
            self.expected = self.expected.wrapping_add(gap as u32);
        }
        // What has overtaken one announce cannot have overtaken the one after it as well; and a report as of
        // a datagram that the sender has not sent is of no use to it.
        let overtaken = (-MAX_OVERTAKING..0).contains(&gap) && self.doubted != Some(self.next);
        self.doubted = overtaken.then_some(self.next);
        if !overtaken {
            self.next = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_across_the_wrap() {
        let mut tally = Tally {
            next: u32::MAX - 1,
            expected: 0,
            received: 0,
            doubted: None,
        };
        [u32::MAX - 1, u32::MAX, 2, 1, 5]
            .into_iter()
            .for_each(|sequence| tally.count(sequence));
        assert_eq!((tally.expected, tally.received, tally.next), (8, 5, 6));
        tally.reach(10);
        assert_eq!((tally.expected, tally.next), (12, 10));
    }

    #[test]
    fn a_sequence_number_that_two_announces_deny_is_dropped() {
        let mut tally = Tally {
            next: 500,
            expected: 0,
            received: 0,
            doubted: None,
        };
        tally.count(600);
        tally.reach(500);
        assert_eq!(tally.next, 601, "it may have overtaken the announce");
        tally.reach(500);
        assert_eq!(tally.next, 500);
    }

    #[test]
    fn a_forged_sequence_number_is_not_believed() {
        let mut tally = Tally {
            next: 100,
            expected: 0,
            received: 0,
            doubted: None,
        };
        tally.count(100 + (1 << 21));
        assert_eq!((tally.next, tally.received), (100, 0));
        tally.count(100 + (1 << 19));
        tally.reach(200);
        assert_eq!(tally.next, 200);
    }
}
