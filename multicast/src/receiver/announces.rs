//! What a receiver does with an announce: join by it, follow it, or leave it alone.

use std::net::SocketAddr;

use crate::clock::Instant;
use crate::fec::Fec;
use crate::guard::guard;
use crate::wire::{Announce, AnnounceHead, Phase};

use super::event::{ReceiverError, ReceiverEvent};
use super::preamble::Preamble;
use super::seals::{Introduced, Seals, introduce};
use super::session::Session;
use super::{Receiver, Way};

impl<F: Fec> Receiver<F> {
    pub(super) fn handle_announce(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        way: Way,
    ) -> Option<()> {
        let mut room = std::mem::take(&mut self.room);
        let read = self.read_announce(datagram, &mut room);
        self.room = room;
        let (announce, seals) = read?;
        let ended = announce.ended;
        let told_before = self.standing.sent();
        let acked = match &mut self.standing.session {
            Some(session) => session.update(now, from, announce),
            None => self.join(now, from, announce, seals),
        };
        if way == Way::Multicast {
            let unseen = self.standing.sent().wrapping_sub(told_before);
            self.vigil.announced(now, unseen);
        }
        self.reporter
            .hear_announce(now, &self.standing, &mut self.config.chance);
        if acked {
            self.welcome(now);
        }
        if self.standing.phase == Phase::Done && (guard!("done_ack", acked) || ended) {
            self.finish(ReceiverEvent::Finished);
        } else if ended && way == Way::Multicast {
            let lacking = self.lacking();
            self.finish(ReceiverEvent::Failed(ReceiverError::Ended { lacking }));
        }
        Some(())
    }

    /// An announce that concerns this machine and is genuine. What is cheap to see comes first, the signature last.
    fn read_announce(&mut self, datagram: &[u8], room: &mut Vec<u8>) -> Option<Introduced> {
        let head = AnnounceHead::peek(datagram).ok()?;
        let read = match &self.standing.session {
            Some(session) => {
                let announce = session.read(&head, datagram, room).ok()??;
                (announce, None)
            }
            None => {
                if !Session::may_fit(&self.config, &head) {
                    return None;
                }
                let (membership, number) = (self.config.membership.as_ref(), self.config.id);
                match introduce(membership, number, &head, datagram, room) {
                    Ok(read) if Session::fits(&self.config, &read.0) => read,
                    Ok(_) => return None,
                    Err(obstacle) => {
                        self.obstacle = Some(obstacle);
                        return None;
                    }
                }
            }
        };
        read.0.check_signature(datagram).ok()?;
        Some(read)
    }

    /// Joins the session of a genuine announce; whether that acknowledges this machine already.
    fn join(
        &mut self,
        now: Instant,
        from: SocketAddr,
        announce: Announce,
        seals: Option<Seals>,
    ) -> bool {
        let (session, acked) = Session::join(now, from, announce, seals, self.config.id);
        self.obstacle = None;
        self.standing.preamble = Some(Preamble::of(&session));
        self.events.push_back(ReceiverEvent::Joined {
            session: session.id,
            object_id: session.object_id,
            verify_key: session.verify_key,
            from,
        });
        self.standing.session = Some(session);
        self.enter(now, Phase::Joining);
        for (from, datagram) in self.early.take_all() {
            self.handle_data(now, from, &datagram);
        }
        acked
    }

    /// The sender has heard this start of this machine, so it is here and now, and no recording.
    pub(super) fn welcome(&mut self, now: Instant) {
        if let Some(session) = &mut self.standing.session {
            session.welcome = true;
        }
        if let Some(preamble) = self.unwelcome.take() {
            self.hand_over(now, preamble);
        }
    }

    /// Gives a complete preamble to the sink, as soon as the session is proved to be one of now.
    pub(super) fn hand_over(&mut self, now: Instant, preamble: Vec<u8>) {
        let welcome = self
            .standing
            .session
            .as_ref()
            .is_some_and(|session| session.welcome);
        if !guard!("welcome", welcome) {
            self.unwelcome = Some(preamble);
            return;
        }
        self.events.push_back(ReceiverEvent::Preamble(preamble));
        self.enter(now, Phase::Surveying);
    }
}
