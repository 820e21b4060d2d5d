//! Blocks that come another way than by multicast, to a machine that it does not reach.
//!
//! They join the session's blocks where those are complete; what arrives by either way is taken. While
//! the detour is on, the machine asks the sender for nothing and reports no loss, so that the room does
//! not repeat and slow down for a machine that cannot hear it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::block::BlockId;
use crate::clock::Instant;
use crate::fec::Fec;
use crate::wire::{Kind, Phase};

use super::health::Health;
use super::preamble::Preamble;
use super::session::Session;
use super::{Receiver, Way};

impl<F: Fec> Receiver<F> {
    /// Whether multicast reaches this machine, as seen by somebody who waits `patience` before saying
    /// that it does not.
    pub fn health(&self, now: Instant, patience: Duration) -> Health {
        self.vigil.health(now, patience)
    }

    /// Blocks come another way from now on, or do so no more.
    pub fn set_detour(&mut self, now: Instant, on: bool) {
        if on == self.standing.detour.is_some() {
            return;
        }
        if on {
            let traffic = self.standing.session.as_ref().map(Session::traffic);
            self.standing.detour = Some(traffic.unwrap_or_default());
        } else if let Some(then) = self.standing.detour.take()
            && let Some(session) = &mut self.standing.session
        {
            session.forgive_since(then);
            session.heard = now;
        }
        self.reporter.look_by(now);
    }

    /// Takes the sender's announce as somebody else heard it; `sender` is where it sends from and takes
    /// reports. It is believed no more than any other. That it is no recording is `vouched` for by a way that
    /// has proved to be the sender's host: then a sealed session need not hear this machine first, which it
    /// never does where datagrams pass in neither direction.
    pub fn handle_relayed(
        &mut self,
        now: Instant,
        sender: SocketAddr,
        datagram: &[u8],
        vouched: bool,
    ) {
        if self.over {
            return;
        }
        let taken = match Kind::of(datagram) {
            Ok(Kind::Announce) => self.handle_announce(now, sender, datagram, Way::Relayed),
            _ => None,
        };
        match taken {
            None => self.stats.ignored += 1,
            Some(()) if vouched && !self.over => self.welcome(now),
            Some(()) => {}
        }
    }

    /// Whether the preamble is still lacking; `false` before a session is joined.
    pub fn lacks_preamble(&self) -> bool {
        self.standing.preamble.is_some()
    }

    /// Whether the machine can do nothing before the sender has acknowledged it in an announce.
    pub fn awaits_announce(&self) -> bool {
        self.unwelcome.is_some() || self.standing.phase == Phase::Done
    }

    /// Takes the whole preamble. `false` when it is not lacking, or is not what the announce promised.
    pub fn take_preamble(&mut self, now: Instant, whole: Vec<u8>) -> bool {
        let right = |preamble: &Preamble| preamble.is_right(&whole);
        if !self.standing.preamble.as_ref().is_some_and(right) {
            return false;
        }
        self.standing.preamble = None;
        self.stats.detour_bytes += whole.len() as u64;
        self.hand_over(now, whole);
        true
    }

    /// The first payload block from `from` on of which symbols are lacking.
    pub fn next_lacking(&self, from: BlockId) -> Option<BlockId> {
        let table = self.standing.payload.as_ref()?;
        table.next_lacking(from.index()).map(BlockId)
    }

    /// Takes a whole payload block. `false` when it is not wanted (any more) or has another length.
    pub fn take_block(&mut self, block: BlockId, payload: Vec<u8>) -> bool {
        let bytes = payload.len() as u64;
        let table = self.standing.payload.as_mut();
        let taken = !block.is_preamble()
            && table.is_some_and(|table| table.take_whole(block.index(), payload));
        if taken {
            self.stats.detour_blocks += 1;
            self.stats.detour_bytes += bytes;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Layout, ObjectId};
    use crate::fec::ReedSolomon;
    use crate::keys::SigningKey;
    use crate::receiver::{ReceiverConfig, ReceiverEvent};
    use crate::seal::{Membership, ReportSecret, SenderSeal, SessionKey, Suite};
    use crate::sender::{Rate, Sender, SenderConfig, StartRule};

    const MACHINE: u32 = 3;

    /// What becomes of the preamble of a sealed session whose sender never hears the machine.
    fn events_of(vouched: bool) -> Vec<ReceiverEvent> {
        let key = SessionKey::from_bytes([1; 32]);
        let secret = ReportSecret::from_bytes([2; 32]);
        let membership = Membership {
            machine: MACHINE,
            session_key: key.clone(),
            report_key: secret.key_of(MACHINE),
        };
        let preamble = vec![7; 3000];
        let config = SenderConfig {
            session: 77,
            object_id: ObjectId(*blake3::hash(&preamble).as_bytes()),
            signing_key: SigningKey::from_seed(&[5; 32]),
            seal: Some(SenderSeal::with_salt(
                key,
                secret,
                Suite::Aes256Gcm,
                [9; 16],
            )),
            reply_to: None,
            symbol_bytes: 1440,
            rate: Rate::Fixed(500_000_000),
            start: StartRule {
                receivers: 1,
                wait: Duration::from_secs(60),
            },
            linger: Duration::from_millis(300),
        };
        let layout = Layout::new(vec![5000]).unwrap();
        let fec = ReedSolomon::new();
        let mut sender = Sender::new(Instant::ZERO, config, &preamble, layout, fec).unwrap();
        let mut announce = Vec::new();
        sender.poll_transmit(Instant::ZERO, &mut announce).unwrap();

        let config = ReceiverConfig {
            id: 1,
            name: "walled".to_owned(),
            session: None,
            verify_key: None,
            membership: Some(membership),
            object_id: None,
            silence: Duration::from_secs(5),
            chance: Box::new(|| 4),
        };
        let mut receiver = Receiver::new(Instant::ZERO, config, ReedSolomon::new());
        let from = SocketAddr::from(([10, 0, 0, 1], 5000));
        receiver.set_detour(Instant::ZERO, true);
        receiver.handle_relayed(Instant::ZERO, from, &announce, vouched);
        assert!(receiver.take_preamble(Instant::ZERO, preamble));
        std::iter::from_fn(|| receiver.poll_event()).collect()
    }

    #[test]
    fn a_sealed_session_that_its_host_vouches_for_needs_no_datagram_from_the_machine() {
        let begun = |event: &ReceiverEvent| matches!(event, ReceiverEvent::Preamble(_));
        assert!(events_of(true).iter().any(begun));
        let unproved = events_of(false);
        assert!(
            matches!(unproved[..], [ReceiverEvent::Joined { .. }]),
            "{unproved:?}"
        );
    }
}
